"""The space `vit_chain`."""

from nasjax.spaces.vit_chain.space import VitChain

__all__ = ["VitChain"]
