"""Trainings whose images stay in files: what a step needs is read ahead of it, and put on the device for it alone.

`Data.train_x` is then no array but something that reads (`data.stream.Images`). Which images a step takes, and the
seeds of their cuts, are functions of its key and number, as for arrays; so any step can be made again, and a training
that was killed goes on with the same bits.
"""

from __future__ import annotations

import dataclasses
import functools
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
    """What a step reads."""

    positions: np.ndarray  # i[B]
    seed: int  # of its cuts


class Feed:
    """The images of step after step, read ahead.

    Args:
      images: those of all parts that a step takes.
      cfg: augmentation.
      plan: (key, order, t) -> what step t reads.
      size: images of a step.
      epoch_steps: steps for which an order holds. What is beyond the epoch is not read ahead.
      held: order -> it as `plan` takes it, once an epoch.
    """

    def __init__(
        self,
        images: Any,
        cfg: Augment,
        plan: Callable[[Key, Any, int], Plan],
        size: int,
        epoch_steps: int,
        held: Callable[[Any], Any] = lambda order: order,
    ) -> None:
        self._held = held
        self._images, self._cut, self._plan, self._size, self._steps = images, cut_of(cfg), plan, size, epoch_steps
        self._next: tuple[Any, int, int] | None = None  # the key, the step that comes, and the sequence
        self._sequence: Iterator[tuple[Plan, np.ndarray]] = iter(())

    def __call__(self, key: Key, order: Any, t: int) -> tuple[np.ndarray, jax.Array]:
        """The positions of step t's images, and the images u8[B, H, W, C]."""
        name = np.asarray(jax.random.key_data(key)).tobytes()
        if self._next != (name, t, self._images.readers.turn):
            self._sequence = self._begun(key, self._held(order), t)
        plan, x = next(self._sequence)
        last = (t + 1) % self._steps == 0
        self._next = None if last else (name, t + 1, self._images.readers.turn)
        return plan.positions, jnp.asarray(np.array(x))  # the memory that x is in is used again

    def _begun(self, key: Key, order: Any, t: int) -> Iterator[tuple[Plan, np.ndarray]]:
        """From step t to the end of its epoch."""
        waiting: list[Plan] = []

        def plans() -> Iterator[Plan]:
            for step in range(t, t - t % self._steps + self._steps):
                waiting.append(self._plan(key, order, step))
                yield waiting[-1]

        coming = plans()
        seeds: list[tuple[int, int]] = []

        def positions() -> Iterator[np.ndarray]:
            for plan in coming:
                seeds.append((plan.seed, 0))
                yield plan.positions

        def in_turn() -> Iterator[tuple[int, int]]:
            while True:
                yield seeds.pop(0)

        for x in self._images.sequence(positions(), self._cut, in_turn(), self._size):
            yield waiting.pop(0), x


def seed_words(key: Key) -> jax.Array:
    """u32[2], from which a step's cuts follow; `key` is the step's."""
    return jax.random.key_data(jax.random.fold_in(key, _CUT))


def seed_of(words: Any) -> int:
    """The words as one number below 2**64."""
    high, low = (int(word) for word in np.asarray(words).ravel()[-2:])
    return high << 32 | low


@functools.cache
def _step_words() -> Callable[[Key, Any], jax.Array]:
    return jit(lambda key, t: seed_words(keys_of_step(key, t)[0]))


def steps(data: Data, cfg: Augment, size: int, epoch_steps: int) -> Callable[[Key, Any, int], Data]:
    """(key, order, t) -> step t of a training as a `Data` whose training part is that step's batch.

    `step.pipeline` for a training part of `size` samples then makes of it, in the order 0, 1, ..., what it makes of the
    same images in memory.
    """

    def plan(key: Key, order: np.ndarray, t: int) -> Plan:
        begin = t % epoch_steps * size
        return Plan(order[begin : begin + size], seed_of(_step_words()(key, np.int32(t))))

    feed = Feed(data.train_x, cfg, plan, size, epoch_steps, np.asarray)
    none = jnp.zeros(0)

    def step(key: Key, order: Any, t: int) -> Data:
        positions, x = feed(key, order, t)
        return Data(x, jnp.asarray(np.asarray(data.train_y)[positions]), none, none, data.mean, data.std)

    return step


def pieces(x: Any, y: Any, size: int) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """A part in pieces of `size` samples: images, targets, and bool[size], which of them count."""
    for read, positions, counted in x.pieces(size):
        yield jnp.asarray(np.array(read)), jnp.asarray(np.asarray(y)[positions]), jnp.asarray(counted)


def step_form(data: Data, size: int) -> Data:
    """The shapes of what `steps` gives."""
    x = jax.ShapeDtypeStruct((size, *data.train_x.shape[1:]), data.train_x.dtype)
    y = jax.ShapeDtypeStruct((size, *data.train_y.shape[1:]), data.train_y.dtype)
    none = jax.ShapeDtypeStruct((0,), jnp.float32)
    return Data(x, y, none, none, data.mean, data.std)


def forms(x: Any, y: Any, size: int) -> tuple[Any, Any, Any]:
    """The shapes of what `pieces` gives."""
    like = [jax.ShapeDtypeStruct((size, *part.shape[1:]), part.dtype) for part in (x, y)]
    return *like, jax.ShapeDtypeStruct((size,), bool)
