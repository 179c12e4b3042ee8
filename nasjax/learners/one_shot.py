"""The learner of weight-sharing supernets: the weights of a few sampled paths move, and nothing else does.

Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling" (SPOS, arXiv:1904.00420),
section 3. A method fills three slots: which paths a step trains (`samplers`), which of their parameters (`trainable`),
and when to stop. FairNAS and BN-NAS differ from SPOS in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.descent import clip as clip_norm
from nasjax.train import losses, schedules
from nasjax.train.parallel import data_parallel, mean, replicate
from nasjax.types import Key, Learner, PyTree

Trainable = Literal["all", "all_bn", "last_bn"]
KERNELS = ("conv", "pointwise", "depthwise", "dense")  # the arrays that weight decay acts on


@dataclass(frozen=True)
class Descent:
    """SGD for a supernet; the defaults are those of SPOS's release (spec section 2.3).

    Attributes:
      rate, final_rate: learning rate of the first step, and the one that a step after the last would have.
      schedule: from one to the other, step by step: "linear" or "cosine".
      warmup_epochs: epoch e below it uses (e + 1) / warmup_epochs of the schedule's rate.
      momentum, weight_decay: the decay acts on kernels only.
      clip: largest norm of the whole gradient; 0 = not clipped.
      clip_value: largest size of a gradient's element; 0 = not clipped.
      label_smoothing: part of the target's weight that is spread over all classes.

    Raises:
      ValueError: a value out of its range.
    """

    rate: float = 0.5
    final_rate: float = 0.0
    schedule: Literal["linear", "cosine"] = "linear"
    warmup_epochs: int = 0
    momentum: float = 0.9
    weight_decay: float = 4e-5
    clip: float = 0.0
    clip_value: float = 0.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not self.rate >= self.final_rate >= 0 or not self.rate > 0:
            raise ValueError(f"rates must satisfy rate >= final_rate >= 0, got {self.rate} and {self.final_rate}")
        if not 0 <= self.momentum < 1 or not 0 <= self.label_smoothing < 1:
            raise ValueError("momentum and label_smoothing must be in [0, 1)")
        if min(self.weight_decay, self.warmup_epochs, self.clip, self.clip_value) < 0:
            raise ValueError("weight_decay, warmup_epochs, clip and clip_value must not be negative")
        if self.schedule not in ("linear", "cosine"):
            raise ValueError(f"unknown schedule {self.schedule!r}; choose linear or cosine")


class OneShotState(NamedTuple):
    """A supernet in training; everything in it is an array. L layers, m operators."""

    params: PyTree
    momentum: tuple[jax.Array, ...]  # of the trained parameters only, in the order of the tree's leaves
    batch_stats: PyTree
    step: Any  # i32[], steps done
    epoch: Any  # i32[], epochs done
    scores: Any  # f32[L, m + 1], operator scores at the last epoch's end; 0 before, and where batch norms have no scale
    tau: Any  # f32[], Kendall's tau between the scores of the last two epochs; NaN = not known
    settled: Any  # i32[], epochs in a row whose tau reached the threshold


class EarlyBird(NamedTuple):
    """Ends the training when the ranking of operators no longer moves (our rule: spec section 4.2 [X])."""

    tau: float = 0.95  # Kendall's tau between consecutive epochs that counts as settled
    epochs: int = 2  # in a row


def one_shot(
    supernet: Any,
    sampler: Callable[[Key], jax.Array],
    *,
    epochs: int,
    epoch_steps: int,
    descent: Descent | None = None,
    trainable: Trainable = "all",
    fresh_batches: bool = False,
    early_bird: EarlyBird | None = None,
    affine: bool = True,
    devices: int | None = None,
) -> Learner:
    """A learner of shared weights. One compiled program serves all paths.

    A step draws archs [P, S], adds up the gradients of the P paths, and makes one update. Parameters that no path
    uses keep their values and their momentum bit by bit: neither decay nor momentum reaches them. `batch` is
    {"train": (x, y)}. Batch norm uses the statistics of the whole batch, of all devices; the running ones of the
    operators on the path move in every pass.

    Args:
      supernet: `nets.choice_supernet`, or anything with its five functions.
      sampler: key -> archs i32[P, S].
      epochs, epoch_steps: length of the training, which the learning rate's schedule spans.
      descent: the optimiser.
      trainable: "all" parameters, "all_bn" scales and shifts (stem and tail included), or the "last_bn" of each
        operator. No gradient is computed and no momentum kept for the others.
      fresh_batches: divide a batch among the P paths; else each path sees all of it.
      early_bird: when to stop before `epochs`.
      affine: whether batch norms have scales, hence scores.
      devices: local devices to divide each batch among; None = all.

    Returns:
      Learner; metrics are train_loss and train_accuracy, means over the paths.

    Raises:
      ValueError: a setting out of its range, or training of scales that the supernet does not have.
    """
    if epochs < 1 or epoch_steps < 1:
        raise ValueError(f"epochs and epoch_steps must be at least 1, got {epochs} and {epoch_steps}")
    if trainable not in ("all", "all_bn", "last_bn"):
        raise ValueError(f"unknown trainable {trainable!r}; choose all, all_bn or last_bn")
    if trainable != "all" and not affine:
        raise ValueError(f"trainable={trainable} needs batch norms that scale; set affine=true")
    optimiser = descent or Descent()

    def trained(params: PyTree) -> list[bool]:
        """Which leaves are trained."""
        names = [tuple(part.key for part in path) for path, _ in jax.tree.leaves_with_path(params)]
        if trainable == "all":
            return [True] * len(names)
        return [supernet.last_norm(n) if trainable == "last_bn" else n[-1] in ("gamma", "beta") for n in names]

    def program(
        params: PyTree, momentum: Any, batch_stats: PyTree, archs: jax.Array, key: Key, rate: jax.Array, batch: PyTree
    ) -> Any:
        leaves, tree = jax.tree.flatten(params)
        which = trained(params)

        def whole(some: Iterable[jax.Array], rest: Iterable[jax.Array]) -> PyTree:
            some, rest = iter(some), iter(rest)
            return jax.tree.unflatten(tree, [next(some) if t else next(rest) for t in which])

        moving = tuple(leaf for leaf, t in zip(leaves, which, strict=True) if t)
        frozen = [leaf for leaf, t in zip(leaves, which, strict=True) if not t]

        def loss_of(moving: Any, stats: PyTree, arch: jax.Array, key: Key, x: jax.Array, y: jax.Array) -> Any:
            variables = {"params": whole(moving, frozen), "batch_stats": stats}
            logits, after = supernet.apply(variables, arch, x, key=key, train=True)
            loss = losses.cross_entropy(logits, y, optimiser.label_smoothing)
            return loss, (losses.hits(logits, y).mean(), after["batch_stats"])

        def one(carry: Any, xs: Any) -> Any:
            total, stats = carry
            arch, key, piece = xs
            x, y = batch["train"] if piece is None else piece
            (loss, (accuracy, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(moving, stats, arch, key, x, y)
            return (jax.tree.map(jnp.add, total, grads), stats), (loss, accuracy)

        paths = len(archs)
        pieces = None
        if fresh_batches:
            pieces = jax.tree.map(lambda z: z.reshape(paths, -1, *z.shape[1:]), batch["train"])
        zero = (jax.tree.map(jnp.zeros_like, moving), batch_stats)
        xs = (archs, jax.random.split(key, paths), pieces)
        if paths == 1:
            (grads, stats), (loss, accuracy) = one(zero, jax.tree.map(lambda z: z[0], xs))
        else:
            (grads, stats), (loss, accuracy) = jax.lax.scan(one, zero, xs)
        grads, loss, accuracy = mean((grads, loss.mean(), accuracy.mean()))
        if optimiser.clip_value:
            grads = jax.tree.map(lambda g: jnp.clip(g, -optimiser.clip_value, optimiser.clip_value), grads)
        if optimiser.clip:
            grads = clip_norm(grads, optimiser.clip)
        decays = [name[-1].key in KERNELS for name, _ in jax.tree.leaves_with_path(params)]
        decays = [d for d, t in zip(decays, which, strict=True) if t]
        buffer = tuple(
            optimiser.momentum * b + g + (optimiser.weight_decay * p if d else 0)
            for b, g, p, d in zip(momentum, grads, moving, decays, strict=True)
        )
        moved = tuple(p - rate * b for p, b in zip(moving, buffer, strict=True))
        new = supernet.select(archs, whole(moved, frozen), params)
        old_buffer = whole(momentum, frozen)
        buffer_tree = supernet.select(archs, whole(buffer, frozen), old_buffer)
        kept = tuple(leaf for leaf, t in zip(jax.tree.leaves(buffer_tree), which, strict=True) if t)
        return new, kept, mean(stats), {"train_loss": loss, "train_accuracy": accuracy}

    compiled = data_parallel(program, devices)
    sample = jax.jit(sampler)
    table = jax.jit(supernet.scores) if affine else None

    def init(key: Key, batch: PyTree) -> OneShotState:
        key_weights, key_path = jax.random.split(key)
        variables = supernet.init(key_weights, sample(key_path)[0], batch["train"][0])
        leaves, which = jax.tree.leaves(variables["params"]), trained(variables["params"])
        momentum = tuple(jnp.zeros_like(leaf) for leaf, t in zip(leaves, which, strict=True) if t)
        scores = np.zeros_like(table(variables["params"])) if table else np.zeros((1, 1), np.float32)
        return OneShotState(
            **variables,
            momentum=momentum,
            step=np.int32(0),
            epoch=np.int32(0),
            scores=scores,
            tau=np.float32(np.nan),
            settled=np.int32(0),
        )

    def step(key: Key, state: OneShotState, batch: PyTree) -> tuple[OneShotState, dict[str, Any]]:
        key_path, key_net = jax.random.split(key)
        state = replicate(state, devices)
        t = int(state.step)
        rate = np.float32(_rate(optimiser, t, epochs, epoch_steps))
        params, momentum, stats, metrics = compiled(
            state.params, state.momentum, state.batch_stats, sample(key_path), key_net, rate, batch
        )
        state = state._replace(params=params, momentum=momentum, batch_stats=stats, step=np.int32(t + 1))
        return state, metrics

    def epoch(key: Key, state: OneShotState, val_batches: Iterable[PyTree] = ()) -> tuple[OneShotState, bool]:
        done = int(state.epoch) + 1
        state = state._replace(epoch=np.int32(done))
        if table is None:
            return state, done >= epochs
        scores = np.asarray(table(state.params))
        tau = kendall_tau(np.asarray(state.scores)[:, :-1], scores[:, :-1]) if done > 1 else float("nan")
        settled = int(state.settled) + 1 if early_bird is not None and tau >= early_bird.tau else 0
        state = state._replace(scores=scores, tau=np.float32(tau), settled=np.int32(settled))
        return state, done >= epochs or (early_bird is not None and settled >= early_bird.epochs)

    return Learner(init, step, epoch)


def _rate(descent: Descent, step: int, epochs: int, epoch_steps: int) -> float:
    form = schedules.linear if descent.schedule == "linear" else schedules.cosine
    rate = float(form(descent.rate, step, epochs * epoch_steps, descent.final_rate))
    if descent.warmup_epochs:
        rate *= min(1.0, (step // epoch_steps + 1) / descent.warmup_epochs)
    return rate


def kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b of two rankings of the same things; NaN where one of them ranks nothing."""
    from scipy.stats import kendalltau

    return float(kendalltau(np.ravel(a), np.ravel(b)).statistic)
