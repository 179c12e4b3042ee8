"""Data sets by their names: `data.dataset.load` and `load_test` of what the catalog lists."""

from __future__ import annotations

from collections.abc import Callable

from nasjax import catalog
from nasjax.data import dataset
from nasjax.data.dataset import DataConfig, Dataset
from nasjax.data.sources import Split


def load(config: DataConfig, told: Callable[[str], None] | None = None) -> Dataset:
    """The training and validation parts.

    Example:
      >>> load(DataConfig()).train.x.shape
      (1200, 8, 8, 1)

    Raises:
      ValueError, FileNotFoundError: in one line, what is wrong and what to do.
    """
    return dataset.load(config, catalog.source(config.name), told)


def load_test(config: DataConfig, told: Callable[[str], None] | None = None) -> Split:
    """The test part. Errors as of `load`."""
    return dataset.load_test(config, catalog.source(config.name), told)
