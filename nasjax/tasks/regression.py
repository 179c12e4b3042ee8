"""Task `regression`: one value per image. Loss: mean squared error; metric: R^2, the coefficient of determination.

Networks and loss see standardised values (less the training part's mean, over its deviation), so that learning rates
fit whatever the units; `Model.apply`, predictions and exports are in the user's. R^2 = 1 - sum of squared errors / sum
of squared differences from the measured part's own mean: 1 is perfect, 0 as good as that mean. It is the metric since
it is the same in every unit, so that results of different data sets can be read without knowing theirs.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.tasks import classification
from nasjax.tasks.images import read_images
from nasjax.train.recipe import Recipe
from nasjax.types import Metric, PyTree

_BATCH = 256  # images that predict computes at a time
_LEAST = 1e-5  # of the values' variance, that of the training part being 1: values of a batch may be equal


def loss(outputs: PyTree, y: jax.Array, recipe: Recipe) -> jax.Array:
    """The mean squared error of outputs [B, 1], or of (outputs, auxiliary outputs), for standardised values f32[B]."""
    if recipe.label_smoothing:
        raise ValueError("label_smoothing is for classification; set it to 0 for regression")
    outputs, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
    total = _squared(outputs, y).mean()
    if not recipe.auxiliary_weight:
        return total
    if auxiliary is None:
        raise ValueError("auxiliary_weight needs a network with an auxiliary head; build it with one, or set 0")
    return total + recipe.auxiliary_weight * _squared(auxiliary, y).mean()


def _imitate(outputs: PyTree, teachers: PyTree) -> jax.Array:
    """Mean squared difference of two networks' outputs; auxiliary heads do not count."""
    own, taught = (head[0] if isinstance(head, tuple) else head for head in (outputs, teachers))
    return jnp.square(own - taught).mean()


def _squared(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return (outputs[:, 0] - y) ** 2


def _score(outputs: PyTree, y: jax.Array) -> tuple[jax.Array, ...]:
    """Squared error, value, squared value, and 1, f32[B] each."""
    outputs = (outputs[0] if isinstance(outputs, tuple) else outputs).astype(jnp.float32)
    error = jnp.where(jnp.isfinite(outputs[:, 0]), _squared(outputs, y), jnp.nan)
    y = y.astype(jnp.float32)
    return error, y, y**2, jnp.ones_like(y)


def _r2(error: jax.Array, y: jax.Array, square: jax.Array, count: jax.Array) -> jax.Array:
    """NaN where the values are all equal, up to rounding, so that there is nothing to explain; parts never are."""
    differences = square - y**2 / count
    return jnp.where(differences > _LEAST * count, 1 - error / jnp.maximum(differences, _LEAST * count), jnp.nan)


def _values(outputs: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return outputs[:, 0]


def predict(model: Any, source: Path, out: Path) -> list[Path]:
    """Writes out/predictions.csv: for every image its value, in the units of the training data."""
    names, x = read_images(source, model)
    apply = jax.jit(model.apply)
    parts = [np.asarray(apply(model.variables, x[i : i + _BATCH])) for i in range(0, len(x), _BATCH)]
    values = _values(np.concatenate(parts), model.names)
    count = f"{len(names):,} input{'s' * (len(names) != 1)}"
    model.told(f"{count}: {', '.join(model.names)} from {values.min():.4g} to {values.max():.4g}")
    file = out / "predictions.csv"
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream)
        writer.writerow(["input", *model.names])
        for name, value in zip(names, values, strict=True):
            writer.writerow([name, f"{value:.7g}"])
    return [file]


TASK = classification.TASK._replace(
    name="regression",
    metric=Metric("r2", "plain"),
    loss=loss,
    score=_score,
    finish=_r2,
    predict=predict,
    answers=_values,
    imitate=_imitate,
    like="classification",
)
