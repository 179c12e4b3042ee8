"""The points of a small grid of settings, tried before the last training: each is a training of its own.

They run one after the other in this process, or on a runtime's workers. Every point has the same key, so which of them
are tried together changes no result. A point that a killed run was training goes on from its state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.work import shelf
from nasjax.store import unfinished
from nasjax.store.checkpoint import RunError
from nasjax.train import activity, underway
from nasjax.train.fit import fit, resident, valid_name
from nasjax.train.recipe import Recipe
from nasjax.types import Built, Failure, Key, Runtime, Status, Task

_ATTEMPTS = 3  # of a point whose worker died


class Point(NamedTuple):
    """A setting to try, and the network: on the host, so that it can be sent to another process."""

    number: int  # from 1, in the order of the grid
    setting: dict[str, Any]  # JSON
    key: np.ndarray  # the data of the key of every point
    arch: dict[str, Any]  # JSON
    form: dict[str, Any]  # settings of the network's form
    recipe: Recipe  # with the setting, of the whole training
    epochs: int  # of the trial
    folder: str  # where its state is kept while it is under way

    @property
    def name(self) -> str:
        """Of its setting in grid.jsonl."""
        return json.dumps(self.setting)


def points(
    axes: dict[str, Sequence[Any]], key: Key, built: Built, recipe: Recipe, epochs: int, folder: Path
) -> list[Point]:
    """All points of a grid.

    Args:
      axes: setting of the recipe, or else of the network's form -> its values. A value of "drops" is the first drop;
        later ones keep their share of what follows it.
      key: of every point.
      built: the network.
      recipe: the other settings.
      epochs: of a trial.
      folder: where a point's state is kept while it is under way.
    """
    found, of_recipe = [], vars(recipe)
    for number, values in enumerate(itertools.product(*axes.values()), 1):
        changes: dict[str, Any] = dict(zip(axes, values, strict=True))
        if "drops" in changes:
            end = (1 - changes["drops"]) / (1 - recipe.drops[0])
            changes["drops"] = tuple(1 - end * (1 - drop) for drop in recipe.drops)
        setting = json.loads(json.dumps(changes))
        form = {name: changes.pop(name) for name in list(changes) if name not in of_recipe}
        tried, data = dataclasses.replace(recipe, **changes), np.asarray(jax.random.key_data(key))
        found.append(Point(number, setting, data, built.arch, form, tried, epochs, str(folder)))
    return found


def trial(
    dataset: Any, task: Task, formed: Callable[[dict[str, Any], dict[str, Any]], Built], save_every: float
) -> Callable[[Point], float | None]:
    """point -> its validation metric, None where it is NaN.

    Args:
      dataset: a `data.dataset.Dataset`.
      task: of the data.
      formed: (architecture as JSON, settings of its network's form) -> its network.
      save_every: seconds of training after which a point's state is kept.
    """
    data = resident(dataset)

    def work(point: Point) -> float | None:
        activity.doing(f"grid {point.number}")
        recipe, folder = point.recipe, Path(point.folder)
        network = formed(point.arch, point.form).network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
        name = f"{point.number}-{hashlib.sha256(point.name.encode()).hexdigest()[:16]}"
        key = jax.random.wrap_key_data(jnp.asarray(point.key))
        short = dataclasses.replace(recipe, epochs=point.epochs)
        with underway.keeping(shelf(folder, save_every)):
            _, history = fit(key, network, data, short, task, kept_as=name)
        return history[valid_name(task)][-1] if all(np.isfinite(curve[-1]) for curve in history.values()) else None

    return work


def tried(
    todo: Sequence[Point], work: Callable[[Point], float | None] | None, runtime: Runtime | None
) -> Iterator[tuple[Point, float | None, float]]:
    """Points with their metrics and seconds, as they come: from the workers of a runtime, or of `work` in this process.

    Raises RunError where a point raised in a worker, or its worker died three times.
    """
    if runtime is None:
        for point in todo:
            assert work is not None
            began = time.monotonic()
            yield point, work(point), time.monotonic() - began
            unfinished.delete(Path(point.folder), [point.number])
        return
    waiting, running = deque((point, 1) for point in todo), dict[int, tuple[Point, int, float]]()
    while waiting or running:
        while waiting and len(running) < runtime.workers:
            point, attempt = waiting.popleft()
            running[runtime.submit(point)] = point, attempt, time.monotonic()
        activity.doing("grid", f"{len(running)} of {len(waiting) + len(running)} points that are left")
        for ticket, result in runtime.wait():
            if ticket not in running:
                continue
            point, attempt, began = running.pop(ticket)
            if isinstance(result, Failure) and result.status == Status.LOST and attempt < _ATTEMPTS:
                waiting.appendleft((point, attempt + (not result.blameless)))
            elif isinstance(result, Failure):
                raise RunError(f"{point.name} of the grid failed: {result.error}")
            else:
                yield point, result, time.monotonic() - began
                unfinished.delete(Path(point.folder), [point.number])
