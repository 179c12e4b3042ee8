"""Accuracy of a supernet's paths where the images stay in files: each is read once for all paths that are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train import activity
from nasjax.train.compiling import jit
from nasjax.train.scoring import finished, summed
from nasjax.train.step import Data
from nasjax.train.streaming import pieces
from nasjax.types import PyTree, Task


def statistics_of_files(
    supernet: Any, data: Data, task: Task, *, batches: int, batch_size: int, momentum: Callable[[int], float]
) -> Callable[[PyTree, jax.Array], PyTree]:
    """(variables, archs i32[P, S]) -> every path's own running statistics [P, ...], {} where there are none.

    Args:
      supernet, data, task: as of `supernet.path_accuracy`, which has checked the arguments.
      batches, batch_size: of the calibration.
      momentum: number of a batch -> batch norm's momentum.
    """

    @jit
    def calibrated(variables: PyTree, stats: PyTree, archs: jax.Array, x: jax.Array, rate: jax.Array) -> PyTree:
        inputs = task.inputs(x, data.mean, data.std)

        def one(of: tuple[PyTree, jax.Array]) -> PyTree:
            own, arch = of
            given = {**variables, "batch_stats": own}
            return supernet.apply(given, arch, inputs, train=True, bn_momentum=rate)[1]["batch_stats"]

        return jax.lax.map(one, (stats, archs))

    def calibration() -> Iterator[np.ndarray]:
        return (np.arange(i * batch_size, (i + 1) * batch_size) for i in range(batches))

    def statistics(variables: PyTree, archs: jax.Array) -> PyTree:
        stats = variables.get("batch_stats") or {}
        if stats:

            def fresh(path: Any, leaf: jax.Array) -> jax.Array:
                return jnp.full((len(archs), *leaf.shape), float(path[-1].key == "var"), leaf.dtype)

            stats = jax.tree_util.tree_map_with_path(fresh, stats)
            for i, x in enumerate(data.train_x.sequence(calibration(), most=batch_size)):
                activity.at(f"statistics, batch {i + 1} of {batches}")
                stats = calibrated(variables, stats, archs, jnp.asarray(np.array(x)), np.float32(momentum(i)))
        return stats

    return statistics


def accuracy_of_files(
    supernet: Any, data: Data, task: Task, *, batches: int, batch_size: int, momentum: Callable[[int], float]
) -> Callable[[PyTree, jax.Array], jax.Array]:
    """accuracy(variables, archs i32[P, S]) -> f32[P] as `supernet.path_accuracy` has it; arguments as above.

    A validation is read in pieces of `batch_size`.
    """
    statistics = statistics_of_files(supernet, data, task, batches=batches, batch_size=batch_size, momentum=momentum)

    @jit
    def sums(
        variables: PyTree, stats: PyTree, archs: jax.Array, x: jax.Array, y: jax.Array, counted: jax.Array
    ) -> PyTree:
        inputs = task.inputs(x, data.mean, data.std)

        def one(of: tuple[PyTree, jax.Array]) -> PyTree:
            own, arch = of
            outputs, _ = supernet.apply({**variables, "batch_stats": own}, arch, inputs)
            return summed(task, outputs, y, counted)

        return jax.lax.map(one, (stats, archs))

    def accuracy(variables: PyTree, archs: jax.Array) -> jax.Array:
        stats = statistics(variables, archs)
        total: PyTree = None
        count = len(data.valid_y)
        for i, (x, y, counted) in enumerate(pieces(data.valid_x, data.valid_y, min(batch_size, count))):
            activity.at(f"sample {i * batch_size} of {count}")
            part = sums(variables, stats, archs, x, y, counted)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        return task.metric.sign * jax.vmap(lambda own: finished(task, own))(total)

    return accuracy
