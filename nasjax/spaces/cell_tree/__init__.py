"""The space `cell_tree`."""

from nasjax.spaces.cell_tree.space import CellTree

__all__ = ["CellTree"]
