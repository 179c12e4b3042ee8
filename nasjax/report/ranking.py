"""Statistics for reports of one-shot runs: a front, Kendall's tau, how often operators were chosen."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from nasjax.report.runs import Trial


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats in one objective without losing in another, the largest first objective first."""
    found: list[Trial] = []
    for trial in sorted(trials, key=lambda t: t.objectives, reverse=True):  # whatever beats a trial stands before it
        if not any(_dominates(other.objectives, trial.objectives) for other in found):
            found.append(trial)
    return found


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return a != b and all(map(operator.ge, a, b))


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Tau-b: 1 = both orders agree, 0 = unrelated, -1 = reversed. None where one side has no order.

    Kendall 1945, "The treatment of ties in ranking problems": pairs that are tied on a side do not count there.

    Example:
      >>> kendall_tau([(1, 10), (2, 30), (3, 20)])  # one of three pairs is the other way round
      0.3333333333333333
    """
    signs = [
        ((a > c) - (a < c), (b > d) - (b < d)) for i, (a, b) in enumerate(pairs) for c, d in pairs[:i]
    ]  # of every two points
    untied = math.prod(sum(abs(sign[side]) for sign in signs) for side in (0, 1))
    return sum(s * t for s, t in signs) / math.sqrt(untied) if untied else None


def tau_by_chance(n: int) -> float:
    """Standard deviation of tau between two unrelated orders of n things (no ties)."""
    return math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))


def shares(paths: Sequence[Sequence[int]], operators: int) -> list[list[float]]:
    """Per layer how often each operator was chosen, as a fraction; the last column is identity (-1).

    Args:
      paths: the operator of every layer, all of one length, at least one.
      operators: their number m.

    Returns:
      L rows of m + 1.
    """
    layers = list(zip(*paths, strict=True))
    return [[layer.count(o) / len(paths) for o in (*range(operators), -1)] for layer in layers]
