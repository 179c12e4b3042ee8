"""What proposes by messages as a `Searcher`, for searches that train their candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from nasjax.referee.external import Proposer
from nasjax.types import Evaluation, Key, Proposal, Searcher, Space, Status, arch_size


@contextmanager
def spoken(proposer: Proposer, space: Space, cost: Callable[[np.ndarray], float]) -> Iterator[Searcher]:
    """The Searcher of a proposer, for one search at a time; a resumed search asks and tells it all again.

    Args:
      proposer: what is asked and told.
      space: of its architectures.
      cost: Arch -> what it is told that an architecture has cost.

    An error of the proposer leaves this block as it was raised, and not as JAX's own.
    """
    failed: list[ValueError] = []

    def asked(n: int) -> Callable[[Any], tuple[np.int32, np.ndarray]]:
        def ask(turn: Any) -> tuple[np.int32, np.ndarray]:
            archs = _kept(failed, lambda: proposer.ask(n))
            whole = np.full((n, arch_size(space)), -1, np.int32)
            whole[: len(archs)] = archs
            return np.int32(turn + 1), whole

        return ask

    def told(turn: Any, archs: Any, fitness: Any, ids: Any) -> np.int32:
        there = np.asarray(ids) >= 0
        archs, fitness = np.asarray(archs)[there], np.asarray(fitness, np.float64)[there]
        if len(archs):
            costs = np.array([cost(arch) for arch in archs])
            _kept(failed, lambda: proposer.tell(archs, fitness, costs))
        return np.int32(turn + 1)

    def init(key: Key) -> tuple[jax.Array, jax.Array]:
        return jnp.int32(0), jnp.int32(0)

    def ask(key: Key, state: Any, n: int) -> tuple[Any, Proposal]:
        turn, trials = state
        kinds = (jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((n, arch_size(space)), jnp.int32))
        turn, archs = io_callback(asked(n), kinds, turn, ordered=True)
        more = (archs != -1).any(-1)
        ids = jnp.where(more, trials + jnp.arange(n, dtype=jnp.int32), -1)
        return (turn, trials + more.sum(dtype=jnp.int32)), Proposal(ids, archs, jnp.full(n, -1, jnp.int32))

    def tell(state: Any, proposal: Proposal, evaluation: Evaluation) -> Any:
        fitness = jnp.where(evaluation.status == Status.OK, evaluation.fitness, jnp.nan)
        kind = jax.ShapeDtypeStruct((), jnp.int32)
        turn = io_callback(told, kind, state[0], proposal.arch, fitness, proposal.id, ordered=True)
        return turn, state[1]

    def live(state: Any) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits

    try:
        yield Searcher(init, ask, tell, live)
    except Exception:
        if failed:
            raise failed[0] from None
        raise


def _kept(failed: list[ValueError], call: Callable[[], Any]) -> Any:
    """call(), with what it refuses kept."""
    try:
        return call()
    except ValueError as error:
        failed.append(error)
        raise
