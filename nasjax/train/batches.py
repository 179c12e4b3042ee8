"""Batches for searches by gradients: training and validation images side by side, cut from arrays on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train.augment import Augment
from nasjax.train.compiling import jit
from nasjax.train.step import Data
from nasjax.types import Key, PyTree, Task


class Batches(NamedTuple):
    """Where a learner's images come from; functions of keys, so that any step can be made again.

    shuffle(key, epoch) -> i32[N], the order of the training part in that epoch
    batch(key, order, t) -> {"train": (x, y), "val": (x, y)}     step t of the whole search; x f32[B, H, W, C]; some
      methods have no "val"
    valid(size=None) -> batches (x, y, weight f32[B]) of the whole validation part, not augmented; all of one size, at
      most that of training where none is given. The last reaches back for what it lacks, with weight 0
    """

    shuffle: Callable[[Key, int], jax.Array]
    batch: Callable[[Key, jax.Array, int], PyTree]
    valid: Callable[..., Iterator[tuple[jax.Array, jax.Array, jax.Array]]]
    epoch_steps: int


def training(data: Data, task: Task, *, batch_size: int, cfg: Augment, devices: int = 1) -> Batches:
    """Augmented training batches without replacement within an epoch, without validation batches.

    Arguments and errors as in `paired`.
    """
    shuffle, cut, steps = _pass(data, task, batch_size, cfg, devices)
    valid = _validation(data, task, batch_size, devices)

    @jit
    def batch(key: Key, order: jax.Array, t: int) -> PyTree:
        return {"train": cut(jax.random.fold_in(jax.random.fold_in(key, 1), t), order, t)}

    return Batches(shuffle, batch, valid, steps)


def paired(data: Data, task: Task, *, batch_size: int, cfg: Augment, devices: int = 1) -> Batches:
    """Augmented training batches without replacement within an epoch; beside each, a validation batch drawn afresh.

    Liu et al. 2019 take the first batch of a reshuffled loader at every step, which is the same as drawing one.

    Args:
      data: both parts; the validation part trains the architecture.
      task: whose samples they are; not a contiguous one.
      batch_size: of both. Whole batches only: the rest of an epoch is left out.
      cfg: augmentation of both.
      devices: validation batches are a multiple of it.

    Raises:
      ValueError: a part has fewer images than a batch; a batch does not divide among the devices.
    """
    m = len(data.valid_y)
    if batch_size > m:
        raise ValueError(f"batch_size={batch_size}, but there are {m} validation images; set it to {m} or less")
    shuffle, cut, steps = _pass(data, task, batch_size, cfg, devices)

    @jit
    def batch(key: Key, order: jax.Array, t: int) -> PyTree:
        key_draw, key_train, key_val = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 1), t), 3)
        index = jax.random.choice(key_draw, m, (batch_size,), replace=False)
        x = task.inputs(data.valid_x[index], data.mean, data.std)
        return {"train": cut(key_train, order, t), "val": task.augment(key_val, x, data.valid_y[index], cfg)}

    return Batches(shuffle, batch, _validation(data, task, batch_size, devices), steps)


def _pass(
    data: Data, task: Task, batch_size: int, cfg: Augment, devices: int
) -> tuple[Callable[..., Any], Callable[..., Any], int]:
    """An epoch's order, the training batch of step t, and the steps of an epoch."""
    n = len(data.train_y)
    if batch_size % devices:
        raise ValueError(
            f"batch_size={batch_size} does not divide among {devices} devices; use a multiple of {devices}"
        )
    if batch_size > n:
        raise ValueError(f"batch_size={batch_size}, but there are {n} training images; set it to {n} or less")
    steps = n // batch_size

    @jit
    def shuffle(key: Key, epoch: int) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), epoch), n).astype(jnp.int32)

    def cut(key: Key, order: jax.Array, t: int) -> tuple[jax.Array, jax.Array]:
        index = jax.lax.dynamic_slice(order, (t % steps * batch_size,), (batch_size,))
        x = task.inputs(data.train_x[index], data.mean, data.std)
        return task.augment(key, x, data.train_y[index], cfg)

    return shuffle, cut, steps


def _validation(
    data: Data, task: Task, batch_size: int, devices: int
) -> Callable[..., Iterator[tuple[jax.Array, jax.Array, jax.Array]]]:
    inputs, m = jit(task.inputs), len(data.valid_y)

    def valid(size: int | None = None) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        size = -(-min(size or batch_size, m) // devices) * devices
        for begin in range(0, m, size):
            position = np.arange(size) + max(0, min(begin, m - size))
            index, weight = position % m, (position >= begin) & (position < m)
            x, y = data.valid_x[index], data.valid_y[index]
            yield inputs(x, data.mean, data.std), y, jnp.asarray(weight, jnp.float32)

    return valid
