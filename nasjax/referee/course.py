"""The course of searches: what was tried on every seed, what it cost and what was told; and the best so far."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Course(NamedTuple):
    """The searches of one searcher on one problem: S seeds, T trials in the order in which they were asked."""

    place: np.ndarray  # i64[S, T], which architecture: its row in the table, or in the list of those trained
    reward: np.ndarray  # f64[S, T], what was told; NaN = failed or not in the table
    spent: np.ndarray  # f64[S, T], the cost of this trial and all before it; inf beyond the budget
    calls: float = 0.0  # seconds that it took to run; no part of the result
    fidelity: np.ndarray | None = None  # i64[S, T], epochs; None = all were trained alike


def incumbents(course: Course) -> np.ndarray:
    """The best trial so far after every trial: i64[S, T], -1 while there is none.

    Of those trained for the most epochs, where trials differ in that; of equal ones the first.
    """
    counts = np.isfinite(course.reward) & np.isfinite(course.spent)
    epochs = np.zeros(counts.shape) if course.fidelity is None else course.fidelity
    seeds, trials = counts.shape
    best, most, reward = np.full(seeds, -1), np.full(seeds, -np.inf), np.full(seeds, -np.inf)
    found = np.empty((seeds, trials), np.int64)
    for t in range(trials):
        longer, as_long = epochs[:, t] > most, epochs[:, t] == most
        new = counts[:, t] & (longer | (as_long & (course.reward[:, t] > reward)))
        best, most = np.where(new, t, best), np.where(new, epochs[:, t], most)
        reward = np.where(new, course.reward[:, t], reward)
        found[:, t] = best
    return found


def taken(values: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """values[S, T] at trials i64[S, G]; NaN where a trial is -1."""
    return np.where(trial < 0, np.nan, np.take_along_axis(values, np.maximum(trial, 0), axis=1))


def at(course: Course, grid: np.ndarray) -> np.ndarray:
    """The best trial at every cost of the grid f64[G]: i64[S, G], -1 while there is none."""
    best = incumbents(course)
    # Where nothing was proposed, between trials or after the last, as much is spent as before.
    rising = np.maximum.accumulate(np.where(np.isfinite(course.spent), course.spent, -np.inf), axis=1)
    last = np.stack([np.searchsorted(spent, grid, side="right") - 1 for spent in rising])
    return np.where(last < 0, -1, np.take_along_axis(best, np.maximum(last, 0), axis=1))


def reached(course: Course, target: np.ndarray) -> np.ndarray:
    """The cost at which the best reward reaches the target of its seed f64[S]: f64[S], inf = never."""
    best = taken(course.reward, incumbents(course))
    there = best >= target[:, None]
    first = course.spent[np.arange(len(best)), there.argmax(1)]
    return np.where(there.any(1), first, np.inf)
