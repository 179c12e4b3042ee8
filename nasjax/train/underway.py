"""Trainings that are under way: their states are kept, so that a killed one goes on and does not begin again.

A loop over steps says when it has a state (`reached`); who trains names the training and says how its state is stored
(`training`); who runs it says where (`keeping`). Without the last nothing is kept. Between two times of saving lie at
most `Shelf.every_s` seconds, so what is shorter writes nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.types import Key, PyTree

Tree = dict[str, Any]  # nested dicts of arrays


class Shelf(NamedTuple):
    """Where trainings of a task are kept.

    load(name) -> what was kept, None where nothing is
    save(name, tree), atomically
    """

    load: Callable[[str], Tree | None]
    save: Callable[[str, Tree], None]
    every_s: float
    counted_s: float = 0.0  # seconds of a candidate's earlier attempts that others count


class _Task:
    """The trainings of a task, one after the other."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.saved = shelf, time.monotonic()
        self.seen = self.saved  # when it was last asked
        self.ended: dict[str, Callable[[], Tree]] = {}  # results that are not saved yet
        self.current: tuple[str, Callable[[PyTree], Tree]] | None = None

    def reached(self, state: PyTree) -> None:
        """Saves what is new if the time would be over before the next question, which takes as long as this one."""
        now = time.monotonic()
        due, self.seen = now - self.saved + (now - self.seen) >= self.shelf.every_s, now
        if not due:
            return
        for name, tree in self.ended.items():
            self.shelf.save(name, tree())
        self.ended.clear()
        if self.current is not None:
            name, form = self.current
            self.shelf.save(name, form(state))
        self.saved = self.seen = time.monotonic()


_task: ContextVar[_Task | None] = ContextVar("underway", default=None)


@contextmanager
def keeping(shelf: Shelf) -> Iterator[None]:
    """Keeps the trainings of this block on the shelf, in this thread."""
    token = _task.set(_Task(shelf))
    try:
        yield
    finally:
        _task.reset(token)


def name(key: Key, ids: Sequence[int], archs: Sequence[np.ndarray]) -> str:
    """Of the training of these trials: their first id, and a digest of all that is not in the settings."""
    digest = hashlib.sha256(np.asarray(jax.random.key_data(key)).tobytes())
    for trial, arch in zip(ids, archs, strict=True):
        digest.update(f"{trial} ".encode() + np.ascontiguousarray(arch, "<i4").tobytes())
    return f"{ids[0]}-{digest.hexdigest()[:16]}"


def kept(name: str) -> Tree | None:
    """What an earlier attempt at this training left, None where it left nothing."""
    task = _task.get()
    return None if task is None else task.shelf.load(name)


def uncounted(seconds: float) -> float:
    """The part of the seconds of earlier attempts that no one else counts."""
    task = _task.get()
    return seconds if task is None else max(0.0, seconds - task.shelf.counted_s)


@contextmanager
def training(name: str, form: Callable[[PyTree], Tree]) -> Iterator[None]:
    """The block trains what `name` stands for; `form` makes of its state what is kept."""
    task = _task.get()
    if task is None:
        yield
        return
    task.current, task.seen = (name, form), time.monotonic()  # not all of the time since the last one was training
    try:
        yield
    finally:
        task.current = None


def reached(state: PyTree) -> None:
    """The training in this thread has this state now, and its next step consumes it."""
    if (task := _task.get()) is not None:
        task.reached(state)


def ended(name: str, tree: Callable[[], Tree]) -> None:
    """The training has ended with this result, which a later attempt at the task takes over, once it is saved."""
    if (task := _task.get()) is not None:
        task.ended[name] = tree


def stored(state: PyTree) -> Tree:
    """A training's state as nested dicts of arrays, on the host."""
    leaves = jax.device_get(jax.tree.leaves(state))
    return {"state": {str(n): np.asarray(leaf) for n, leaf in enumerate(leaves)}}


def restored(fresh: PyTree, tree: Tree) -> PyTree:
    """The inverse; `fresh` is the state before the first step. Raises ValueError for a state of another training."""
    leaves, form = jax.tree.flatten(fresh)
    state = tree["state"]
    kept = [np.asarray(state[str(n)]) for n in range(len(state))]
    kept = [x.view(leaf.dtype) if x.dtype.kind == "V" else x for x, leaf in zip(kept, leaves, strict=False)]
    if [(x.shape, x.dtype) for x in kept] != [(np.shape(leaf), leaf.dtype) for leaf in leaves]:
        raise ValueError("the training that is to go on is of another network or recipe")
    # No buffer twice and none of the host's: a step consumes the state.
    on_device = [
        jax.device_put(x, may_alias=False) if isinstance(leaf, jax.Array) else x
        for x, leaf in zip(kept, leaves, strict=True)
    ]
    return jax.tree.unflatten(form, on_device)
