"""The space `darts_cell`."""

from nasjax.spaces.darts_cell.space import DartsCell, genotype

__all__ = ["DartsCell", "genotype"]
