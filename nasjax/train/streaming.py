"""Trainings whose images stay in files: what a step needs is read ahead of it, and put on the device for it alone.

`Data.train_x` is then no array but something that reads (`data.stream.Images`). Which images a step takes, and the
seeds of their cuts, are functions of its key and number, as for arrays; so any step can be made again, and a training
that was killed goes on with the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train.augment import Augment
from nasjax.train.compiling import jit
from nasjax.train.step import Data, keys_of_step
from nasjax.types import Key

PIECE = 256  # samples of a validation at a time
_CUT = 0x637574  # what a step's key is folded with, for the seeds of its cuts


def streamed(data: Data) -> bool:
    """Whether the images stay in files."""
    return hasattr(data.train_x, "sequence")


def on_device(cfg: Augment, data: Data) -> Augment:
    """What is left to do once a step's images are there: a random cut is made when a file is read."""
    return dataclasses.replace(cfg, crop="none") if streamed(data) and cfg.crop == "resized" else cfg


def cut_of(cfg: Augment) -> Any:
    """The random cut of files, (scale, ratio); None where their middle is read."""
    return (cfg.crop_scale, cfg.crop_ratio) if cfg.crop == "resized" else None


class Plan(NamedTuple):
    """What the steps of an epoch read; on the host."""

    positions: np.ndarray  # i[steps, B]
    words: np.ndarray  # u32[steps, 2], from which the cuts of a step follow


class Feed:
    """The images of step after step, read ahead.

    Args:
      images: those of all parts that a step takes.
      cfg: augmentation.
      plan: (key, order, t) -> the plan of the epoch that begins with step t. It is asked for once an epoch, so that no
        step waits for the device.
      size: images of a step.
      epoch_steps: steps of an epoch, for which an order holds. What is beyond the epoch is not read ahead.
    """

    def __init__(
        self, images: Any, cfg: Augment, plan: Callable[[Key, Any, int], Plan], size: int, epoch_steps: int
    ) -> None:
        self._images, self._cut, self._make, self._size, self._steps = images, cut_of(cfg), plan, size, epoch_steps
        self._known: tuple[Any, Plan] | None = None  # the key and the epoch of a plan
        self._next: tuple[Any, int, int] | None = None  # the key, the step that comes, and the sequence
        self._sequence: Iterator[np.ndarray] = iter(())

    def __call__(self, key: Key, order: Any, t: int) -> tuple[np.ndarray, jax.Array]:
        """The positions of step t's images, and the images u8[B, H, W, C]."""
        name, at = np.asarray(jax.random.key_data(key)).tobytes(), t % self._steps
        plan = self._plan(name, key, order, t - at)
        if self._next != (name, t, self._images.readers.turn):
            seeds = ((seed_of(words), 0) for words in plan.words[at:])
            self._sequence = self._images.sequence(plan.positions[at:], self._cut, seeds, self._size)
        x = np.array(next(self._sequence))  # the memory that it is in is used again
        self._next = (name, t + 1, self._images.readers.turn) if at + 1 < self._steps else None
        return plan.positions[at], jnp.asarray(x)

    def _plan(self, name: bytes, key: Key, order: Any, first: int) -> Plan:
        if self._known is None or self._known[0] != (name, first):
            self._known = (name, first), self._make(key, order, first)
        return self._known[1]


def seed_words(key: Key) -> jax.Array:
    """u32[2], from which a step's cuts follow; `key` is the step's."""
    return jax.random.key_data(jax.random.fold_in(key, _CUT))


def seed_of(words: np.ndarray) -> int:
    """The words as one number below 2**64."""
    high, low = (int(word) for word in words.ravel()[-2:])
    return high << 32 | low


def steps(data: Data, cfg: Augment, size: int, epoch_steps: int) -> Callable[[Key, Any, int], Data]:
    """(key, order, t) -> step t of a training as a `Data` whose training part is that step's batch.

    `step.pipeline` for a training part of `size` samples then makes of it, in the order 0, 1, ..., what it makes of the
    same images in memory.
    """
    words = jit(jax.vmap(lambda key, t: seed_words(keys_of_step(key, t)[0]), (None, 0)))

    def plan(key: Key, order: Any, first: int) -> Plan:
        positions = np.asarray(order)[: epoch_steps * size].reshape(epoch_steps, size)
        return Plan(positions, np.asarray(words(key, first + np.arange(epoch_steps, dtype=np.int32))))

    feed = Feed(data.train_x, cfg, plan, size, epoch_steps)
    y, none = np.asarray(data.train_y), jnp.zeros(0)

    def step(key: Key, order: Any, t: int) -> Data:
        positions, x = feed(key, order, t)
        return Data(x, jnp.asarray(y[positions]), none, none, data.mean, data.std)

    return step


def pieces(x: Any, y: Any, size: int) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """A part in pieces of `size` samples: images, targets, and bool[size], which of them count."""
    for read, positions, counted in x.pieces(size):
        yield jnp.asarray(np.array(read)), jnp.asarray(np.asarray(y)[positions]), jnp.asarray(counted)


def step_form(data: Data, size: int) -> Data:
    """The shapes of what `steps` gives."""
    x = jax.ShapeDtypeStruct((size, *data.train_x.shape[1:]), data.train_x.dtype)
    y = jax.ShapeDtypeStruct((size, *data.train_y.shape[1:]), data.train_y.dtype)
    none: Any = jax.ShapeDtypeStruct((0,), jnp.float32)
    return Data(x, y, none, none, data.mean, data.std)


def forms(x: Any, y: Any, size: int) -> tuple[Any, Any, Any]:
    """The shapes of what `pieces` gives."""
    like_x, like_y = (jax.ShapeDtypeStruct((size, *part.shape[1:]), part.dtype) for part in (x, y))
    return like_x, like_y, jax.ShapeDtypeStruct((size,), bool)
