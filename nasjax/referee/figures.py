"""The figures of a comparison: curves with bands, paired differences, ranks, costs to targets, the truth's noise.

Intervals are percentiles of the bootstrap (Efron & Tibshirani 1993, chapter 13) over seeds. All searchers share the
resampled seeds, so that a difference is taken within a seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nasjax.referee.course import Course, at, reached, taken

RESAMPLED = 10_000
LEVEL = 0.95
POINTS = 100  # of a curve, at most
BASELINE = "random"


def resamples(seed: int, count: int) -> np.ndarray:
    """Weights of the seeds in every resample: f64[RESAMPLED, count], a row sums to 1."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLED) / count


def interval(weights: np.ndarray, values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean over seeds, values f64[S]."""
    low, high = np.quantile(weights @ values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Judged(NamedTuple):
    """One searcher on one problem, S seeds."""

    course: Course
    final: np.ndarray  # f64[S], the test value of what it chose; NaN = it found nothing
    values: np.ndarray | None = None  # f64[S, T], test values of all trials, where a table has them


def grid(limit: float, trials: bool) -> np.ndarray:
    """The costs at which a curve is drawn."""
    if trials and limit <= POINTS:
        return np.arange(1, limit + 1)
    steps = np.linspace(limit / POINTS, limit, POINTS)
    return np.unique(np.round(steps)) if trials else steps


def curve(found: Judged, places: np.ndarray, values: np.ndarray) -> dict[str, list[float | None]]:
    """Of the best so far the median over seeds and the quartiles, at every cost of f64[G]."""
    there = taken(values, at(found.course, places))
    none = np.isnan(there).any(0)  # not all seeds have something yet
    low, middle, high = np.quantile(np.where(none, 0.0, there), [0.25, 0.5, 0.75], axis=0)
    return {
        "median": [None if n else float(x) for n, x in zip(none, middle, strict=True)],
        "low": [None if n else float(x) for n, x in zip(none, low, strict=True)],
        "high": [None if n else float(x) for n, x in zip(none, high, strict=True)],
    }


def ranks(finals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rank of every searcher on every seed f64[S]: 1 is the best, equal ones share the mean of theirs."""
    every = np.stack([np.where(np.isnan(x), -np.inf, x) for x in finals.values()])
    above = (every[None] > every[:, None]).sum(1)
    equal = (every[None] == every[:, None]).sum(1)
    return dict(zip(finals, above + (equal + 1) / 2, strict=True))


def table(found: Mapping[str, Judged], weights: np.ndarray) -> dict[str, dict[str, Any]]:
    """The final figures of every searcher, and of its difference to random search on the same seeds."""
    finals = {name: one.final for name, one in found.items()}
    placed, base = ranks(finals), finals[BASELINE]
    rows = {}
    for name, final in finals.items():
        row: dict[str, Any] = {"rank": float(placed[name].mean()), "rank_interval": interval(weights, placed[name])}
        if np.isnan(final).any():
            row |= {"failed": int(np.isnan(final).sum())}  # a mean of the others would hide them
        else:
            row |= {
                "mean": float(final.mean()),
                "deviation": float(final.std(ddof=1)),
                "interval": interval(weights, final),
            }
            if name != BASELINE and not np.isnan(base).any():
                apart = final - base
                row["over_random"] = {
                    "mean": float(apart.mean()),
                    "interval": interval(weights, apart),
                    "better": int((apart > 0).sum()),
                    "equal": int((apart == 0).sum()),
                    "worse": int((apart < 0).sum()),
                }
        row["trials"] = float(np.isfinite(found[name].course.spent).sum(1).mean())
        rows[name] = row
    return rows


def to_target(course: Course, target: np.ndarray) -> dict[str, Any]:
    """What it costs until the best reward reaches the target f64[S] of each seed; None = it was not within the budget.

    The quantiles are costs that were seen, so that seeds which never reach it count as beyond any.
    """
    cost = reached(course, target)
    seen = {name: np.quantile(cost, q, method="higher") for name, q in (("median", 0.5), ("in_95_percent", 0.95))}
    return {
        "reached": int(np.isfinite(cost).sum()),
        **{name: float(value) if np.isfinite(value) else None for name, value in seen.items()},
    }


def ceiling(runs: np.ndarray, result: np.ndarray) -> dict[str, float]:
    """What a searcher can end with at best where it is told one run of each architecture.

    Args:
      runs: f32[R, K], rewards of K runs of the R architectures; NaN = unknown.
      result: f64[R], the test values.

    Returns:
      best: the largest test value. The rest where any architecture has all runs. by_reward: the test value of the one
      with the best reward, the mean over the K runs. With several runs, deviation: of a run from the mean of its
      architecture's, among the hundredth part with the best means (root of the mean variance); told: the reward of the
      best by one run; again: the mean of the other runs of the same architecture, what its reward is worth.
    """
    every = np.isfinite(runs).all(1, keepdims=True)  # what lacks a run is no candidate for the best
    if not every.any():
        return {"best": float(np.nanmax(result))}
    whole = np.where(every, runs.astype(np.float64), -np.inf)
    tops = whole.argmax(0)
    found = {"best": float(np.nanmax(result)), "by_reward": float(np.mean(result[tops]))}
    count = runs.shape[1]
    if count > 1:
        means = whole.mean(1)
        known = np.flatnonzero(np.isfinite(means))
        best = known[np.argsort(-means[known])][: max(2, len(known) // 100)]
        others = [np.delete(whole[top], k).mean() for k, top in enumerate(tops)]
        found |= {
            "deviation": float(np.sqrt(whole[best].var(axis=1, ddof=1).mean())),
            "told": float(whole.max(0).mean()),
            "again": float(np.mean(others)),
        }
    return found
