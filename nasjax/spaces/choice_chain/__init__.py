"""The space `choice_chain`."""

from nasjax.spaces.choice_chain.space import ChoiceChain, variant

__all__ = ["ChoiceChain", "variant"]
