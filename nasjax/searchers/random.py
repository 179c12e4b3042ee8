"""Random search: the baseline of every search."""

from __future__ import annotations

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasjax.searchers.policy import DepthSchedule, blank_arch, depth_column
from nasjax.types import Evaluation, Key, Proposal, Searcher, Space


class RandomState(NamedTuple):
    """State of `random_search`."""

    asked: jax.Array  # i32[], trials proposed so far


def random_search(space: Space, *, depth_schedule: DepthSchedule | None = None) -> Searcher:
    """Independent draws of `space.sample`. A `depth_schedule` sets the depth, to the nearest choice of the space.

    Raises:
      ValueError: a schedule for a space without a depth site, or whose `sample` takes no depth.

    Example:
      >>> from nasjax.spaces.conv_chain.space import ConvChain
      >>> searcher = random_search(ConvChain())
      >>> state = searcher.init(jax.random.key(0))
      >>> state, proposal = searcher.ask(jax.random.key(1), state, 4)
    """
    column = depth_column(space)
    if depth_schedule is not None and column is None:
        raise ValueError(f"{space.name} has no depth: leave depth_schedule=None")
    if depth_schedule is not None and "depth" not in inspect.signature(space.sample).parameters:
        raise ValueError(
            f"{space.name} cannot sample at a given depth: leave depth_schedule=None (--set search.depth_first=none)"
        )

    def init(key: Key) -> RandomState:
        return RandomState(jnp.int32(0))

    def draw(key: Key, trial: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, trial)
        if depth_schedule is None or column is None:
            return space.sample(key)
        choice = blank_arch(space, depth_schedule(trial))[column]
        return space.sample(key, jnp.array(space.sites[column].choices)[choice])  # type: ignore[call-arg]

    def ask(key: Key, state: RandomState, n: int) -> tuple[RandomState, Proposal]:
        ids = state.asked + jnp.arange(n, dtype=jnp.int32)
        arch = jax.vmap(draw, in_axes=(None, 0))(key, ids)
        return RandomState(state.asked + n), Proposal(ids, arch, jnp.full(n, -1, jnp.int32))

    def tell(state: RandomState, proposal: Proposal, evaluation: Evaluation) -> RandomState:
        return state

    def live(state: RandomState) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits

    return Searcher(init, ask, tell, live)
