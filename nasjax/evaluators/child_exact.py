"""Strategy `exact`: every distinct architecture is a program of its own, compiled while another child trains."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.evaluators.children import Child, Curves, Outcome, Train, born, network_of, on_host
from nasjax.train.fit import Run, advance, stepwise
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, example, trainer
from nasjax.types import Built, Key, Signature, Task, one_line

_AHEAD = 2  # programs compiled before they are needed
_KEPT = 64  # programs kept for architectures that come again


def exact(data: Data, signature: Signature, task: Task, recipe: Recipe, *, keep_weights: bool = False) -> Train:
    """Trains children one after the other, each by its own program.

    Args:
      data: on the device.
      signature: what the networks read.
      task: what they are for.
      recipe: the training.
      keep_weights: leave the variables in the outcomes.

    Returns:
      train(key, children, width) -> outcomes. Child i depends on fold_in(key, i), its architecture and its parent's
      weights, not on its neighbours. Its seconds are its training and the wait for its program. Programs are kept for
      plans that come again; the learning rate is an argument of them.
    """
    programs: OrderedDict[Any, Future[Run]] = OrderedDict()

    def compiled(built: Built) -> Run:
        network = network_of(built, recipe)
        variables = network.init(jax.random.key(0), None, example(network, signature))
        train = trainer(network, recipe, len(data.train_y), variables, task)
        return stepwise(train, recipe, train.start(variables), None, data, task)

    def program(pool: ThreadPoolExecutor, built: Built) -> Future[Run]:
        plan = built.plan
        if plan not in programs or programs[plan].cancelled():
            programs[plan] = pool.submit(compiled, built)
        programs.move_to_end(plan)
        while len(programs) > _KEPT:
            programs.popitem(last=False)
        return programs[plan]

    def one(key: Key, child: Child, ready: Future[Run]) -> Outcome:
        began = time.monotonic()
        try:
            key_init, key_train = jax.random.split(jax.random.fold_in(key, child.id))
            run = ready.result()
            network = network_of(child.built, recipe)
            variables, inherited = born(key_init, network, child, signature)
            train = trainer(network, recipe, len(data.train_y), variables, task)
            rate = jnp.float32(child.built.learning_rate or recipe.learning_rate)
            state = advance(run, key_train, train.start(variables), None, rate, data, 0, train.steps)
            curves = Curves(state.train_loss, state.valid_metric, state.nan_epoch)
            curves, kept = on_host((curves, train.variables(state) if keep_weights else None))
            return Outcome(time.monotonic() - began, curves, kept, inherited=inherited)
        except Exception as error:  # a child that cannot be trained is a result, not the end of the search
            return Outcome(time.monotonic() - began, error=one_line(error))

    def train(key: Key, children: Sequence[Child], width: int) -> list[Outcome]:
        pool = ThreadPoolExecutor(1, "compile")
        try:
            outcomes = []
            for i, child in enumerate(children):
                ready, *_ = [program(pool, other.built) for other in children[i : i + 1 + _AHEAD]]
                outcomes.append(one(key, child, ready))
            return outcomes
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            _return_memory()

    return train


def _return_memory() -> None:
    """Gives freed memory back to the system: glibc keeps what compiling used, about 12 MiB for every child."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
