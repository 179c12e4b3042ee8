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


_VARIANCE = {  # of Fisher's z of a coefficient over n points; Bonett & Wright 2000, "Sample size requirements ..."
    "pearson": lambda r, n: 1 / (n - 3),
    "spearman": lambda r, n: (1 + r * r / 2) / (n - 3),
    "kendall": lambda r, n: 0.437 / (n - 4),
}
_FEWEST = {"pearson": 4, "spearman": 4, "kendall": 5}


def interval(kind: str, value: float, n: int) -> tuple[float, float] | None:
    """The 95 % interval of a coefficient by Fisher's z; None where the points are too few, or in perfect order.

    Args:
      kind: "pearson", "spearman" or "kendall".
      value: the coefficient over n points.

    Example:
      >>> [round(end, 2) for end in interval("pearson", 0.5, 10)]
      [-0.19, 0.86]
    """
    if n < _FEWEST[kind] or abs(value) >= 1:
        return None
    z, far = math.atanh(value), 1.96 * math.sqrt(_VARIANCE[kind](value, n))
    return math.tanh(z - far), math.tanh(z + far)


def with_interval(kind: str, value: float | None, n: int) -> str:
    """A coefficient over n points in words, with its 95 % interval: "0.500 (−0.19 to 0.86)"."""
    if value is None:
        return "–"
    ends = interval(kind, value, n)
    within = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else f"{n} points: no interval"
    return f"{value:.3f} ({within})".replace("-", "−")


def told(pairs: Pairs) -> str:
    """Both in words, for a caption."""
    r, rho, n = pearson(pairs), spearman(pairs), len(pairs)
    if r is None or rho is None:
        return f"The correlation of {n} trials is undefined: they do not differ."
    return (
        f"Pearson's r {with_interval('pearson', r, n)}, Spearman's rho {with_interval('spearman', rho, n)}, over "
        f"{n:,} trials; in brackets the 95 % interval."
    )


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
