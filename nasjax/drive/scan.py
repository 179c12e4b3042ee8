"""The pure form of a search: ask, evaluate, tell as one `lax.scan`, for evaluators that are traceable.

With a table (or a supernet) as evaluator a whole search is one function of its key, so that
`jax.vmap(lambda key: scan(key, ...))(jax.random.split(jax.random.key(0), 500))` is 500 of them. Keys are used as in
`drive.search`: the same key finds the same architectures there and here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasjax.types import Evaluator, Key, Proposal, PyTree, Searcher


class History(NamedTuple):
    """A whole search, T trials in the order of their ids. Read rows where `valid` only."""

    arch: jax.Array  # i32[T, S]
    fitness: jax.Array  # f32[T] or f32[T, K]; NaN = failed
    cost: jax.Array  # f32[T], seconds
    status: jax.Array  # i8[T], values of Status
    info: dict[str, Any]  # {name: [T, ...]}, what the evaluator adds, e.g. "result" of a table
    valid: jax.Array  # bool[T], asked within the budget
    state: PyTree  # of the searcher, after the last trial
    fidelity: jax.Array | None = None  # i32[T], epochs; None = all were trained for the same


def scan(
    key: Key,
    searcher: Searcher,
    evaluator: Evaluator,
    *,
    trials: int,
    width: int = 1,
    budget_cost: float | None = None,
) -> History:
    """Searches for `trials` trials, or until their cost is spent. Traceable: jit it, vmap it over keys.

    Args:
      key: the run's key.
      searcher: what to try next.
      evaluator: how good it is; must be traceable.
      trials: length T of the history, static.
      width: candidates asked at a time, static; they are told together.
      budget_cost: seconds. In id order, trials count while the sum of their costs stays within it. The first that
        exceeds it, and all after it, are not told: the rule of NAS-Bench-201's random search. (`drive.search`, which
        cannot know a cost beforehand, counts that last trial.) Give enough `trials`: if `valid[-1]` is True, they ran
        out before the budget.

    Returns:
      The History.

    Raises:
      ValueError: trials or width below 1.
    """
    if trials < 1 or width < 1:
        raise ValueError(f"trials and width must be at least 1, got {trials} and {width}")
    limit = math.inf if budget_cost is None else budget_cost
    key_init, key_ask, key_eval = jax.random.split(key, 3)

    def round_(carry: tuple[PyTree, jax.Array], n: jax.Array) -> tuple[tuple[PyTree, jax.Array], History]:
        state, spent = carry
        state, proposal = searcher.ask(key_ask, state, width)
        asked = (proposal.id >= 0) & (n * width + jnp.arange(width) < trials)  # a short last round is padded
        evaluation, _ = evaluator.evaluate(key_eval, proposal, None)
        total = spent + jnp.cumsum(jnp.where(asked, evaluation.cost, 0.0))
        valid = asked & (total <= limit)
        state = searcher.tell(state, Proposal(jnp.where(valid, proposal.id, -1), *proposal[1:]), evaluation)
        history = History(proposal.arch, *evaluation, valid, None)  # type: ignore[arg-type]
        return (state, total[-1]), history._replace(fidelity=proposal.fidelity)

    start = (searcher.init(key_init), jnp.zeros((), jnp.float32))
    (state, _), rounds = jax.lax.scan(round_, start, jnp.arange(-(-trials // width)))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:trials], rounds)._replace(state=state)


def incumbent(history: History) -> jax.Array:
    """The best trial so far, after every trial: i32[T], -1 while there is none.

    Only valid trials that did not fail count, and of those the longest trained; of equal ones the first.
    `history.info["result"][incumbent(history)[-1]]` is what a search on a table found.

    Raises:
      ValueError: the fitness has several objectives.
    """
    if history.fitness.ndim != 1:
        raise ValueError(f"an incumbent needs one objective, got fitness of shape {history.fitness.shape}")
    fitness = jnp.where(history.valid & jnp.isfinite(history.fitness), history.fitness, -jnp.inf)
    trial = jnp.where(jnp.isneginf(fitness), -1, jnp.arange(len(fitness)))
    epochs = jnp.zeros(len(fitness), jnp.int32) if history.fidelity is None else history.fidelity
    epochs = jnp.where(trial < 0, -1, epochs)

    def better(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        second = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] > a[1]))
        return tuple(jnp.where(second, y, x) for x, y in zip(a, b, strict=True))

    return jax.lax.associative_scan(better, (epochs, fitness, trial))[2]
