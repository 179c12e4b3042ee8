"""Aging evolution: the oldest member of the population dies, not the worst.

Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search" (arXiv:1802.01548), section 3.1 and
algorithm 1. The asynchronous form, without barriers, is the one that the authors ran on many workers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasjax.types import Array, Evaluation, Key, Proposal, Searcher, Space, Status, arch_size


class AgingState(NamedTuple):
    """State of `aging`; P = population, Q = in_flight. A free slot of the population has id -1."""

    arch: jax.Array  # i32[P, A], the members
    fitness: jax.Array  # f32[P], -inf where failed
    id: jax.Array  # i32[P], their trial numbers
    born: jax.Array  # i32[P], how many trials had completed before
    told: jax.Array  # i32[], trials completed
    asked: jax.Array  # i32[], trials proposed
    running: jax.Array  # i32[Q], trial i is in slot i % Q while it runs, else -1
    parent: jax.Array  # i32[Q], their parents
    victim: jax.Array  # i32[Q], the members that they replace where members do not age


def aging(
    space: Space,
    *,
    population: int = 100,
    sample_size: int = 25,
    ages: bool = True,
    in_flight: int = 256,
    first: Array | None = None,
) -> Searcher:
    """Evolution in which every member leaves the population after `population` later completions, however good it is.

    The first `population` trials are random. Each later one is a mutant of the best of `sample_size` members, drawn
    uniformly with replacement; of equally good ones the first drawn. The best of a search is the best of its history,
    which is not kept here.

    Any number of trials may run at a time. A completed trial enters the population at once, in the order in which
    results are told, and children are mutants of the current members; while there is none, children are random.
    Failures enter too, ranked last, so that they do not stall the search. What is rejected before training (a limit)
    is no member.

    Deviations: none with one trial at a time. Rows told together count as completed in the order of the rows.

    Args:
      space: where to search.
      population: P of the paper.
      sample_size: S of the paper, the tournament's. 1 = no selection.
      ages: False = the paper's variant without aging, in which the worst of the parent's sample leaves. If it has left
        already, which needs several trials at a time, the oldest member leaves (ours).
      in_flight: at most this many running trials keep their parents, and their victims, in `live`.
      first: i32[N, A], N <= population: the architectures of the first N trials, in place of random ones.

    Returns:
      The Searcher. `Proposal.parent` is the mutated trial, -1 for random ones. `live` are the members and the parents
      of running trials.

    Raises:
      ValueError: a setting below 1, or more first architectures than members.

    Example:
      >>> from nasjax.spaces.tabular_cell.space import TabularCell
      >>> searcher = aging(TabularCell(), population=10, sample_size=3)
      >>> state, proposal = searcher.ask(jax.random.key(1), searcher.init(jax.random.key(0)), 4)
    """
    if min(population, sample_size, in_flight) < 1:
        raise ValueError(
            f"population, sample_size and in_flight must be at least 1, got {population}, {sample_size}, {in_flight}"
        )
    chosen = None if first is None else jnp.asarray(first, jnp.int32)
    if chosen is not None and not 1 <= len(chosen) <= population:
        raise ValueError(f"first must have 1 to {population} architectures (population), got {len(chosen)}")

    def init(key: Key) -> AgingState:
        none = jnp.full(in_flight, -1, jnp.int32)
        return AgingState(
            jnp.full((population, arch_size(space)), -1, jnp.int32),
            jnp.full(population, -jnp.inf, jnp.float32),
            jnp.full(population, -1, jnp.int32),
            jnp.zeros(population, jnp.int32),
            jnp.int32(0),
            jnp.int32(0),
            none,
            none,
            none,
        )

    def propose(key: Key, state: AgingState, trial: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Arch, parent and victim of a trial."""
        key_sample, key_member, key_mutate = jax.random.split(jax.random.fold_in(key, trial), 3)
        members = jnp.minimum(state.told, population)
        drawn = jax.random.randint(key_member, (sample_size,), 0, jnp.maximum(members, 1))
        fitness = state.fitness[drawn]
        best, worst = drawn[fitness.argmax()], drawn[fitness.argmin()]
        breeds, fresh = (trial >= population) & (members > 0), space.sample(key_sample)
        if chosen is not None:
            fresh = jnp.where(trial < len(chosen), chosen[jnp.minimum(trial, len(chosen) - 1)], fresh)
        child = space.mutate(key_mutate, jnp.where(breeds, state.arch[best], fresh))  # always a valid one
        ids = jnp.where(breeds, state.id[jnp.stack([best, worst])], -1)
        return jnp.where(breeds, child, fresh), ids[0], ids[1]

    def ask(key: Key, state: AgingState, n: int) -> tuple[AgingState, Proposal]:
        ids = state.asked + jnp.arange(n, dtype=jnp.int32)
        arch, parent, victim = jax.vmap(propose, (None, None, 0))(key, state, ids)
        slots = ids % in_flight
        state = state._replace(
            asked=state.asked + n,
            running=state.running.at[slots].set(ids),
            parent=state.parent.at[slots].set(parent),
            victim=state.victim.at[slots].set(victim),
        )
        return state, Proposal(ids, arch, parent)

    def enter(state: AgingState, row: tuple[jax.Array, ...]) -> tuple[AgingState, None]:
        """Adds one completed trial."""
        trial, arch, fitness, rejected = row
        slot = trial % in_flight
        known = (trial >= 0) & (state.running[slot] == trial)
        place = state.born.argmin()
        if not ages:
            leaves = (state.id == state.victim[slot]) & known & (state.victim[slot] >= 0)
            place = jnp.where(leaves.any(), leaves.argmax(), place)
        place = jnp.where(state.told < population, state.told, place)
        enters = (trial >= 0) & ~rejected
        place = jnp.where(enters, place, population)  # out of range: dropped
        free = jnp.where(known, slot, in_flight)
        return state._replace(
            arch=state.arch.at[place].set(arch, mode="drop"),
            fitness=state.fitness.at[place].set(fitness, mode="drop"),
            id=state.id.at[place].set(trial, mode="drop"),
            born=state.born.at[place].set(state.told, mode="drop"),
            told=state.told + enters,
            running=state.running.at[free].set(-1, mode="drop"),
            parent=state.parent.at[free].set(-1, mode="drop"),
            victim=state.victim.at[free].set(-1, mode="drop"),
        ), None

    def tell(state: AgingState, proposal: Proposal, evaluation: Evaluation) -> AgingState:
        fitness = jnp.asarray(evaluation.fitness, jnp.float32)
        if fitness.ndim != 1:
            raise ValueError(f"aging evolution ranks one objective, the evaluator gives fitness {fitness.shape}")
        ok = (evaluation.status == Status.OK) & jnp.isfinite(fitness)
        fitness = jnp.where(ok, fitness, -jnp.inf)
        rejected = jnp.asarray(evaluation.status == Status.REJECTED)
        rows = (jnp.asarray(proposal.id), jnp.asarray(proposal.arch), fitness, rejected)
        return jax.lax.scan(enter, state, rows)[0]

    def live(state: AgingState) -> jax.Array:
        return jnp.concatenate([state.id, state.parent])

    return Searcher(init, ask, tell, live)
