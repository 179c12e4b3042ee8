"""The space `tabular_cell`."""

from nasjax.spaces.tabular_cell.space import TabularCell

__all__ = ["TabularCell"]
