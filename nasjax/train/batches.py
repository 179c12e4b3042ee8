"""Batches for searches by gradients: training and validation images side by side, cut from arrays on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasjax.train.augment import Augment, augment, whiten
from nasjax.train.step import Data
from nasjax.types import Key, PyTree


class Batches(NamedTuple):
    """Where a learner's images come from; functions of keys, so that any step can be made again.

    shuffle(key, epoch) -> i32[N], the order of the training part in that epoch
    batch(key, order, t) -> {"train": (x, y), "val": (x, y)}     step t of the whole search; x f32[B, H, W, C]
    valid() -> batches (x, y) of the whole validation part, not augmented
    """

    shuffle: Callable[[Key, int], jax.Array]
    batch: Callable[[Key, jax.Array, int], PyTree]
    valid: Callable[[], Iterator[tuple[jax.Array, jax.Array]]]
    epoch_steps: int


def paired(data: Data, *, batch_size: int, cfg: Augment, devices: int = 1) -> Batches:
    """Augmented training batches without replacement within an epoch; beside each, a validation batch drawn afresh.

    Liu et al. 2019 take the first batch of a reshuffled loader at every step, which is the same as drawing one.

    Args:
      data: both parts; the validation part trains the architecture.
      batch_size: of both. Whole batches only: what is left of an epoch is left out.
      cfg: augmentation of both.
      devices: validation batches are cut to a multiple of it.

    Raises:
      ValueError: a part has fewer images than a batch.
    """
    n, m = len(data.train_y), len(data.valid_y)
    if batch_size > min(n, m):
        raise ValueError(f"batch_size={batch_size}, but there are {n} training and {m} validation images; use fewer")
    steps = n // batch_size

    @jax.jit
    def shuffle(key: Key, epoch: int) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), epoch), n).astype(jnp.int32)

    @jax.jit
    def batch(key: Key, order: jax.Array, t: int) -> PyTree:
        key_draw, *keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 1), t), 3)
        first = jax.lax.dynamic_slice(order, (t % steps * batch_size,), (batch_size,))
        second = jax.random.choice(key_draw, m, (batch_size,), replace=False)
        parts = {"train": (data.train_x, data.train_y, first), "val": (data.valid_x, data.valid_y, second)}
        return {
            name: (augment(k, whiten(x[index], data.mean, data.std), cfg), y[index])
            for k, (name, (x, y, index)) in zip(keys, parts.items(), strict=True)
        }

    white = jax.jit(whiten)

    def valid() -> Iterator[tuple[jax.Array, jax.Array]]:
        for begin in range(0, m, batch_size):
            size = min(batch_size, m - begin) // devices * devices
            if size:
                part = slice(begin, begin + size)
                yield white(data.valid_x[part], data.mean, data.std), data.valid_y[part]

    return Batches(shuffle, batch, valid, steps)
