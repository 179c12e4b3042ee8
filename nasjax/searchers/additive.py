"""The provably best path where a score is a sum over layers: a knapsack with one choice per layer.

BN-NAS (Chen et al. 2021, arXiv:2108.07375) scores a path by such a sum and searches it by evolution; the exact search
is ours.
"""

from __future__ import annotations

import numpy as np


def best_path(
    scores: np.ndarray, costs: np.ndarray, limit: int | None = None, base_cost: int = 0
) -> tuple[np.ndarray, float, int]:
    """Maximises sum_l scores[l, a_l] under base_cost + sum_l costs[l, a_l] <= limit, exactly.

    Layer by layer it keeps the prefixes that no other prefix beats in both score and cost. Layers of equal shape have
    equal costs, so their number stays small.

    Args:
      scores: f64[L, m]; -inf = not allowed.
      costs: i64[L, m], e.g. multiply-adds.
      limit: None = no limit.
      base_cost: the cost that all paths share.

    Returns:
      The path i64[L], its score, and its cost with base_cost.

    Raises:
      ValueError: shapes that differ, a layer without any choice, or a limit below the cheapest path.

    Example:
      >>> best_path(np.array([[1.0, 0.2], [0.5, 0.9]]), np.array([[3, 1], [1, 1]]), limit=3)
      (array([1, 1]), 1.1, 2)
    """
    scores, costs = np.asarray(scores, np.float64), np.asarray(costs, np.int64)
    if scores.shape != costs.shape or scores.ndim != 2:
        raise ValueError(f"scores and costs must both be [L, m], got {scores.shape} and {costs.shape}")
    allowed = np.isfinite(scores)
    if not allowed.any(1).all():
        raise ValueError(f"layer {int((~allowed.any(1)).argmax())} has no choice with a finite score")
    cheapest = np.where(allowed, costs, np.iinfo(np.int64).max).min(1)
    if limit is not None and base_cost + cheapest.sum() > limit:
        raise ValueError(f"no path costs {limit} or less; the cheapest costs {base_cost + int(cheapest.sum())}")
    later = np.concatenate([np.cumsum(cheapest[::-1])[::-1][1:], [0]])  # the least that the later layers will cost
    total, cost, back = np.zeros(1), np.full(1, base_cost, np.int64), []
    for layer in range(len(scores)):
        choices = np.flatnonzero(allowed[layer])
        new_total = (total[:, None] + scores[layer, choices][None]).ravel()
        new_cost = (cost[:, None] + costs[layer, choices][None]).ravel()
        order = np.lexsort((-new_total, new_cost))  # by cost, and of equal cost the best first
        if limit is not None:
            order = order[new_cost[order] + later[layer] <= limit]
        best = np.maximum.accumulate(new_total[order])
        order = order[np.concatenate([[True], new_total[order][1:] > best[:-1]])]
        back.append((order // len(choices), choices[order % len(choices)]))
        total, cost = new_total[order], new_cost[order]
    at = int(total.argmax())
    score, spent, path = float(total[at]), int(cost[at]), []
    for previous, choice in reversed(back):
        path.append(int(choice[at]))
        at = int(previous[at])
    return np.array(path[::-1]), score, spent
