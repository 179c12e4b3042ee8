"""Correlation of two numbers: Pearson's r of the values, Spearman's rho of their ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

Pairs = Sequence[tuple[float, float]]


def pearson(pairs: Pairs) -> float | None:
    """-1 to 1, how far the points lie on a line. None for fewer than two points, or where a side does not vary.

    Example:
      >>> pearson([(1, 2), (2, 4), (3, 6)])
      1.0
    """
    if len(pairs) < 2:
        return None
    xs, ys = zip(*pairs, strict=True)
    dx, dy = ([value - sum(side) / len(side) for value in side] for side in (xs, ys))
    spread = math.sqrt(sum(d * d for d in dx) * sum(d * d for d in dy))
    return max(-1.0, min(1.0, sum(map(float.__mul__, map(float, dx), map(float, dy))) / spread)) if spread else None


def spearman(pairs: Pairs) -> float | None:
    """Pearson's r of the ranks; ties share their mean rank (Spearman 1904).

    Example:
      >>> spearman([(1, 10), (2, 1000), (3, 5000)])  # any rising curve
      1.0
    """
    if not pairs:
        return None
    return pearson(list(zip(*(_ranks(side) for side in zip(*pairs, strict=True)), strict=True)))


def told(pairs: Pairs) -> str:
    """Both in words, for a caption."""
    r, rho = pearson(pairs), spearman(pairs)
    if r is None or rho is None:
        return f"The correlation of {len(pairs)} trials is undefined: they do not differ."
    return f"Pearson's r {r:.3f}, Spearman's rho {rho:.3f}, over {len(pairs):,} trials."


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks, first = [0.0] * len(values), 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for i in order[first : last + 1]:
            ranks[i] = (first + last) / 2
        first = last + 1
    return ranks
