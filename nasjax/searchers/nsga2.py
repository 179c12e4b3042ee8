"""NSGA-II: several objectives at once, ranked by domination and spread along the front.

Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Trans. Evol. Comput. 6(2). FairNAS
(Chu et al. 2021, arXiv:1907.01845) searches with it on (accuracy, multiply-adds, parameters); its settings are not
known to us, so the defaults are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasjax.searchers import archive as rows
from nasjax.searchers.archive import Archive, Feasible
from nasjax.types import Evaluation, Key, Proposal, Searcher, Space, crossover


class Nsga2State(NamedTuple):
    """State of `nsga2`; P = population."""

    archive: Archive
    members: jax.Array  # i32[P], trials that are the current parents; -1 = none
    born: jax.Array  # i32[], first trial of the newest generation


def nsga2(
    space: Space,
    *,
    objectives: int = 3,
    population: int = 50,
    crossover_rate: float = 0.9,
    mutation_rate: float = 0.1,
    feasible: Feasible | None = None,
    capacity: int = 1050,
    tries: int = 10,
    fill_tries: int = 100_000,
) -> Searcher:
    """NSGA-II on fitness f32[N, objectives], each larger is better; a failed trial ranks last.

    Children that were visited before are drawn again (ours: a second evaluation would add nothing).

    Args:
      space: where to search.
      objectives: K.
      population: parents, and children per generation.
      crossover_rate: probability that a child has two parents; else, and in spaces without crossover, it is a mutant of
        one.
      mutation_rate: per gene (`space.mutate_genes`); spaces without it change one gene of every child.
      feasible: arch -> bool[], which architectures may be tried at all.
      capacity: most trials of the run.
      tries: draws per wanted child; after them the generation is filled up at random.
      fill_tries: random draws per generation.

    Raises:
      ValueError: a setting out of its range.
    """
    if objectives < 1 or population < 2 or capacity < population:
        raise ValueError(
            "objectives must be at least 1, population at least 2 and capacity no less than it; "
            f"got {objectives}, {population}, {capacity}"
        )
    if not 0 <= mutation_rate <= 1 or not 0 <= crossover_rate <= 1 or min(tries, fill_tries) < 1:
        raise ValueError("rates must be in [0, 1], tries and fill_tries at least 1")
    mutate, cross = rows.mutation(space, mutation_rate), crossover(space)

    def init(key: Key) -> Nsga2State:
        return Nsga2State(rows.empty(space, capacity, objectives), jnp.full(population, -1, jnp.int32), jnp.int32(0))

    def selected(state: Nsga2State) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The best `population` of parents and children: ids, ranks and crowding distances, best first."""
        children = state.born + jnp.arange(population)
        children = jnp.where(children < state.archive.made, children, -1)
        ids = jnp.concatenate([state.members, children])
        fitness = jnp.where((ids >= 0)[:, None], state.archive.fitness[ids], -jnp.inf)
        rank = jnp.where(jnp.isfinite(fitness).all(1), domination_rank(fitness), len(ids))
        distance = crowding_distance(fitness, rank)
        best = jnp.lexsort((-distance, rank))[:population]
        ids = jnp.where(rank[best] < len(rank), ids[best], -1)
        return ids, rank[best], distance[best]

    def breed(key: Key, state: Nsga2State) -> Nsga2State:
        key_child, key_fill = jax.random.split(jax.random.fold_in(key, state.archive.made))
        members, rank, distance = selected(state)
        count = (members >= 0).sum()

        def tournament(key: Key) -> jax.Array:
            a, b = jax.random.randint(key, (2,), 0, jnp.maximum(count, 1))
            first = (rank[a] < rank[b]) | ((rank[a] == rank[b]) & (distance[a] >= distance[b]))
            return state.archive.arch[members[jnp.where(first, a, b)]]

        def child(key: Key) -> jax.Array:
            key_a, key_b, key_cross, key_kind, key_mutate = jax.random.split(key, 5)
            a = tournament(key_a)
            if cross is None:
                return mutate(key_mutate, a)
            both = cross(key_cross, a, tournament(key_b))
            return mutate(key_mutate, jnp.where(jax.random.bernoulli(key_kind, crossover_rate), both, a))

        wanted = jnp.where(count > 0, population, 0)
        archive = rows.fill(key_child, space, state.archive, child, wanted, tries * population, feasible)
        missing = state.archive.made + population - archive.made
        archive = rows.fill(key_fill, space, archive, space.sample, missing, fill_tries, feasible)
        return Nsga2State(archive, members, state.archive.made)

    def ask(key: Key, state: Nsga2State, n: int) -> tuple[Nsga2State, Proposal]:
        due = rows.complete(state.archive)
        state = jax.lax.cond(due, lambda state: breed(key, state), lambda state: state, state)
        archive, proposal = rows.hand_out(state.archive, n)
        return state._replace(archive=archive), proposal

    def tell(state: Nsga2State, proposal: Proposal, evaluation: Evaluation) -> Nsga2State:
        return state._replace(archive=rows.record(state.archive, proposal, evaluation))

    def live(state: Nsga2State) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits from a trial

    return Searcher(init, ask, tell, live)


def front(state: Nsga2State) -> jax.Array:
    """bool[capacity]: the trials that no other trial of the run dominates."""
    fitness = state.archive.fitness
    return jnp.isfinite(fitness).all(1) & ~dominated(fitness).any(0)


def dominated(fitness: jax.Array) -> jax.Array:
    """f32[N, K] -> bool[N, N]: whether i dominates j, so is no worse in any objective and better in at least one."""
    a, b = fitness[:, None], fitness[None]
    return (a >= b).all(2) & (a > b).any(2)


def domination_rank(fitness: jax.Array) -> jax.Array:
    """i32[N]: 0 on the front, 1 on the front of the others, and so on (Deb et al., section III-A)."""
    beats = dominated(fitness)

    def peel(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rank, level = carry
        left = rank < 0
        best = left & ~(beats & left[:, None]).any(0)
        return jnp.where(best, level, rank), level + 1

    start = (jnp.full(len(fitness), -1, jnp.int32), jnp.int32(0))
    return jax.lax.while_loop(lambda carry: (carry[0] < 0).any(), peel, start)[0]


def crowding_distance(fitness: jax.Array, rank: jax.Array) -> jax.Array:
    """f32[N]: the distance between a member's neighbours on its front, summed over objectives (section III-B).

    Each objective is scaled by its range on the front; the ends of a front are infinitely far.
    """
    total = jnp.zeros(len(rank))
    fitness = jnp.where(jnp.isfinite(fitness), fitness, 0)  # failures share a rank, in which distances do not matter
    same = rank[:, None] == rank[None]
    for values in fitness.T:
        span = jnp.where(same, values[None], -jnp.inf).max(1) - jnp.where(same, values[None], jnp.inf).min(1)
        order = jnp.lexsort((values, rank))
        v, r = values[order], rank[order]
        inner = jnp.concatenate([jnp.zeros(1, bool), (r[2:] == r[1:-1]) & (r[:-2] == r[1:-1]), jnp.zeros(1, bool)])
        gap = jnp.concatenate([jnp.zeros(1), v[2:] - v[:-2], jnp.zeros(1)])
        scaled = jnp.where(span[order] > 0, gap / jnp.where(span[order] > 0, span[order], 1), 0.0)
        total = total.at[order].add(jnp.where(inner, scaled, jnp.inf))
    return total
