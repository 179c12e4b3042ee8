"""The best path of an additive score is the best: enumeration, cases worked out by hand, and a bound at full size."""

from itertools import product

import numpy as np
import pytest

from nasjax.searchers.additive import best_path
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import variant

SCORES, COSTS = np.array([[1.0, 0.2], [0.5, 0.9]]), np.array([[3, 1], [1, 1]])


def test_small_cases():
    path, score, cost = best_path(SCORES, COSTS)
    assert path.tolist() == [0, 1] and score == pytest.approx(1.9) and cost == 4
    path, score, cost = best_path(SCORES, COSTS, limit=13, base_cost=10)
    assert path.tolist() == [1, 1] and score == pytest.approx(1.1) and cost == 12
    path, score, cost = best_path(np.array([[-np.inf, 0.2], [0.5, 0.9]]), COSTS)
    assert path.tolist() == [1, 1]


def test_limit_is_included():
    assert best_path(SCORES, COSTS, limit=4)[2] == 4


@pytest.mark.parametrize("seed", range(20))
def test_equals_enumeration(seed):
    """81 paths; few distinct scores and costs, so that there are ties, and a tenth of the choices not allowed."""
    rng = np.random.default_rng(seed)
    scores, costs = rng.integers(-3, 6, (4, 3)) / 4, rng.integers(0, 6, (4, 3))
    scores[:, 1:][rng.random((4, 2)) < 0.15] = -np.inf
    layers = np.arange(4)
    paths = np.array(list(product(range(3), repeat=4)))
    sums, spent = scores[layers, paths].sum(1), 7 + costs[layers, paths].sum(1)
    spent_by_allowed = spent[np.isfinite(sums)]
    for limit in range(int(spent_by_allowed.min()), int(spent_by_allowed.max()) + 1):
        path, score, cost = best_path(scores, costs, limit, base_cost=7)
        assert score == sums[spent <= limit].max() == scores[layers, path].sum()
        assert cost == 7 + costs[layers, path].sum() <= limit


def test_published_size_reaches_its_upper_bound():
    """BN-NAS's space, 21 layers and 6 operators: no path is better than the Lagrangian bound, and ours is close to it.

    For any price p >= 0 of a multiply-add, every path within the limit scores at most
    sum_l max_i (score - p cost) + p (limit - base cost).
    """
    plan = ChoicePlan(variant("bn_nas"), (224, 224, 3), 1000)
    costs, base, limit = plan.table.macs[:, :6, 0], plan.fixed.macs, 475_000_000
    scores = np.random.default_rng(0).normal(0.5, 0.2, costs.shape) + 0.3 * costs / costs.max()
    path, score, cost = best_path(scores, costs, limit, base)
    assert cost == base + costs[np.arange(21), path].sum() <= limit
    assert score == pytest.approx(scores[np.arange(21), path].sum())
    prices = np.linspace(0, 10, 2001)[:, None, None] / costs.max()
    bounds = (scores[None] - prices * costs[None]).max(2).sum(1) + prices[:, 0, 0] * (limit - base)
    assert score <= bounds.min() * (1 + 1e-12)
    assert bounds.min() - score < 0.02 * score
    unlimited = scores.argmax(1)
    assert base + costs[np.arange(21), unlimited].sum() > limit  # or the limit would not matter


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(ValueError, match="no path costs 11 or less; the cheapest costs 12"):
        best_path(SCORES, COSTS, limit=11, base_cost=10)
    with pytest.raises(ValueError, match="layer 1 has no choice"):
        best_path(np.array([[1.0, 0.2], [-np.inf, -np.inf]]), COSTS)
    with pytest.raises(ValueError, match=r"must both be \[L, m\], got \(2, 2\) and \(2, 1\)"):
        best_path(SCORES, COSTS[:, :1])
