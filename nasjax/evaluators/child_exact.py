"""Strategy `exact`: every distinct architecture is a program of its own, compiled while another child trains."""

from __future__ import annotations

import contextlib
import ctypes
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.evaluators import legs
from nasjax.evaluators.children import Child, ChildResult, Train, network_of, train_child
from nasjax.evaluators.legs import Leg
from nasjax.train import activity
from nasjax.train.fit import Run, advance, stepwise
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, example, trainer
from nasjax.types import Built, Key, Network, PyTree, Signature, Task

_AHEAD = 2  # programs compiled before they are needed
_KEPT = 64  # programs kept for architectures that come again
_FORGET = 32  # programs after which JAX forgets their traces


def exact(
    data: Data, signature: Signature, task: Task, recipe: Recipe, *, keep_weights: bool = False, continued: bool = False
) -> Train:
    """Trains children one after the other, each by its own program.

    Args:
      data: on the device.
      signature: what the networks read.
      task: what they are for.
      recipe: the training.
      keep_weights: leave the variables in the outcomes.
      continued: leave there also what a later leg of the training needs.

    Returns:
      train(key, children, width) -> results of `train_child`. A child's seconds are its training and the wait for
      its program. Programs are kept for plans that come again; the learning rate is an argument of them.
    """
    programs: OrderedDict[Any, Future[Run]] = OrderedDict()
    since = 0  # programs compiled since JAX's caches were cleared

    def compiled(built: Built) -> Run:
        network = network_of(built, recipe)
        variables = network.init(jax.random.key(0), None, example(network, signature))
        train = trainer(network, recipe, len(data.train_y), variables, task)
        return stepwise(train, recipe, train.start(variables), None, data, task)

    def program(pool: ThreadPoolExecutor, built: Built) -> Future[Run]:
        nonlocal since
        plan = built.plan
        if plan not in programs or programs[plan].cancelled():
            programs[plan] = pool.submit(compiled, built)
            since += 1
        programs.move_to_end(plan)
        while len(programs) > _KEPT:
            programs.popitem(last=False)
        return programs[plan]

    def one(key: Key, child: Child, ready: Future[Run]) -> ChildResult:
        def fit(
            key: Key, network: Network, variables: PyTree, rate: float, leg: Leg | None
        ) -> tuple[Any, Callable[[Any], PyTree]]:
            with activity.compiling():
                run = ready.result()
            train = trainer(network, recipe, len(data.train_y), variables, task)
            state = legs.begun(train.start(variables), leg)
            end = legs.end_step(leg, recipe, train.epoch_steps, train.steps)
            state = advance(run, key, state, None, jnp.float32(rate), data, int(state.step), end)
            return state, train.variables

        return train_child(key, child, signature, recipe, fit, keep_weights=keep_weights, continued=continued)

    def train(key: Key, children: Sequence[Child], width: int) -> list[ChildResult]:
        nonlocal since
        pool = ThreadPoolExecutor(1, "compile")
        try:
            outcomes = []
            for i, child in enumerate(children):
                ready, *_ = [program(pool, other.built) for other in children[i : i + 1 + _AHEAD]]
                outcomes.append(one(key, child, ready))
            return outcomes
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if since >= _FORGET:  # the stored traces would grow with thousands of networks
                since = 0
                jax.clear_caches()
            _return_memory()

    return train


def _return_memory() -> None:
    """Gives freed memory back to the system: glibc keeps what compiling used, about 12 MiB for every child."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
