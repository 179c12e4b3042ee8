"""The update of a supernet's weights by programs that the host runs one after the other, for a CPU.

It computes what `one_shot_update` does. There one program branches at run time, and what an operator keeps for its
backward pass would have to fit the other branches: it is computed again instead. Here the host knows the path, so the
forward pass is computed once, and the programs of a supernet compile side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nasjax.learners.one_shot_update import Regularised, Update
from nasjax.ops.parts import part_of, with_part
from nasjax.train.compiling import jit
from nasjax.train.passes import Call, add, compile_ahead, now
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished, summed
from nasjax.types import Part, PyTree, Task

Names = tuple[str, ...]
Grads = dict[tuple[Names, ...], tuple[jax.Array, ...]]  # of a part's trained parameters, by their names


def by_ways(
    supernet: Any,
    update: Update,
    task: Task,
    label_smoothing: float,
    *,
    fresh_batches: bool = False,
    distill: bool = False,
    regularised: Regularised = "all",
) -> Callable[..., Any]:
    """`update.run` for the host, on one device and without accumulation; see `one_shot_update` for the arguments.

    What it needs is compiled at its first call, for all paths.

    Raises:
      ValueError: the supernet has no `ways`.
    """
    if supernet.ways is None:
        raise ValueError("this supernet is one program; use one_shot_update")
    ways, recipe = supernet.ways, Recipe(label_smoothing=label_smoothing)
    end = _end(update, task)
    # Kept as long as the learner is: no other supernet has the same parts.
    forward_of, backward_of = functools.cache(_forward), functools.cache(_backward)
    loss_of, dealt = functools.cache(functools.partial(_loss, task, recipe)), functools.cache(_dealt)
    zeros: dict[Names, jax.Array] = {}  # of the trained parameters, in the order of the tree's leaves
    ready = False

    def of_path(
        params: PyTree,
        stats: PyTree,
        arch: np.ndarray,
        key: Any,
        batch: PyTree,
        taught: PyTree,
        grads: Grads,
        call: Call,
    ) -> tuple[Grads, PyTree, tuple[Any, PyTree], PyTree]:
        """`grads` with those of a path, the running statistics after it, (loss, sums of scores), its outputs."""
        parts, (value, y) = ways.parts(arch), batch
        pulls: list[tuple[Part, tuple[Names, ...], PyTree]] = []
        moves = False  # whether anything before this part is trained
        for i, part in enumerate(parts):
            own = part_of({"params": params, "batch_stats": stats}, part)
            names = _names(part.path, own.get("params", {}))
            which = tuple(update.trained(name) for name in names)
            drawn = key if i == len(parts) - 1 else None
            forward = forward_of(part.apply, which, moves)
            (value,), pull, after = call(forward, own, part.pick(arch), drawn, (value,))
            stats = with_part({"batch_stats": stats}, part, {"batch_stats": after})["batch_stats"] if after else stats
            moves = moves or any(which)
            if moves:
                pulls.append((part, tuple(name for name, t in zip(names, which, strict=True) if t), pull))
        loss, slope, sums = call(loss_of(taught is not None), value, y, taught)
        slopes, grads = (slope,), dict(grads)
        while pulls:  # what a part has kept is freed once it is used
            part, moved, pull = pulls.pop()
            found, slopes = call(backward_of(part.apply), pull, slopes)
            del pull
            if moved:
                grads[moved] = call(add, grads[moved], found) if moved in grads else found
        return grads, stats, (loss, sums), value

    def walk(
        params: PyTree, momentum: Any, stats: PyTree, archs: np.ndarray, key: Any, rate: Any, batch: PyTree, call: Call
    ) -> Any:
        keys, batches = call(dealt(len(archs), fresh_batches), key, batch["train"])
        grads: Grads = {}
        told, taught = [], None
        for i, arch in enumerate(archs):
            drawn = keys[i] if i == 0 or regularised == "all" else None
            grads, stats, figures, outputs = of_path(params, stats, arch, drawn, batches[i], taught, grads, call)
            told.append(figures)
            taught = outputs if distill and i == 0 else taught
        whole = zeros | {name: one for names, found in grads.items() for name, one in zip(names, found, strict=True)}
        params, momentum, metrics = call(end, params, momentum, tuple(whole.values()), archs, rate, tuple(told))
        return params, momentum, stats, metrics

    def run(
        params: PyTree, momentum: Any, stats: PyTree, archs: Any, key: Any, rate: Any, batch: PyTree
    ) -> tuple[PyTree, Any, PyTree, PyTree]:
        nonlocal ready
        archs = np.asarray(archs)
        if not ready:
            trained = [name for name in _names((), params) if update.trained(name)]
            zeros.update(zip(trained, update.momentum(params), strict=True))

            def all_paths(call: Call) -> None:
                paths, steps = len(archs), -(-len(ways.every) // len(archs))
                some = np.resize(ways.every, (steps * paths, archs.shape[1]))
                for i in range(0, len(some), paths):
                    walk(params, momentum, stats, some[i : i + paths], key, rate, batch, call)

            compile_ahead(all_paths)
            ready = True
        return walk(params, momentum, stats, archs, key, rate, batch, now)

    return run


def _names(path: Names, params: PyTree) -> list[Names]:
    """Of a tree's leaves, below `path`."""
    return [(*path, *(entry.key for entry in found)) for found, _ in jax.tree.leaves_with_path(params)]


# The programs.


def _forward(apply: Callable[..., Any], which: tuple[bool, ...], by_inputs: bool) -> Callable[..., Any]:
    """(variables, choice, key, inputs) -> outputs, pull, new running statistics.

    pull: gradients by outputs -> those by the parameters of `which` and, with `by_inputs`, by the inputs, else ().
    """

    def forward(variables: PyTree, choice: PyTree, key: Any, inputs: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        leaves, tree = jax.tree.flatten(variables.get("params", {}))
        trained = tuple(leaf for leaf, t in zip(leaves, which, strict=True) if t)

        def run(trained: tuple[jax.Array, ...], moving: PyTree) -> tuple[PyTree, PyTree]:
            some = iter(trained)
            params = jax.tree.unflatten(
                tree, [next(some) if t else leaf for leaf, t in zip(leaves, which, strict=True)]
            )
            outputs, after = apply({**variables, "params": params}, choice, moving or inputs, key=key, train=True)
            return outputs, after.get("batch_stats", {})

        outputs, pull, after = jax.vjp(run, trained, inputs if by_inputs else (), has_aux=True)
        return outputs, pull, after

    return jit(forward)


def _backward(apply: Callable[..., Any]) -> Callable[..., Any]:
    """(pull, gradients by outputs) -> gradients by the trained parameters, by the inputs."""
    return jit(lambda pull, slopes: pull(slopes))


def _loss(task: Task, recipe: Recipe, imitates: bool) -> Callable[..., Any]:
    """(outputs, y, outputs to imitate) -> loss, gradient by outputs, sums of scores."""

    def run(outputs: PyTree, y: PyTree, taught: PyTree) -> tuple[jax.Array, PyTree, PyTree]:
        def loss_of(outputs: PyTree) -> jax.Array:
            if imitates and task.imitate is not None:
                return task.imitate(outputs, taught)
            return task.loss(outputs, y, recipe)

        loss, slope = jax.value_and_grad(loss_of)(outputs)
        return loss, slope, summed(task, outputs, y)

    return jit(run)


def _dealt(paths: int, fresh_batches: bool) -> Callable[..., Any]:
    """(key, batch) -> a key and a batch for each path."""

    def run(key: jax.Array, batch: PyTree) -> tuple[Any, Any]:
        keys = tuple(jax.random.split(key, paths))
        if not fresh_batches:
            return keys, (batch,) * paths
        dealt = jax.tree.map(lambda z: z.reshape(-1, paths, *z.shape[1:]).swapaxes(0, 1), batch)
        return keys, tuple(jax.tree.map(lambda z, i=i: z[i], dealt) for i in range(paths))

    return jit(run)


def _end(update: Update, task: Task) -> Callable[..., Any]:
    """(params, momentum, gradients, archs, rate, ((loss, sums), ...)) -> params, momentum, metrics."""

    def run(
        params: PyTree, momentum: Any, grads: tuple[jax.Array, ...], archs: jax.Array, rate: Any, told: Any
    ) -> tuple[PyTree, Any, PyTree]:
        params, momentum = update.moved(params, momentum, grads, archs, rate)
        loss = sum(loss for loss, _ in told) / len(told)
        metric = sum(finished(task, sums) for _, sums in told) / len(told)
        return params, momentum, {"train_loss": loss, f"train_{task.metric.name}": metric}

    return jit(run)
