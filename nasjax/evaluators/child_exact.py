"""Strategy `exact`: every distinct architecture is a program of its own, compiled while another child trains."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train.fit import Run, advance, stepwise
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, Trainer, TrainState, example, trainer
from nasjax.types import Built, Key, PyTree, Signature, Task, one_line

_AHEAD = 2  # programs compiled before they are needed
_KEPT = 64  # programs kept for architectures that come again


class Child(NamedTuple):
    """One child to train."""

    id: int
    arch: np.ndarray  # i32[S]
    built: Built


class Curves(NamedTuple):
    """What of a TrainState tells how the training went, on the host."""

    train_loss: Any  # f32[epochs]
    valid_metric: Any  # f32[epochs]
    nan_epoch: Any  # i32


class Outcome(NamedTuple):
    """What became of one child."""

    seconds: float
    curves: Curves | None = None  # None: it raised
    variables: PyTree = None  # where they are kept
    error: str = ""  # one line; "" = none


# train(key, children, width) -> outcomes; `width` is how many there might have been: compiled shapes follow it, so that
# a round in which some are refused compiles nothing new.
Train = Callable[[Key, Sequence[Child], int], list[Outcome]]


def exact(data: Data, signature: Signature, task: Task, recipe: Recipe, *, keep_weights: bool = False) -> Train:
    """Trains children one after the other, each by its own program.

    Args:
      data: on the device.
      signature: what the networks read.
      task: what they are for.
      recipe: the training.
      keep_weights: leave the variables in the outcomes.

    Returns:
      train(key, children, width) -> outcomes. Child i depends on fold_in(key, i) and its architecture, not on its
      neighbours. Its seconds are its training and the wait for its program. Programs are kept for plans that come
      again; the learning rate is an argument of them.
    """
    programs: OrderedDict[Any, Future[Run]] = OrderedDict()

    def start(key: Key, built: Built) -> tuple[Trainer, TrainState]:
        network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
        variables = network.init(key, None, example(network, signature))
        train = trainer(network, recipe, len(data.train_y), variables, task)
        return train, train.start(variables)

    def compiled(built: Built) -> Run:
        train, state = start(jax.random.key(0), built)
        return stepwise(train, recipe, state, None, data, task)

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
            train, state = start(key_init, child.built)
            rate = jnp.float32(child.built.learning_rate or recipe.learning_rate)
            state = advance(run, key_train, state, None, rate, data, 0, train.steps)
            variables = train.variables(state) if keep_weights else None
            curves = Curves(state.train_loss, state.valid_metric, state.nan_epoch)
            return Outcome(time.monotonic() - began, *jax.tree.map(np.asarray, (curves, variables)))
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
