"""What a search trains by and is measured by, without the settings of a training: a task's loss and metric."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasjax.train.losses import cross_entropy, hits
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished
from nasjax.types import Metric, PyTree, Task


class Objective(NamedTuple):
    """A loss to lower and a metric to tell. All is traceable.

    loss(outputs, targets) -> f32[], the mean over samples
    score(outputs, targets) -> a pytree of [B, ...], a row per sample, as a Task's
    finish(sums of the rows, in the same form) -> f32[], the metric
    metric: what it is called, and whether more of it is better
    """

    loss: Callable[[PyTree, PyTree], jax.Array]
    score: Callable[[PyTree, PyTree], PyTree]
    finish: Callable[[PyTree], jax.Array]
    metric: Metric


@functools.lru_cache(maxsize=32)  # compiled programs are kept by the objective's functions
def objective(task: Task) -> Objective:
    """The objective of a task's search. A search smooths no labels and has no auxiliary head, as the defaults say."""
    plain = Recipe()
    return Objective(
        lambda outputs, targets: task.loss(outputs, targets, plain),
        task.score,
        lambda sums: finished(task, sums),
        task.metric,
    )


def _hits(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    value = hits(logits, labels)
    return value, jnp.ones_like(value)


# Logits [B, classes] for labels i32[B]: cross-entropy in nats, and accuracy.
CLASSIFICATION = Objective(cross_entropy, _hits, lambda sums: sums[0] / sums[1], Metric("accuracy"))
