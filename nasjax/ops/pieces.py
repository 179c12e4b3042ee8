"""A batch in pieces small enough for a CPU's cache."""

from __future__ import annotations

from jax import export


def piece_of(batch: int, sample: int, most: int) -> int:
    """Samples in a piece: the largest divisor of the batch with at most `most` numbers, or else 1.

    Args:
      batch: samples. Where it is symbolic (`jax.export`) a piece is one sample: that divides every batch.
      sample: numbers in a sample.
      most: numbers in a piece.
    """
    if export.is_symbolic_dim(batch):
        return 1
    return max((n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * sample <= most)), default=1)


def piece_of_at_least(batch: int, least: int) -> int:
    """Samples in a piece: the smallest divisor of the batch that is no less than `least`, or the batch."""
    if export.is_symbolic_dim(batch):
        return 1
    return min((n for n in range(least, batch + 1) if batch % n == 0), default=batch)
