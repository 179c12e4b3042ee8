"""The host side of training: compile once, hand the device a few seconds of work at a time, stop on NaN."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, Trainer, TrainState, trainer
from nasjax.types import Key, Network, PyTree

DISPATCH_S = 4.0  # seconds of work handed over at a time, so that Ctrl-C answers and saving is prompt

Run = Callable[..., TrainState]  # Trainer.run, compiled


def resident(dataset: Any) -> Data:
    """The arrays of a `data.Dataset`, on the device."""
    parts = (*dataset.train, *dataset.valid, dataset.mean, dataset.std)
    return Data(*(jnp.asarray(part) for part in parts))


def compile_run(train: Trainer, state: TrainState, choice: Any, data: Data) -> Run:
    """`train.run` compiled for the shapes of `state` and `choice`; the state given to it is consumed."""
    run = jax.jit(train.run, donate_argnums=1)
    return run.lower(jax.random.key(0), state, choice, jnp.float32(0), data, jnp.int32(0), jnp.int32(0)).compile()


def advance(
    run: Run, key: Key, state: TrainState, choice: Any, rate: jax.Array, data: Data, begin: int, end: int
) -> TrainState:
    """Steps begin..end-1 in pieces of at most about DISPATCH_S seconds; stops early where every child is NaN.

    The pieces do not change the result.
    """
    piece = 1
    while begin < end:
        began = time.monotonic()
        stop = min(begin + piece, end)
        state = run(key, state, choice, rate, data, jnp.int32(begin), jnp.int32(stop))
        if np.all(np.asarray(state.nan_epoch) > 0):
            break
        per_step = (time.monotonic() - began) / (stop - begin)
        piece = max(1, min(int(DISPATCH_S / per_step), 8 * piece))
        begin = stop
    return state


def fit(
    key: Key,
    network: Network,
    data: Data,
    recipe: Recipe,
    *,
    choice: Any = None,
    state: TrainState | None = None,
    on_epoch: Callable[[int, TrainState], None] = lambda epoch, state: None,
) -> tuple[PyTree, dict[str, list[float]]]:
    """Trains one network epoch by epoch, as the population trainer trains a child.

    Args:
      key: of the whole training; a resumed one needs the same.
      network: e.g. `nets.conv_chain.conv_chain(plan, bn_eps=recipe.bn_eps, dtype=recipe.dtype)`.
      data: see `resident`.
      recipe: its learning_rate is the initial one.
      choice: passed on to the network.
      state: of an interrupted training, to go on from; None = from the start.
      on_epoch: called with the number of epochs done and the state. The state is consumed by the next epoch, so copy
        (or save) what is to be kept.

    Returns:
      The trained variables and {"train_loss": [...], "valid_accuracy": [...]}, one number per epoch done. A training
      whose loss became NaN ends with that epoch, and its last train_loss is NaN.

    Raises:
      ValueError: `state` belongs to a recipe with another number of epochs.
    """
    train = trainer(network, recipe, len(data.train_y))
    key_init, key_train = jax.random.split(key)
    if state is None:
        state = train.start(network.init(key_init, choice, jnp.zeros((1, *data.train_x.shape[1:]), jnp.float32)))
    if state.train_loss.shape != (recipe.epochs,):
        raise ValueError(f"the state is of a training of {state.train_loss.size} epochs, the recipe has {recipe.epochs}")
    run = compile_run(train, state, choice, data)
    for epoch in range(int(state.step) // train.epoch_steps, recipe.epochs):
        begin = epoch * train.epoch_steps
        rate = jnp.float32(recipe.learning_rate)
        state = advance(run, key_train, state, choice, rate, data, begin, begin + train.epoch_steps)
        if state.nan_epoch > 0:
            break
        on_epoch(epoch + 1, state)
    done = int(state.nan_epoch) or recipe.epochs
    return state.variables, {
        name: np.asarray(getattr(state, name), float)[:done].tolist() for name in ("train_loss", "valid_accuracy")
    }
