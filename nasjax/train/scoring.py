"""A metric from sums over samples: what a task scores of each sample is added up, and the task finishes the sums."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train.recipe import Recipe
from nasjax.types import PyTree, Task


def summed(task: Any, outputs: PyTree, targets: PyTree, counted: jax.Array | None = None) -> PyTree:
    """The sums over samples of what `task.score` gives, f32[...] each.

    Args:
      task: a Task, or an Objective made of one; its `score` is summed.
      outputs, targets: of B samples.
      counted: bool[B], False for samples that another batch counts; None = all count.
    """

    def total(column: jax.Array) -> jax.Array:
        column = jnp.asarray(column)
        column = column.astype(jnp.promote_types(column.dtype, jnp.float32))  # counts and 16 bits are added exactly
        if counted is not None:
            column = jnp.where(counted.reshape(-1, *(1,) * (column.ndim - 1)), column, 0)
        return column.sum(0)

    return jax.tree.map(total, task.score(outputs, targets))


def nothing(sums: PyTree) -> PyTree:
    """The sums over no samples, on the host; `sums` may be shapes."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), sums)


def with_further(task: Task) -> Task:
    """The task whose metric is {"metric": its own, and the means of its further scores by name}."""

    def score(outputs: PyTree, targets: PyTree) -> PyTree:
        more = task.further(outputs, targets) if task.further is not None else {}
        count = jnp.ones(len(jax.tree.leaves(targets)[0]), jnp.float32)
        return {"own": task.score(outputs, targets), "more": more, "count": count}

    def finish(sums: PyTree) -> Any:
        return {"metric": finished(task, sums["own"])} | {k: v / sums["count"] for k, v in sums["more"].items()}

    return task._replace(score=score, finish=finish)


def finished(task: Task, sums: PyTree) -> Any:
    """The metric of the sums: `task.finish` takes the entries of a tuple one by one, and any other form as it is."""
    return task.finish(*sums) if isinstance(sums, tuple) else task.finish(sums)


def with_loss(task: Task) -> Task:
    """The task, its metric followed by its mean loss: `finish` gives both. No label is smoothed, no head auxiliary."""
    plain = Recipe()

    def loss_of(outputs: PyTree, targets: PyTree) -> jax.Array:
        one, target = jax.tree.map(lambda leaf: leaf[None], (outputs, targets))
        return task.loss(one, target, plain)

    def score(outputs: PyTree, targets: PyTree) -> PyTree:
        losses = jax.vmap(loss_of)(outputs, targets)
        return {"score": task.score(outputs, targets), "loss": losses, "count": jnp.ones_like(losses)}

    def finish(sums: PyTree) -> tuple[Any, jax.Array]:
        return finished(task, sums["score"]), sums["loss"] / sums["count"]

    return task._replace(score=score, finish=finish)  # type: ignore[arg-type]
