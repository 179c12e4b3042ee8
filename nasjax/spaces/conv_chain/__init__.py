"""The space `conv_chain`."""

from nasjax.spaces.conv_chain.space import ConvChain, variant

__all__ = ["ConvChain", "variant"]
