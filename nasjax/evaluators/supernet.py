"""Evaluators of paths with the weights of a supernet: accuracy after re-calibration, or the batch norm indicator.

Accuracy: Guo et al. 2020 (SPOS, arXiv:1904.00420), section 3, and its code (docs/methods/spos.md). Indicator: Chen et
al. 2021 (BN-NAS, arXiv:2108.07375), section 3 (docs/methods/bn_nas.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.paths_of_files import accuracy_of_files, statistics_of_files
from nasjax.train import activity
from nasjax.train.compiling import jit
from nasjax.train.scoring import finished, nothing, summed
from nasjax.train.step import Data
from nasjax.train.streaming import streamed
from nasjax.types import Array, Evaluation, Evaluator, Key, Proposal, PyTree, Status, Task

Average = Literal["cumulative", "ema"]


class Layered(Protocol):
    """What a score by layers asks of a space: an operator in each of its layers."""

    @property
    def layers(self) -> int: ...
    @property
    def operators(self) -> tuple[str, ...]: ...
    def path(self, arch: jax.Array) -> jax.Array: ...  # archs [..., S] -> [..., layers], operator numbers; -1: identity


def path_accuracy(
    supernet: Any,
    data: Data,
    task: Task,
    *,
    calibration_batches: int = 200,
    batch_size: int = 128,
    average: Average = "cumulative",
    over: Literal["map", "vmap"] = "map",
) -> Callable[[PyTree, jax.Array], jax.Array]:
    """accuracy(variables, archs i32[P, S]) -> f32[P]: validation accuracy with inherited weights, compiled once.

    Running statistics of a supernet mix all paths, so each path gets its own: they start from mean 0 and variance 1,
    then see training images in train mode, without gradients. The images are the same for all paths, the first
    `calibration_batches` whole batches of the training part as the data set orders it, not augmented. A supernet
    without running statistics has nothing to calibrate: calibration_batches and average then have no effect.

    Args:
      supernet: a `nets.supernet.Supernet`.
      data: training part for the statistics, validation part for the accuracy.
      task: what the paths are for; accuracy stands for its metric, times its sign.
      calibration_batches: at most what the training part has.
      batch_size: of the calibration, and samples of a validation at a time; at most what the parts have.
      average: "cumulative" gives every batch the same weight (ours); "ema" is the release's exponential average of
        momentum 0.9, which needs 100 batches or more to forget its start.
      over: paths one after the other, or all at once (on an accelerator with memory to spare; every operator of every
        layer is then computed).

    Raises:
      ValueError: "ema" with fewer than 100 batches, an unknown option, or numbers below 1.
    """
    if over not in ("map", "vmap"):
        raise ValueError(f"over is map or vmap, got {over!r}")
    batches, batch_size, momentum = _schedule(data, calibration_batches, batch_size, average)
    if streamed(data):
        if over == "vmap":
            raise ValueError("over=vmap is for images in memory; leave it out")
        return accuracy_of_files(supernet, data, task, batches=batches, batch_size=batch_size, momentum=momentum)
    recalibrated = _recalibration(supernet, task, batches, batch_size, momentum)

    def accuracy(variables: PyTree, arch: jax.Array, data: Data) -> jax.Array:
        own = recalibrated(variables, arch, data)
        count = len(data.valid_y)
        size = min(batch_size, count)

        def piece(i: jax.Array) -> PyTree:
            position = i * size + jnp.arange(size)
            index = jnp.minimum(position, count - 1)
            outputs, _ = supernet.apply(own, arch, task.inputs(data.valid_x[index], data.mean, data.std))
            return summed(task, outputs, data.valid_y[index], position < count)

        def more(i: jax.Array, sums: PyTree) -> PyTree:
            return jax.tree.map(jnp.add, sums, piece(i))

        sums = jax.lax.fori_loop(0, -(-count // size), more, nothing(jax.eval_shape(piece, jnp.int32(0))))
        return task.metric.sign * finished(task, sums)

    @jit
    def paths(variables: PyTree, archs: jax.Array, data: Data) -> jax.Array:
        if over == "vmap":
            return jax.vmap(accuracy, (None, 0, None))(variables, archs, data)
        return jax.lax.map(lambda arch: accuracy(variables, arch, data), archs)

    return lambda variables, archs: paths(variables, archs, data)


def path_statistics(
    supernet: Any,
    data: Data,
    task: Task,
    *,
    calibration_batches: int = 200,
    batch_size: int = 128,
    average: Average = "cumulative",
) -> Callable[[PyTree, jax.Array], PyTree]:
    """(variables, arch i32[S]) -> the variables with the running statistics that `path_accuracy` judges the path by.

    Arguments and errors as there; compiled once.
    """
    batches, batch_size, momentum = _schedule(data, calibration_batches, batch_size, average)
    if streamed(data):
        of_files = statistics_of_files(supernet, data, task, batches=batches, batch_size=batch_size, momentum=momentum)

        def one(variables: PyTree, arch: jax.Array) -> PyTree:
            return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf[0], of_files(variables, arch[None]))}

        return one
    program = jit(_recalibration(supernet, task, batches, batch_size, momentum))
    return lambda variables, arch: program(variables, arch, data)


def _schedule(
    data: Data, calibration_batches: int, batch_size: int, average: str
) -> tuple[int, int, Callable[[Any], Any]]:
    """Batches of a calibration, their size, and number of a batch -> batch norm's momentum; errors of path_accuracy."""
    if average not in ("cumulative", "ema"):
        raise ValueError(f"average is cumulative or ema, got {average!r}")
    if calibration_batches < 1 or batch_size < 1:
        raise ValueError("calibration_batches and batch_size must be at least 1")
    batch_size = min(batch_size, len(data.train_y))
    batches = min(calibration_batches, len(data.train_y) // batch_size)
    if average == "ema" and batches < 100:
        raise ValueError(f"average=ema needs 100 calibration batches or more, there are {batches}; use cumulative")
    return batches, batch_size, lambda i: i / (i + 1.0) if average == "cumulative" else 0.9


def _recalibration(
    supernet: Any, task: Task, batches: int, batch_size: int, momentum: Callable[[Any], Any]
) -> Callable[[PyTree, jax.Array, Data], PyTree]:
    """(variables, arch, data) -> the variables with a path's own statistics; traceable."""

    def recalibrated(variables: PyTree, arch: jax.Array, data: Data) -> PyTree:
        if not variables.get("batch_stats"):
            return variables
        start = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full_like(leaf, float(path[-1].key == "var")), variables["batch_stats"]
        )

        def body(i: jax.Array, stats: PyTree) -> PyTree:
            x = jax.lax.dynamic_slice_in_dim(data.train_x, i * batch_size, batch_size)
            _, after = supernet.apply(
                {**variables, "batch_stats": stats},
                arch,
                task.inputs(x, data.mean, data.std),
                train=True,
                bn_momentum=momentum(i),
            )
            return after["batch_stats"]

        return {**variables, "batch_stats": jax.lax.fori_loop(0, batches, body, start)}

    return recalibrated


def inherited_accuracy(
    accuracy: Callable[[PyTree, jax.Array], jax.Array], variables: PyTree, *, chunk: int = 8
) -> Evaluator:
    """Fitness = `path_accuracy` with these weights, `chunk` paths a call."""

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, None]:
        ids, archs = np.asarray(proposal.id), np.asarray(proposal.arch)
        fitness, cost = np.full(len(ids), np.nan, np.float32), np.zeros(len(ids), np.float32)
        asked = np.flatnonzero(ids >= 0)
        for begin in range(0, len(asked), chunk):
            part = asked[begin : begin + chunk]
            watch = activity.Stopwatch()
            activity.doing(f"trials {ids[part[0]]} to {ids[part[-1]]}", "scoring")
            padded = np.resize(part, chunk)  # one shape, one program
            fitness[part] = np.asarray(accuracy(variables, jnp.asarray(archs[padded])))[: len(part)]
            cost[part] = watch.trained(len(part)) / len(part)
        status = np.where(np.isfinite(fitness) | (ids < 0), Status.OK, Status.FAILED).astype(np.int8)
        return Evaluation(fitness, cost, status, {}), None

    return Evaluator(evaluate)


def score_sum(space: Layered, scores: Array) -> Callable[[jax.Array], jax.Array]:
    """archs i32[..., S] -> f32[...], the sum over layers of the operators' scores: one gather, no network.

    Args:
      space: of the paths.
      scores: f32[L, m + 1], the last column that of identity. With -1 for identity an [L, m] table would silently give
        the last operator.
    """
    table = jnp.asarray(scores)
    if table.shape != (space.layers, len(space.operators) + 1):
        raise ValueError(
            f"scores must be [{space.layers}, {len(space.operators) + 1}], the last column that of identity; "
            f"got {list(table.shape)}"
        )
    layers = jnp.arange(space.layers)

    def total(archs: jax.Array) -> jax.Array:
        path = space.path(archs)
        index = jnp.where(path < 0, table.shape[1] - 1, path)
        return table.at[jnp.broadcast_to(layers, index.shape), index].get(mode="promise_in_bounds").sum(-1)

    return total


def indicator(space: Layered, scores: Array) -> Evaluator:
    """Fitness = `score_sum`; traceable, at no cost worth counting."""
    total = score_sum(space, scores)

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, None]:
        fitness = total(proposal.arch)
        status = jnp.where(jnp.isnan(fitness), Status.FAILED, Status.OK).astype(jnp.int8)
        return Evaluation(fitness, jnp.zeros_like(fitness), status, {}), None

    return Evaluator(evaluate)


def with_costs(evaluator: Evaluator, *costs: Callable[[jax.Array], jax.Array]) -> Evaluator:
    """Several objectives: fitness [N, 1 + len(costs)], the further columns are -cost (macs, parameters)."""

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, Any]:
        evaluation, artifacts = evaluator.evaluate(key, proposal, inherited)
        columns = [-jnp.asarray(cost(proposal.arch), jnp.float32) for cost in costs]
        fitness = jnp.stack([jnp.asarray(evaluation.fitness), *columns], -1)
        return evaluation._replace(fitness=fitness), artifacts

    return Evaluator(evaluate)
