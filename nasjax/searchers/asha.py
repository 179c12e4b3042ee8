"""ASHA: many architectures are trained briefly, and the best of them on and on, without waiting for each other.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (MLSys, arXiv:1810.05934), section 3.2 and
algorithm 2. Ours: any searcher chooses the architectures, and what it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasjax.types import Evaluation, Key, Proposal, PyTree, Searcher, Space, Status, arch_size


class AshaState(NamedTuple):
    """State of `asha`. Trial i is row i; C = capacity."""

    sampler: PyTree  # the state of the searcher that chooses new architectures
    arch: jax.Array  # i32[C, A]
    rung: jax.Array  # i32[C], from 0, the shortest training
    fitness: jax.Array  # f32[C], -inf where failed or not yet told
    counted: jax.Array  # bool[C], has ended and counts in its rung: all but what was rejected before its training
    promoted: jax.Array  # bool[C], goes on, or went on, in the next rung as another trial
    origin: jax.Array  # i32[C], the number that the sampler gave the architecture
    bred: jax.Array  # i32[C], the parent that the sampler named, by its own numbers
    asked: jax.Array  # i32[], trials proposed


def geometric(min_epochs: int, max_epochs: int, eta: int) -> tuple[int, ...]:
    """Rungs min_epochs * eta^k, the last one `max_epochs` itself: 1, 3, 9 or, where it is no such power, 1, 3, 10.

    Raises:
      ValueError: fewer than two rungs.
    """
    if eta < 2 or min_epochs < 1:
        raise ValueError(f"eta must be at least 2 and min_epochs at least 1, got {eta} and {min_epochs}")
    found = [min_epochs]
    while found[-1] * eta <= max_epochs:
        found.append(found[-1] * eta)
    if len(found) < 2:
        raise ValueError(
            f"min_epochs={min_epochs} times eta={eta} is more than the {max_epochs} epochs of a whole training, so "
            "there would be one rung; make min_epochs or eta smaller, or train for longer"
        )
    return (*found[:-1], max_epochs)


def beside_first(rungs: Sequence[int], eta: int) -> tuple[float, float]:
    """The share of proposals that are new architectures, and the mean of the epochs that one adds, in those of a first.

    Example:
      >>> [round(value, 3) for value in beside_first((1, 2, 4), 2)]
      [0.571, 1.143]
    """
    parts = [eta**-k for k in range(len(rungs))]  # of the architectures that get to each rung
    added = sum(part * (now - before) for part, before, now in zip(parts, (0, *rungs), rungs, strict=False))
    return 1 / sum(parts), added / rungs[0] / sum(parts)


def asha(sampler: Searcher, space: Space, *, rungs: Sequence[int], eta: int = 4, capacity: int = 1000) -> Searcher:
    """Trains every architecture for `rungs[0]` epochs, and on to the next rung if it is among the best 1/eta of one.

    A free worker gets the best trial that may be promoted, from the highest rung that has one; else a new architecture
    at the lowest rung. Of n trials that have ended in a rung the best floor(n / eta) may go on; of equally good ones
    the earlier. Failures count as the worst and never go on. Nothing waits for a rung to be full.

    A promotion is a new trial of the same architecture, whose `parent` is the trial that it goes on from. New
    architectures have no parent, also where the sampler names one, so a parent always means a promotion.

    The sampler is told the results of the lowest rung, of every architecture one, as soon as it is there. Results of
    different rungs cannot be compared (a longer training is better), and a policy or a population must count an
    architecture once. So it learns what is good after `rungs[0]` epochs, from the most results; what is good in the end
    the promotions find.

    Args:
      sampler: chooses new architectures, e.g. `random_search(space)`, `bo(space)`.
      space: where to search.
      rungs: epochs in all, increasing; those of a whole training are the last. `geometric` makes the paper's.
      eta: the reduction factor.
      capacity: most trials of the run, promotions included.

    Returns:
      The Searcher. `Proposal.fidelity` are the epochs. `live` are the trials that may still be promoted.

    Raises:
      ValueError: rungs that do not increase, or a setting out of its range.

    Example:
      >>> from nasjax.searchers.random import random_search
      >>> from nasjax.spaces.tabular_cell.space import TabularCell
      >>> searcher = asha(random_search(TabularCell()), TabularCell(), rungs=(1, 3, 9), eta=3)
      >>> state, proposal = searcher.ask(jax.random.key(1), searcher.init(jax.random.key(0)), 4)
      >>> proposal.fidelity.tolist()
      [1, 1, 1, 1]
    """
    epochs = tuple(rungs)
    if len(epochs) < 2 or epochs[0] < 1 or any(a >= b for a, b in pairwise(epochs)):
        raise ValueError(f"rungs are at least two increasing numbers of epochs, such as (1, 4, 16); got {epochs}")
    if eta < 2 or capacity < 1:
        raise ValueError(f"eta must be at least 2 and capacity at least 1, got {eta} and {capacity}")
    last, fidelities = len(epochs) - 1, jnp.asarray(epochs, jnp.int32)

    def init(key: Key) -> AshaState:
        none = jnp.full(capacity, -1, jnp.int32)
        return AshaState(
            sampler=sampler.init(key),
            arch=jnp.full((capacity, arch_size(space)), -1, jnp.int32),
            rung=jnp.zeros(capacity, jnp.int32),
            fitness=jnp.full(capacity, -jnp.inf, jnp.float32),
            counted=jnp.zeros(capacity, bool),
            promoted=jnp.zeros(capacity, bool),
            origin=none,
            bred=none,
            asked=jnp.int32(0),
        )

    def ranked(state: AshaState) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Trials from the highest rung and the best result on; each one's place in its rung; how many that has."""
        order = jnp.lexsort((-state.fitness, -state.rung, ~state.counted))
        rung = state.rung[order]
        number = jnp.zeros(last + 1, jnp.int32).at[state.rung].add(state.counted)
        above = number[::-1].cumsum()[::-1] - number
        return order, jnp.arange(capacity) - above[rung], number[rung]

    def waits(state: AshaState) -> jax.Array:
        """bool[C]: has a result, and was not promoted from a rung below the last."""
        return state.counted & jnp.isfinite(state.fitness) & ~state.promoted & (state.rung < last)

    def one(key: Key, state: AshaState) -> tuple[AshaState, Proposal]:
        order, place, number = ranked(state)
        may = waits(state)[order] & (place < number // eta)
        full, lower = state.asked >= capacity, order[may.argmax()]
        promotes = may.any() & ~full

        def promotion(of: PyTree) -> tuple[PyTree, Proposal]:
            found = jnp.where(promotes, state.origin[lower], -1)
            return of, Proposal(found[None], state.arch[lower][None], state.bred[lower][None])

        def fresh(of: PyTree) -> tuple[PyTree, Proposal]:
            of, found = sampler.ask(key, of, 1)
            return of, Proposal(*(jnp.asarray(x, jnp.int32) for x in found[:3]))

        of, found = jax.lax.cond(promotes | full, promotion, fresh, state.sampler)
        origin, arch, bred = (x[0] for x in found[:3])
        there = origin >= 0
        row = jnp.where(there, state.asked, capacity)  # out of range: dropped
        rung = jnp.where(promotes, state.rung[lower] + 1, 0)
        proposal = Proposal(
            jnp.where(there, state.asked, -1),
            jnp.where(there, arch, -1),
            jnp.where(promotes, lower, -1).astype(jnp.int32),
            jnp.where(there, fidelities[rung], -1),
        )
        return AshaState(
            sampler=of,
            arch=state.arch.at[row].set(arch, mode="drop"),
            rung=state.rung.at[row].set(rung, mode="drop"),
            fitness=state.fitness,
            counted=state.counted,
            promoted=state.promoted.at[jnp.where(promotes, lower, capacity)].set(True, mode="drop"),
            origin=state.origin.at[row].set(origin, mode="drop"),
            bred=state.bred.at[row].set(bred, mode="drop"),
            asked=state.asked + there,
        ), proposal

    def ask(key: Key, state: AshaState, n: int) -> tuple[AshaState, Proposal]:
        return jax.lax.scan(lambda state, _: one(key, state), state, length=n)

    def tell(state: AshaState, proposal: Proposal, evaluation: Evaluation) -> AshaState:
        fitness = jnp.asarray(evaluation.fitness, jnp.float32)
        if fitness.ndim != 1:
            raise ValueError(f"asha ranks one objective, the evaluator gives fitness {fitness.shape}")
        trial, status = jnp.asarray(proposal.id), jnp.asarray(evaluation.status)
        row = jnp.where(trial < 0, capacity, trial)
        ok = (status == Status.OK) & jnp.isfinite(fitness)
        lowest = (trial >= 0) & (state.rung[trial] == 0)
        own = Proposal(
            jnp.where(lowest, state.origin[trial], -1),
            jnp.asarray(proposal.arch),
            jnp.where(lowest, state.bred[trial], -1),
        )
        return state._replace(
            sampler=sampler.tell(state.sampler, own, evaluation),
            fitness=state.fitness.at[row].set(jnp.where(ok, fitness, -jnp.inf), mode="drop"),
            counted=state.counted.at[row].set(status != Status.REJECTED, mode="drop"),
        )

    def live(state: AshaState) -> jax.Array:
        order, place, _ = ranked(state)  # a place in a rung never improves, and no rung has more than all trials
        return jnp.where(waits(state)[order] & (place < capacity // eta), order, -1).astype(jnp.int32)

    return Searcher(init, ask, tell, live)


def metrics(state: AshaState) -> dict[str, jax.Array]:
    """How many trials were promoted, for metrics.jsonl."""
    return {"promotions": state.promoted.sum()}
