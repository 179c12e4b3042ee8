"""Batches for searches by gradients: training and validation images side by side, of arrays or of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train.augment import Augment
from nasjax.train.compiling import jit
from nasjax.train.photometric import prepared
from nasjax.train.step import Data
from nasjax.train.streaming import Feed, Plan, on_device, pieces, seed_words, streamed
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
    return _batches(data, task, batch_size, cfg, devices, pairs=False)


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
    return _batches(data, task, batch_size, cfg, devices, pairs=True)


def _batches(data: Data, task: Task, batch_size: int, cfg: Augment, devices: int, pairs: bool) -> Batches:
    """Where the images lie decides how a step's are got, and nothing else."""
    n, m = len(data.train_y), len(data.valid_y)
    if batch_size % devices:
        raise ValueError(
            f"batch_size={batch_size} does not divide among {devices} devices; use a multiple of {devices}"
        )
    if batch_size > n:
        raise ValueError(f"batch_size={batch_size}, but there are {n} training images; set it to {n} or less")
    steps, own = n // batch_size, on_device(cfg, data)

    @jit
    def shuffle(key: Key, epoch: int) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), epoch), n).astype(jnp.int32)

    def keys(key: Key, t: int) -> tuple[Key, Key, Key]:
        """Of step t: of the drawing, and of both sides' augmentation."""
        step = jax.random.fold_in(jax.random.fold_in(key, 1), t)
        return tuple(jax.random.split(step, 3)) if pairs else (step, step, step)  # type: ignore[return-value]

    def chosen(key: Key, order: jax.Array, t: int) -> tuple[jax.Array, ...]:
        """Numbers of the images of each side."""
        train = jax.lax.dynamic_slice(order, (t % steps * batch_size,), (batch_size,))
        return (train, jax.random.choice(keys(key, t)[0], m, (batch_size,), replace=False)) if pairs else (train,)

    def made(key: Key, sides: tuple[Any, ...], t: int) -> PyTree:
        """The batch of step t of the raw images and targets of each side."""
        _, *of_side = keys(key, t)
        return {
            name: prepared(task, key_side, x, y, data.mean, data.std, own)
            for name, key_side, (x, y) in zip(("train", "val"), of_side, sides, strict=False)
        }

    @jit
    def resident(key: Key, order: jax.Array, t: int) -> PyTree:
        index = chosen(key, order, t)
        parts = ((data.train_x, data.train_y), (data.valid_x, data.valid_y))
        return made(key, tuple((x[of], y[of]) for (x, y), of in zip(parts, index, strict=False)), t)

    batch = _from_files(data, cfg, keys, chosen, made, batch_size, steps) if streamed(data) else resident
    return Batches(shuffle, batch, _validation(data, task, batch_size, devices), steps)


def _from_files(
    data: Data,
    cfg: Augment,
    keys: Callable[..., Any],
    chosen: Callable[..., Any],
    made: Callable[..., Any],
    batch_size: int,
    steps: int,
) -> Callable[[Key, jax.Array, int], PyTree]:
    """`Batches.batch` where images stay in files: both sides of a step are read at once, ahead of it."""
    offsets, made = (0, len(data.train_y)), jit(made)
    both = np.concatenate([data.train_y, data.valid_y])

    @jit
    def planned(key: Key, order: jax.Array, ts: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(t: jax.Array) -> tuple[jax.Array, jax.Array]:
            index = [of + offset for of, offset in zip(chosen(key, order, t), offsets, strict=False)]
            return jnp.concatenate(index), seed_words(keys(key, t)[1])

        return jax.lax.map(one, ts)

    def plan(key: Key, order: jax.Array, first: int) -> Plan:
        return Plan(*map(np.asarray, planned(key, order, first + np.arange(steps, dtype=np.int32))))

    form = jax.eval_shape(chosen, jax.random.key(0), jnp.zeros(len(data.train_y), jnp.int32), jnp.int32(0))
    sides = len(form)
    feed = Feed(data.train_x.joined(data.valid_x), cfg, plan, sides * batch_size, steps)

    def batch(key: Key, order: jax.Array, t: int) -> PyTree:
        positions, x = feed(key, order, int(t))
        y = jnp.asarray(both[positions])
        parts = [slice(k * batch_size, (k + 1) * batch_size) for k in range(sides)]
        return made(key, tuple((x[part], y[part]) for part in parts), np.int32(t))

    return batch


def _validation(
    data: Data, task: Task, batch_size: int, devices: int
) -> Callable[..., Iterator[tuple[jax.Array, jax.Array, jax.Array]]]:
    inputs, m = jit(task.inputs), len(data.valid_y)

    def valid(size: int | None = None) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        size = -(-min(size or batch_size, m) // devices) * devices
        if streamed(data):
            for x, y, counted in pieces(data.valid_x, data.valid_y, size):
                yield inputs(x, data.mean, data.std), y, counted.astype(jnp.float32)
            return
        for begin in range(0, m, size):
            position = np.arange(size) + max(0, min(begin, m - size))
            index, weight = position % m, (position >= begin) & (position < m)
            x, y = data.valid_x[index], data.valid_y[index]
            yield inputs(x, data.mean, data.std), y, jnp.asarray(weight, jnp.float32)

    return valid
