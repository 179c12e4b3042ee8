"""One update of a supernet's weights: the gradients of a few paths, added up, move what those paths use.

Guo et al. 2020 (SPOS, arXiv:1904.00420) and its code (docs/methods/spos.md); Chu et al. 2021 (FairNAS,
arXiv:1907.01845), algorithm 1; Chen et al. 2021 (BN-NAS, arXiv:2108.07375), section 3, and its code; Yu et al. 2020
(BigNAS, arXiv:2003.11142), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from nasjax.learners.descent import clip as clip_norm
from nasjax.tasks.classification import TASK as CLASSIFICATION
from nasjax.train import schedules
from nasjax.train.parallel import mean, total
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished, summed
from nasjax.train.sgd import Sgd
from nasjax.types import Key, PyTree, Task

Trainable = Literal["all", "all_bn", "last_bn"]
Regularised = Literal["all", "first"]
KERNELS = ("conv", "pointwise", "depthwise", "dense")  # the arrays that weight decay acts on


@dataclass(frozen=True)
class Descent(Sgd):
    """SGD for a supernet; the defaults are those of SPOS's release (docs/methods/spos.md).

    Attributes:
      learning_rate, final_rate: of the first step, and the one that a step after the last would have.
      weight_decay: acts on kernels only.
      schedule: from one rate to the other, step by step: "linear" or "cosine".
      clip_value: largest absolute value of a gradient's element; 0 = not clipped.
      label_smoothing: part of the target's weight that is spread over all classes, for the tasks whose loss has it.

    Raises:
      ValueError: a value out of its range.
    """

    learning_rate: float = 0.5
    final_rate: float = 0.0
    weight_decay: float = 4e-5
    clip: float = 0.0
    schedule: Literal["linear", "cosine"] = "linear"
    clip_value: float = 0.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1 or self.clip_value < 0:
            raise ValueError("label_smoothing must be in [0, 1), clip_value not negative")
        if self.schedule not in ("linear", "cosine"):
            raise ValueError(f"unknown schedule {self.schedule!r}; choose linear or cosine")


class Update(NamedTuple):
    """The pure functions of an update.

    momentum(params) -> zeros like the trained parameters, a tuple in the order of the tree's leaves
    rate(step, epochs, epoch_steps) -> float, on the host
    run(params, momentum, batch_stats, archs i32[P, S], key, rate, {"train": (x, y)})
      -> (params, momentum, batch_stats, {"train_loss", "train_METRIC"}), on a device's part of the batch; METRIC is
      the task's, and batch_stats is {} where the supernet has none
    trained(names) -> bool, whether the parameter of these names is trained
    moved(params, momentum, gradients of the trained parameters, archs, rate) -> (params, momentum), the end of `run`
    """

    momentum: Callable[[PyTree], tuple[jax.Array, ...]]
    rate: Callable[[int, int, int], float]
    run: Callable[..., Any]
    trained: Callable[[tuple[str, ...]], bool]
    moved: Callable[..., Any]


def one_shot_update(
    supernet: Any,
    *,
    task: Task = CLASSIFICATION,
    descent: Descent | None = None,
    trainable: Trainable = "all",
    fresh_batches: bool = False,
    accumulate: int = 1,
    distill: bool = False,
    regularised: Regularised = "all",
) -> Update:
    """The update of `one_shot`; the arguments are explained there.

    Raises:
      ValueError: an unknown `trainable`, one that the supernet has no batch norms for, or a distillation that the task
        does not know or that has other images than its teacher.
    """
    imitate = task.imitate
    if distill and imitate is None:
        raise ValueError(f"the task {task.name} does not say how outputs are imitated; set distill=false")
    if distill and fresh_batches:
        raise ValueError("fresh_batches shows each path other images than the first, whose outputs it is to learn")
    if trainable not in ("all", "all_bn", "last_bn"):
        raise ValueError(f"unknown trainable {trainable!r}; choose all, all_bn or last_bn")
    if trainable != "all" and supernet.last_norm is None:
        raise ValueError(f"trainable={trainable} needs batch norms, and this supernet has none; set trainable=all")
    optimiser = descent or Descent()
    recipe = Recipe(label_smoothing=optimiser.label_smoothing)

    def named(names: tuple[str, ...]) -> bool:
        if trainable == "all":
            return True
        return supernet.last_norm(names) if trainable == "last_bn" else names[-1] in ("gamma", "beta")

    def trained(params: PyTree) -> list[bool]:
        """Which leaves are trained."""
        return [named(tuple(part.key for part in path)) for path, _ in jax.tree.leaves_with_path(params)]

    def whole(which: list[bool], tree: Any, some: Iterable[jax.Array], rest: Iterable[jax.Array]) -> PyTree:
        """A tree of the trained leaves and the others."""
        some, rest = iter(some), iter(rest)
        return jax.tree.unflatten(tree, [next(some) if t else next(rest) for t in which])

    def run(
        params: PyTree, momentum: Any, batch_stats: PyTree, archs: jax.Array, key: Key, rate: jax.Array, batch: PyTree
    ) -> Any:
        leaves, tree = jax.tree.flatten(params)
        which = trained(params)
        moving = tuple(leaf for leaf, t in zip(leaves, which, strict=True) if t)
        frozen = [leaf for leaf, t in zip(leaves, which, strict=True) if not t]

        def loss_of(
            moving: Any, stats: PyTree, arch: jax.Array, key: Any, x: jax.Array, y: jax.Array, taught: PyTree
        ) -> Any:
            variables = {"params": whole(which, tree, moving, frozen), "batch_stats": stats}
            outputs, after = supernet.apply(variables, arch, x, key=key, train=True)
            loss = task.loss(outputs, y, recipe) if taught is None or imitate is None else imitate(outputs, taught)
            return loss, (summed(task, outputs, y), after.get("batch_stats", {}), outputs if distill else None)

        def one(carry: Any, xs: Any, taught: PyTree = None) -> Any:
            added, stats = carry
            arch, key, piece = xs
            x, y = batch["train"] if piece is None else piece
            if accumulate == 1:
                (loss, (sums, stats, outputs)), grads = slope(moving, stats, arch, key, x, y, taught)
            else:
                (loss, (sums, stats, outputs)), grads = in_parts(stats, arch, key, x, y, taught)
            return (jax.tree.map(jnp.add, added, grads), stats), (loss, sums, outputs)

        slope = jax.value_and_grad(loss_of, has_aux=True)

        def in_parts(stats: PyTree, arch: jax.Array, key: Any, x: jax.Array, y: jax.Array, taught: PyTree) -> Any:
            """The same of a batch that goes through the path in parts, one after the other."""

            def part(carry: Any, xs: Any) -> Any:
                grads, stats = carry
                (loss, (sums, stats, outputs)), own = slope(moving, stats, arch, *xs)
                return (jax.tree.map(lambda a, b: a + b / accumulate, grads, own), stats), (loss, sums, outputs)

            parts = jax.tree.map(lambda z: z.reshape(accumulate, -1, *z.shape[1:]), (x, y, taught))
            keys = None if key is None else jax.random.split(key, accumulate)
            begin = (jax.tree.map(jnp.zeros_like, moving), stats)
            (grads, stats), (losses, sums, outputs) = jax.lax.scan(part, begin, (keys, *parts))
            outputs = jax.tree.map(lambda z: z.reshape(-1, *z.shape[2:]), outputs)
            return (losses.mean(), (jax.tree.map(lambda one: one.sum(0), sums), stats, outputs)), grads

        def first_and_others(zero: Any, xs: Any) -> Any:
            """All paths; the first has no teacher, and may be the only one with dropout (which has a key)."""
            begin, (loss, sums, outputs) = one(zero, jax.tree.map(lambda z: z[0], xs))
            taught = jax.lax.stop_gradient(outputs)  # None without distillation
            archs, keys, pieces = jax.tree.map(lambda z: z[1:], xs)
            keys = None if regularised == "first" else keys
            end, (losses, more, _) = jax.lax.scan(
                lambda carry, xs: one(carry, xs, taught), begin, (archs, keys, pieces)
            )
            whole = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), (loss, sums), (losses, more))
            return end, whole

        paths = len(archs)
        pieces = None
        if fresh_batches:
            pieces = jax.tree.map(lambda z: z.reshape(-1, paths, *z.shape[1:]).swapaxes(0, 1), batch["train"])
        zero = (jax.tree.map(jnp.zeros_like, moving), batch_stats)
        xs = (archs, jax.random.split(key, paths), pieces)
        if paths == 1:
            (grads, stats), (loss, sums, _) = one(zero, jax.tree.map(lambda z: z[0], xs))
            metric = finished(task, total(sums))
        else:
            if distill or regularised == "first":
                (grads, stats), (loss, sums) = first_and_others(zero, xs)
            else:
                (grads, stats), (loss, sums, _) = jax.lax.scan(one, zero, xs)
            metric = jax.vmap(lambda sums: finished(task, sums))(total(sums)).mean()

        new, kept = moved(params, momentum, mean(grads), archs, rate)
        return new, kept, stats, {"train_loss": mean(loss.mean()), f"train_{task.metric.name}": metric}

    def moved(
        params: PyTree, momentum: Any, grads: tuple[jax.Array, ...], archs: jax.Array, rate: jax.Array
    ) -> tuple[PyTree, tuple[jax.Array, ...]]:
        leaves, tree = jax.tree.flatten(params)
        which = trained(params)
        moving = tuple(leaf for leaf, t in zip(leaves, which, strict=True) if t)
        frozen = [leaf for leaf, t in zip(leaves, which, strict=True) if not t]

        def of_first(decayed: tuple[Any, ...]) -> tuple[jax.Array, ...]:
            """The same, 0 for what the first path does not use."""
            still = jax.tree.map(jnp.zeros_like, params)
            full = tuple(jnp.broadcast_to(w, p.shape).astype(p.dtype) for w, p in zip(decayed, moving, strict=True))
            full_tree = whole(which, tree, full, map(jnp.zeros_like, frozen))
            found = jax.tree.leaves(supernet.select(archs[:1], full_tree, still))
            return tuple(leaf for leaf, t in zip(found, which, strict=True) if t)

        if optimiser.clip_value:
            grads = jax.tree.map(lambda g: jnp.clip(g, -optimiser.clip_value, optimiser.clip_value), grads)
        grads = clip_norm(grads, optimiser.clip)
        decays = [name[-1].key in KERNELS for name, _ in jax.tree.leaves_with_path(params)]
        decays = [d for d, t in zip(decays, which, strict=True) if t]
        decayed = tuple(optimiser.weight_decay * p if d else 0 for p, d in zip(moving, decays, strict=True))
        if regularised == "first":
            decayed = of_first(decayed)
        buffer = tuple(optimiser.momentum * b + g + w for b, g, w in zip(momentum, grads, decayed, strict=True))
        after = tuple(p - rate * b for p, b in zip(moving, buffer, strict=True))
        new = supernet.select(archs, whole(which, tree, after, frozen), params)
        old_buffer = whole(which, tree, momentum, frozen)
        buffer_tree = supernet.select(archs, whole(which, tree, buffer, frozen), old_buffer)
        return new, tuple(leaf for leaf, t in zip(jax.tree.leaves(buffer_tree), which, strict=True) if t)

    def momentum(params: PyTree) -> tuple[jax.Array, ...]:
        leaves, which = jax.tree.leaves(params), trained(params)
        return tuple(jnp.zeros_like(leaf) for leaf, t in zip(leaves, which, strict=True) if t)

    def rate(step: int, epochs: int, epoch_steps: int) -> float:
        form = schedules.linear if optimiser.schedule == "linear" else schedules.cosine
        now = float(form(optimiser.learning_rate, step, epochs * epoch_steps, optimiser.final_rate))
        warm = optimiser.warmup_epochs
        return now * min(1.0, (step // epoch_steps + 1) / warm) if warm else now

    return Update(momentum, rate, run, named, moved)
