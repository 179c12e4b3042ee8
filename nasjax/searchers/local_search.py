"""Local search: from a random architecture to a better neighbour, and on, until no neighbour is better.

White, Nolen & Savani 2021, "Exploring the Loss Landscape in Neural Architecture Search" (UAI; arXiv:2005.02960),
algorithm 1, and its variant that moves on at the first better neighbour. Ours: what happens with several candidates at
a time, and that a search begins anew at a local optimum, as long as there are trials.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasjax.searchers import archive as rows
from nasjax.searchers.archive import Archive
from nasjax.searchers.neighbours import neighbours
from nasjax.types import Evaluation, Key, Proposal, Searcher, Space

_DRAWS = 1000  # per ask, for the random ones of a space that is nearly used up


class LocalState(NamedTuple):
    """State of `local_search`; N = neighbours."""

    archive: Archive
    mark: jax.Array  # u32[C, 2], the codes of the trials
    start: jax.Array  # bool[C], random ones, whose neighbours were not tried yet
    centre: jax.Array  # i32[], the trial whose neighbours are tried; -1 = none
    around: jax.Array  # i32[N, A], its neighbours, in the order in which they are tried
    code: jax.Array  # u32[N, 2]
    there: jax.Array  # bool[N], which of them there are


def local_search(space: Space, *, first_better: bool = True, capacity: int = 1000) -> Searcher:
    """Walks to a better neighbour while there is one; at a local optimum begins anew. No architecture comes twice.

    One candidate at a time: a random architecture, then its neighbours in an order drawn from the key, until one is
    better; that is the next centre. Neighbours that were tried before count with their results and cost nothing.

    Several at a time: where fewer neighbours are left than are asked for, random architectures are proposed beside
    them, so that nobody waits for what is running. They are the starts of later walks, the best of them first; new ones
    are drawn where none is left. Failures are never a centre.

    Args:
      space: where to search, see `searchers.neighbours`.
      first_better: moves as soon as some neighbour is better, to the best of those that are known. False = the paper's
        algorithm 1, which tries all neighbours before it moves to the best.
      capacity: most trials of the run.

    Returns:
      The Searcher; nothing inherits.

    Raises:
      ValueError: a capacity below 1.

    Example:
      >>> from nasjax.spaces.tabular_cell.space import TabularCell
      >>> searcher = local_search(TabularCell(), capacity=100)
      >>> state, proposal = searcher.ask(jax.random.key(1), searcher.init(jax.random.key(0)), 4)
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    neighbours_of = neighbours(space)

    def listed(key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """around, code and there of a centre; of equal neighbours the first is there."""
        around, there = neighbours_of(key, arch)
        code = rows.codes(space, around)
        again = rows.equal(code, code) & jnp.tri(len(code), k=-1, dtype=bool) & there[None]
        return around, code, there & ~again.any(1) & ~rows.equal(code, rows.codes(space, arch[None]))[:, 0]

    def init(key: Key) -> LocalState:
        archive, none = rows.empty(space, capacity, 1), jnp.zeros(capacity, bool)
        shapes = jax.eval_shape(listed, key, archive.arch[0])
        around, code, there = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        return LocalState(archive, jnp.zeros((capacity, 2), jnp.uint32), none, jnp.int32(-1), around, code, there)

    def known(state: LocalState) -> tuple[jax.Array, jax.Array]:
        """i32[N], which trial each neighbour is, and bool[N], whether it is one."""
        same = rows.equal(state.code, state.mark) & (jnp.arange(capacity) < state.archive.made)[None]
        return same.argmax(1).astype(jnp.int32), same.any(1)

    def move(key: Key, state: LocalState) -> tuple[LocalState, jax.Array]:
        """One step of the walk, or the next start; and whether there was any."""
        archive = state.archive
        fitness, (trial, tried) = archive.fitness[:, 0], known(state)
        told = tried & archive.told[trial]
        around = jnp.where(told & state.there, fitness[trial], -jnp.inf)
        walks = state.centre >= 0
        better = walks & (around.max() > fitness[state.centre])
        over = (~state.there | told).all()
        climbs, ends = better & (over | first_better), ~walks | (over & ~better)
        starts = jnp.where(state.start & archive.told, fitness, -jnp.inf)
        begins = ends & jnp.isfinite(starts.max())
        to = jnp.where(climbs, trial[around.argmax()], starts.argmax()).astype(jnp.int32)

        def there() -> LocalState:
            return LocalState(
                archive,
                state.mark,
                state.start.at[to].set(False),
                to,
                *listed(jax.random.fold_in(key, to), archive.arch[to]),
            )

        def here() -> LocalState:
            return state._replace(centre=jnp.where(ends, -1, state.centre).astype(jnp.int32), there=state.there & ~ends)

        moves = climbs | begins
        return jax.lax.cond(moves, there, here), moves

    def ask(key: Key, state: LocalState, n: int) -> tuple[LocalState, Proposal]:
        key_order, key_fill = jax.random.split(key)

        def again(carry: tuple[LocalState, jax.Array]) -> Any:
            return move(key_order, carry[0])

        state, _ = jax.lax.while_loop(lambda carry: carry[1], again, (state, jnp.bool_(True)))
        archive, made = state.archive, state.archive.made
        new = state.there & ~known(state)[1]
        place = jnp.where(new, jnp.cumsum(new) - 1, n)
        place = jnp.where(place < n, made + place, capacity)  # what is beyond is dropped
        near = jnp.minimum(made + jnp.minimum(new.sum(), n), capacity).astype(jnp.int32)
        archive = archive._replace(arch=archive.arch.at[place].set(state.around, mode="drop"), made=near)
        key_fill = jax.random.fold_in(key_fill, made)
        archive = rows.fill(key_fill, space, archive, space.sample, made + n - near, _DRAWS, None)
        number = jnp.arange(capacity)
        start = state.start | ((number >= near) & (number < archive.made))
        archive, proposal = rows.hand_out(archive, n)
        place = jnp.where(proposal.id < 0, capacity, proposal.id)
        mark = state.mark.at[place].set(rows.codes(space, proposal.arch), mode="drop")
        return state._replace(archive=archive, mark=mark, start=start), proposal

    def tell(state: LocalState, proposal: Proposal, evaluation: Evaluation) -> LocalState:
        return state._replace(archive=rows.record(state.archive, proposal, evaluation))

    def live(state: LocalState) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits from a trial

    return Searcher(init, ask, tell, live)
