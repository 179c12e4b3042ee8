"""A network's predictions of a few samples, for the report, where the task can draw them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax.store import checkpoint
from nasjax.train.recipe import Recipe
from nasjax.types import Built, PyTree, Task

_SHOWN = 6  # samples


def take(
    file: Path, task: Task, built: Built, recipe: Recipe, variables: PyTree, part: Any, data: Any, title: str
) -> None:
    """Writes `task.pictures` of the first samples of a part into `file`, with a title; nothing where a task has none.

    Args:
      part: x and y of it.
      data: the `data.dataset.Dataset` whose mean and std whiten x.
    """
    if task.pictures is None:
        return
    network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    x, y = part.x[:_SHOWN], part.y[:_SHOWN]

    @jax.jit
    def run(variables: PyTree, x: jax.Array) -> PyTree:
        return network.apply(variables, None, task.inputs(x, data.mean, data.std))[0]

    arrays = task.pictures(jax.device_get(run(variables, x)), x, y)
    with checkpoint.writing(file.parent):
        file.parent.mkdir(exist_ok=True)
        np.savez(file, title=np.array(title), **arrays)  # type: ignore[arg-type]
