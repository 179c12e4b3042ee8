"""Task `classification`: one class per image. Loss: cross-entropy in nats; metric: accuracy."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.tasks.images import read_images
from nasjax.train import losses
from nasjax.train.augment import Augment, augment, whiten
from nasjax.train.recipe import Recipe
from nasjax.types import Key, Metric, PyTree, Signature, Task

_BATCH = 256  # images that predict classifies at a time
_BEST = 5  # classes, of ImageNet's second metric
_TOLD = 10  # classes that predict counts in its line


def _signature(dataset: Any) -> Signature:
    return Signature(jax.ShapeDtypeStruct(dataset.train.x.shape[1:], jnp.float32), dataset.classes)


def _augment(key: Key, x: jax.Array, y: jax.Array, cfg: Augment) -> tuple[jax.Array, jax.Array]:
    return augment(key, x, cfg), y


@losses.measured_in("nats")
def loss(outputs: PyTree, y: jax.Array, recipe: Recipe) -> jax.Array:
    """The loss of logits [B, classes], or of (logits, auxiliary logits)."""
    logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
    total = losses.cross_entropy(logits, y, recipe.label_smoothing)
    if not recipe.auxiliary_weight:
        return total
    if auxiliary is None:
        raise ValueError(
            "auxiliary_weight needs a network with an auxiliary head; build it with one, or write auxiliary_weight=0"
        )
    return total + recipe.auxiliary_weight * losses.cross_entropy(auxiliary, y, recipe.label_smoothing)


def _imitate(outputs: PyTree, teachers: PyTree) -> jax.Array:
    """Cross-entropy with the teachers' probabilities, at temperature 1; auxiliary heads do not count."""
    logits, taught = (head[0] if isinstance(head, tuple) else head for head in (outputs, teachers))
    return losses.soft_cross_entropy(logits, taught)


def _score(outputs: PyTree, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    value = losses.hits(outputs[0] if isinstance(outputs, tuple) else outputs, y)
    return value, jnp.ones_like(value)


def _further(outputs: PyTree, y: jax.Array) -> dict[str, jax.Array]:
    """Whether the class is among the five of the largest logits, where there are more than five."""
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    return {"top5_accuracy": losses.hits_of_best(logits, y, _BEST)} if logits.shape[-1] > _BEST else {}


def _answers(outputs: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The class of every row of logits, by its name."""
    return np.array(names)[outputs.argmax(-1)]


def predict(model: Any, source: Path, out: Path) -> list[Path]:
    """Writes out/predictions.csv: for every image its class and the probability of every class."""
    names, x = read_images(source, model)
    apply = jax.jit(lambda variables, x: jax.nn.softmax(model.apply(variables, x)))
    parts = [np.asarray(apply(model.variables, x[i : i + _BATCH])) for i in range(0, len(x), _BATCH)]
    probabilities = np.concatenate(parts)
    found = np.bincount(probabilities.argmax(-1), minlength=len(model.names))
    most = [f"{found[k]:,} as {model.names[k]}" for k in np.argsort(-found, kind="stable") if found[k]]
    count = f"{len(names):,} input{'s' * (len(names) != 1)}"
    model.told(f"{count}: {', '.join(most[:_TOLD])}{' ...' * (len(most) > _TOLD)}")
    file = out / "predictions.csv"
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream)
        writer.writerow(["input", "class", *(f"p({name})" for name in model.names)])
        for name, row in zip(names, probabilities, strict=True):
            writer.writerow([name, model.names[int(row.argmax())], *(f"{p:.6f}" for p in row)])
    return [file]


TASK = Task(
    name="classification",
    metric=Metric("accuracy"),
    signature=_signature,
    inputs=whiten,
    augment=_augment,
    loss=loss,
    score=_score,
    finish=lambda total, weight: total / weight,
    predict=predict,
    answers=_answers,
    further=_further,
    imitate=_imitate,
)
