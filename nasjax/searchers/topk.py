"""Evolution among the best k: half mutants, half crossovers, every path at most once.

Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling" (SPOS, arXiv:1904.00420),
section 3 (evolutionary architecture search), and its code; docs/methods/spos.md has the details. BN-NAS searches in the
same way.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from nasjax.searchers import archive as rows
from nasjax.searchers.archive import Archive, Feasible
from nasjax.types import Key, Proposal, Searcher, Space, crossover


def topk_evolution(
    space: Space,
    *,
    population: int = 50,
    top_k: int = 10,
    mutants: int = 25,
    crossovers: int = 25,
    mutation_rate: float = 0.1,
    feasible: Feasible | None = None,
    capacity: int = 1050,
    tries: int = 10,
    fill_tries: int = 100_000,
) -> Searcher:
    """The evolution of SPOS's release. The first generation is random; each later one is bred from the best k of all.

    The state is an `Archive` with one objective. `top(state, k)` gives the best so far at any time, including the last
    generation, which the release leaves out.

    Args:
      space: where to search.
      population: size of a generation.
      top_k: parents.
      mutants, crossovers: children wanted of either kind; random architectures fill up the generation. All are mutants
        where the space has no crossover.
      mutation_rate: per gene (`space.mutate_genes`); spaces without it change one gene.
      feasible: arch -> bool[], which architectures may be tried at all.
      capacity: most trials of the run.
      tries: draws per wanted child; after them the generation is filled up at random.
      fill_tries: random draws per generation. A generation stays short when they do not suffice; once nothing new is
        found, the searcher proposes nothing more.

    Raises:
      ValueError: a setting out of its range.

    Example:
      >>> searcher = topk_evolution(variant("spos"), feasible=lambda arch: macs(arch) <= 330_000_000)
    """
    if min(population, top_k) < 1 or min(mutants, crossovers) < 0 or mutants + crossovers > population:
        raise ValueError(
            "population and top_k must be at least 1, and mutants + crossovers at most population; "
            f"got {population}, {top_k}, {mutants} + {crossovers}"
        )
    if not 0 <= mutation_rate <= 1 or min(tries, fill_tries) < 1:
        raise ValueError("mutation_rate must be in [0, 1], tries and fill_tries at least 1")
    if capacity < population:
        raise ValueError(f"capacity={capacity} is less than a population of {population}; give the number of trials")
    mutate, cross = rows.mutation(space, mutation_rate), crossover(space)

    def init(key: Key) -> Archive:
        return rows.empty(space, capacity, 1)

    def breed(key: Key, archive: Archive) -> Archive:
        key_mutate, key_cross, key_fill = jax.random.split(jax.random.fold_in(key, archive.made), 3)
        end, (parents, fitness) = archive.made + population, top(archive, min(top_k, capacity))
        count = jnp.isfinite(fitness).sum()

        def parent(key: Key) -> jax.Array:
            return parents[jax.random.randint(key, (), 0, jnp.maximum(count, 1))]

        def mutant(key: Key) -> jax.Array:
            key_parent, key_genes = jax.random.split(key)
            return mutate(key_genes, parent(key_parent))

        def child(key: Key) -> jax.Array:
            key_a, key_b, key_genes = jax.random.split(key, 3)
            assert cross is not None
            return cross(key_genes, parent(key_a), parent(key_b))

        kinds = [(key_mutate, mutant, mutants), (key_cross, child, crossovers)]
        if cross is None:
            kinds = [(key_mutate, mutant, mutants + crossovers)]
        for key_kind, draw, wanted in kinds:
            archive = rows.fill(
                key_kind, space, archive, draw, jnp.where(count > 0, wanted, 0), tries * wanted, feasible
            )
        return rows.fill(key_fill, space, archive, space.sample, end - archive.made, fill_tries, feasible)

    def ask(key: Key, state: Archive, n: int) -> tuple[Archive, Proposal]:
        state = jax.lax.cond(rows.complete(state), lambda state: breed(key, state), lambda state: state, state)
        return rows.hand_out(state, n)

    def live(state: Archive) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits from a trial

    return Searcher(init, ask, rows.record, live)


def top(state: Archive, k: int) -> tuple[jax.Array, jax.Array]:
    """The best k architectures of a `topk_evolution`, i32[k, S], and their fitness f32[k], best first, -inf = none."""
    fitness, index = jax.lax.top_k(state.fitness[:, 0], k)
    return state.arch[index], fitness
