"""The space `resolution_graph`."""

from nasjax.spaces.resolution_graph.space import ResolutionGraph

__all__ = ["ResolutionGraph"]
