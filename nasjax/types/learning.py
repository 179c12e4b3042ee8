"""What networks are for, and who trains shared weights with the architecture."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from nasjax.types.arrays import Key, PyTree
from nasjax.types.networks import Signature


class Metric(NamedTuple):
    """The result as shown to people. A search maximises fitness = sign * metric."""

    name: str  # "accuracy", "iou", "perplexity"
    unit: Literal["fraction", "plain"] = "fraction"  # a fraction is shown in percent
    sign: int = 1  # -1 where smaller is better

    def value(self, fitness: float) -> float:
        """The metric that belongs to a fitness, or the fitness that belongs to a metric."""
        return self.sign * fitness

    def text(self, fitness: float | None) -> str:
        """A fitness as a person reads it: the metric in its unit."""
        if fitness is None or not math.isfinite(fitness):
            return "none"
        return f"{self.value(fitness):.2%}" if self.unit == "fraction" else f"{self.value(fitness):.4f}"

    def shown(self, value: float | None) -> str:
        """The metric itself as a person reads it; None = it was not finite."""
        return self.text(None if value is None else self.sign * value)


class Task(NamedTuple):
    """What the networks are for: loss, metric, samples, presentation. All but `signature` and `predict` is traceable.

    signature(dataset) -> Signature
    inputs(x, mean, std) -> x as the network receives it: whitened images, or tokens as they are
    augment(key, x, targets, cfg) -> (x, targets), changed together; cfg is the recipe's `Augment`
    loss(outputs, targets, recipe) -> f32[], to minimise; its attribute `unit`, if it has one, is for the report: "nats"
    score(outputs, targets) -> arrays [B, ...], a row per sample, in a tuple, a dict or any pytree: what is to be summed
      over samples, with a NaN in the rows of a sample whose outputs are not finite
    finish(sums) -> f32[], the metric; it is given the sums in the form of the scores, a tuple's entries one by one
    predict(model, source, out) -> the files written into the folder `out` for the file or folder `source`
    pictures(outputs, images, targets) -> {"image", "truth", "prediction"}: arrays for the report; None = nothing to see
    sample(model) -> a text that a trained network makes by itself, for the report; None = it makes none
    answers(outputs, names) -> an array with a row per sample, in the user's words, of the outputs of `Model.apply` and
      their names; None = nothing but the outputs
    contiguous: samples are windows of one long sequence and keep their order; a batch is that many streams side by side
    further(outputs, targets) -> {name: f32[B]}, of which a test tells the means beside the metric; None = none
    imitate(outputs, teachers) -> f32[], to minimise: how far outputs are from a larger network's; None = not known
    like: the task whose networks serve this one as well, and whose form its samples and targets have; "" = none
    """

    name: str
    metric: Metric
    signature: Callable[[Any], Signature]
    inputs: Callable[..., Any]
    augment: Callable[..., tuple[Any, Any]]
    loss: Callable[..., jax.Array]
    score: Callable[..., PyTree]
    finish: Callable[..., jax.Array]
    predict: Callable[[Any, Path, Path], list[Path]]
    contiguous: bool = False
    pictures: Callable[..., dict[str, np.ndarray]] | None = None
    sample: Callable[[Any], str] | None = None
    answers: Callable[..., np.ndarray] | None = None
    further: Callable[..., dict[str, jax.Array]] | None = None
    imitate: Callable[..., jax.Array] | None = None
    like: str = ""


class Learner(NamedTuple):
    """Trains shared weights, and often the architecture with them, by gradients. `epoch` runs on the host.

    init(key, batch) -> state
    step(key, state, batch) -> (state, metrics)     metrics {name: f32[]}; batch = {"train": (x, y), "val": (x, y)}
    epoch(key, state, val_batches) -> (state, done)     at the end of every epoch; val_batches: (x, y, weight)s
    """

    init: Callable[[Key, PyTree], PyTree]
    step: Callable[[Key, PyTree, PyTree], tuple[PyTree, dict[str, Any]]]
    epoch: Callable[[Key, PyTree, Any], tuple[PyTree, bool]]


class Stages(NamedTuple):
    """A sequence of learners with different shapes. `facts` is JSON, so that a checkpoint can rebuild a stage.

    facts(i, previous_facts, previous_state) -> facts of stage i | None after the last; both None for i = 0
    learner(i, facts) -> Learner
    carry(i, facts, previous_state, state) -> what stage i > 0 begins with, `state` being what its learner's `init` gave
    """

    facts: Callable[[int, Any, PyTree], Any]
    learner: Callable[[int, Any], Learner]
    carry: Callable[[int, Any, PyTree, PyTree], PyTree] = lambda i, facts, previous, state: state
