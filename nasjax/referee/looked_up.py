"""Searches on a table: all seeds of a searcher as one program, or a proposer's own asked and told on the host."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from nasjax.drive.scan import History, scan
from nasjax.drive.streams import streams
from nasjax.evaluators.table import Table
from nasjax.referee.course import Course
from nasjax.referee.external import Proposer
from nasjax.referee.truth import Seen, evaluator, places, rewards
from nasjax.types import Searcher

TOGETHER = 25  # seeds that are vmapped at most; the others follow in the same program
_BYTES = 2**25  # of an array of theirs together: beyond the caches nothing is gained, and memory is limited


def searched(
    seen: Seen,
    searcher: Searcher,
    seeds: Sequence[int],
    noise: Sequence[int],
    *,
    trials: int,
    width: int = 1,
    budget: float | None = None,
) -> Course:
    """All seeds of a searcher, as one jitted program: `lax.map` over groups that are vmapped.

    Args:
      seen: the table, without its test values.
      searcher: what to try next.
      seeds: S seeds; each gives what `nasjax.search` does with that --seed.
      noise: S seeds of the runs that are told.
      trials: T, the length of a search.
      width: candidates asked at a time.
      budget: the sum of the cost column that a search may spend; None = `trials` are the budget, each costs 1.
    """

    def one(pair: tuple[jax.Array, jax.Array], runs: jax.Array, table: Table) -> History:
        own = seen._replace(runs=runs, table=table)  # type: ignore[arg-type]  # traced, so that tables of one space have one program
        looked_up = evaluator(own, rewards(own, pair[1]))
        key = streams(pair[0]).search  # type: ignore[arg-type]
        history = scan(key, searcher, looked_up, trials=trials, width=width, budget_cost=budget)
        return history._replace(state=None, info={})

    began = time.perf_counter()
    numbers = tuple(jnp.asarray(np.array(x, np.uint32)) for x in (seeds, noise))
    shapes = tuple(jax.ShapeDtypeStruct((), x.dtype) for x in numbers)
    together = min(TOGETHER, len(seeds), _BYTES // _largest(jax.make_jaxpr(one)(shapes, seen.runs, seen.table).jaxpr))

    @jax.jit
    def program(pairs: tuple[jax.Array, jax.Array], runs: jax.Array, table: Table) -> History:
        return jax.lax.map(lambda pair: one(pair, runs, table), pairs, batch_size=max(1, together))

    history = jax.device_get(program(numbers, seen.runs, seen.table))
    reward = np.where(history.valid, history.fitness, np.nan).astype(np.float64)
    spent = _spent(history.cost.astype(np.float64), history.valid, budget)
    return Course(places(seen, history.arch), reward, spent, time.perf_counter() - began, history.fidelity)


def _largest(jaxpr: Any) -> int:
    """Bytes of the largest array that a program makes, those within its loops too."""
    found = 1
    for equation in jaxpr.eqns:
        made = [var.aval for var in equation.outvars]
        found = max([found, *(one.size * one.dtype.itemsize for one in made if hasattr(one, "dtype"))])
        found = max([found, *map(_largest, jaxprs_in_params(equation.params))])
    return found


def _spent(cost: np.ndarray, valid: np.ndarray, budget: float | None) -> np.ndarray:
    """The cost of all trials up to each: their number, or their sum; inf where it is not valid."""
    each = np.ones(cost.shape) if budget is None else cost
    return np.where(valid, np.cumsum(np.where(valid, each, 0.0), axis=1), np.inf)


def enough(seen: Seen, budget: float) -> int:
    """Trials that surely spend a budget: as many of the cheapest training as fit in, and one. Raises ValueError.

    A training that goes on may add little, but each was begun, and goes on at most once to every further rung.
    """
    known, rungs = seen.table.known, seen.table.rungs
    cheapest, lengths = float(seen.table.cost[known].min(initial=math.inf)), 1
    if rungs is not None:
        cheapest, lengths = min(cheapest, float(rungs.cost[known].min(initial=math.inf))), len(rungs.epochs)
    if not 0 < cheapest <= budget:
        raise ValueError(f"a budget of {budget:g} needs costs above 0 and within it; the cheapest is {cheapest:g}")
    return lengths * (int(budget // cheapest) + 1) + 1


def spending(seen: Seen, budget: float, search: Callable[[int], Course], *, once: bool = False) -> Course:
    """search(trials) with as many trials as spend the budget: twice those of mean cost at first, then twice as many.

    `once`: with as many as spend it surely, as a program that was asked cannot be asked again.
    """
    most = enough(seen, budget)
    trials = most if once else min(most, 2 * math.ceil(budget / float(seen.table.cost[seen.table.known].mean())))
    while trials < most:
        course = search(trials)
        if np.isinf(course.spent[:, -1]).all():
            return course
        trials = min(most, 2 * trials)
    return search(most)


def proposed(
    seen: Seen,
    begin: Callable[[int], Proposer],
    noise: Sequence[int],
    *,
    trials: int,
    width: int = 1,
    budget: float | None = None,
) -> Course:
    """The same by a proposer that is asked and told on the host, one seed after the other.

    `begin(n)` gives that of the n-th seed. Architectures that the table does not have are told as rejected, at no cost.
    """
    began = time.perf_counter()
    known, cost = seen.table.known, seen.table.cost.astype(np.float64)
    place, reward = np.full((len(noise), trials), -1), np.full((len(noise), trials), np.nan)
    spent = np.full((len(noise), trials), np.inf)
    for n, number in enumerate(noise):
        told = np.asarray(rewards(seen, number))
        with begin(n) as proposer:
            done, total = 0, 0.0
            while done < trials:
                archs = proposer.ask(min(width, trials - done))
                if not len(archs):
                    break
                rows = places(seen, archs)
                there = (rows >= 0) & known[rows]
                costs = np.where(there, cost[rows], 0.0)
                sums = total + np.cumsum(costs if budget is not None else np.ones(len(rows)))
                within = sums <= (math.inf if budget is None else budget)
                rows, costs, sums = rows[within], costs[within], sums[within]
                here = slice(done, done + len(rows))
                place[n, here], spent[n, here] = rows, sums
                reward[n, here] = np.where(there[within], told[rows], np.nan)
                if len(rows):
                    proposer.tell(archs[within], reward[n, here], costs)
                    done, total = done + len(rows), float(sums[-1])
                if not within.all():
                    break
    return Course(place, reward, spent, time.perf_counter() - began)
