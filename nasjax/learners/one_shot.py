"""The learner of weight-sharing supernets: the weights of a few sampled paths move, and nothing else does.

Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling" (SPOS, arXiv:1904.00420),
section 3. A method fills slots: which paths a step trains (`samplers`), which of their parameters (`trainable`), what
they learn from (labels, or the first path's outputs), which are regularised, and when to stop. FairNAS, BN-NAS and
BigNAS differ from SPOS in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.learners.one_shot_update import Descent, Regularised, Trainable, one_shot_update
from nasjax.learners.one_shot_ways import by_ways
from nasjax.ops import backend
from nasjax.tasks.classification import TASK as CLASSIFICATION
from nasjax.train.compiling import jit
from nasjax.train.parallel import data_parallel, device_count, replicate
from nasjax.types import Key, Learner, PyTree, Task


class OneShotState(NamedTuple):
    """A supernet in training; everything in it is an array. L layers, m operators."""

    params: PyTree
    momentum: tuple[jax.Array, ...]  # of the trained parameters only, in the order of the tree's leaves
    batch_stats: PyTree  # running statistics; {} where the supernet has none
    step: Any  # i32[], steps done
    epoch: Any  # i32[], epochs done
    scores: Any  # f32[L, m + 1], operator scores at the last epoch's end; 0 before, and where no batch norm has a scale
    tau: Any  # f32[], `layer_tau` between the scores of the last two epochs; NaN = not known
    settled: Any  # i32[], epochs in a row whose tau reached the threshold


class EarlyBird(NamedTuple):
    """Ends the training when the ranking of operators no longer moves (our rule, see docs/methods/bn_nas.md)."""

    tau: float = 0.95  # `layer_tau` between consecutive epochs that counts as settled
    epochs: int = 2  # in a row


def one_shot(
    supernet: Any,
    sampler: Callable[[Key], jax.Array],
    *,
    epochs: int,
    epoch_steps: int,
    task: Task = CLASSIFICATION,
    descent: Descent | None = None,
    trainable: Trainable = "all",
    fresh_batches: bool = False,
    accumulate: int = 1,
    distill: bool = False,
    regularised: Regularised = "all",
    early_bird: EarlyBird | None = None,
    affine: bool = True,
    devices: int | None = None,
) -> Learner:
    """A learner of shared weights. One compiled program serves all paths; on one CPU the host runs their parts.

    A step draws archs [P, S], adds up the gradients of the P paths, and makes one update. Parameters that no path
    uses keep their values and their momentum bit by bit: neither decay nor momentum reaches them. `batch` is
    {"train": (x, y)}. Batch norm uses the statistics of the whole batch, of all devices; the running ones of the
    operators on the path move in every pass. Under channel search an operator still counts as a whole: decay and
    momentum also reach the channels that a narrow path leaves out (our choice; the release has no channel search).

    Args:
      supernet: a `nets.supernet.Supernet`, such as that of `nets.choice_chain.supernet`.
      sampler: key -> archs i32[P, S].
      epochs, epoch_steps: length of the training; the learning rate's schedule spans it.
      task: whose loss is minimised, and whose metric is told.
      descent: the optimiser.
      trainable: "all" parameters, "all_bn" scales and shifts (stem and tail included), or the "last_bn" of each
        operator. No gradient is computed and no momentum kept for the others.
      fresh_batches: divide a batch among the P paths; else each path sees all of it.
      accumulate: parts in which a batch goes through a path, one after the other; their gradients are averaged. Batch
        norm then uses the statistics of a part.
      distill: the first path learns from the targets, the others from its outputs alone, as they are in that step and
        without a gradient through them (BigNAS: in-place distillation, the first path being the largest).
      regularised: "all" paths, or the "first" only: the others have no dropout, and decay reaches what the first uses.
      early_bird: when to stop before `epochs`.
      affine: whether batch norms have scales, hence scores. A supernet without batch norms has neither.
      devices: local devices to divide each batch among; None = all.

    Returns:
      Learner; metrics are train_loss and train_METRIC (train_accuracy of classification), means over the paths.

    Raises:
      ValueError: a setting out of its range, training of scales that the supernet does not have, or a stop by them.
    """
    if epochs < 1 or epoch_steps < 1:
        raise ValueError(f"epochs and epoch_steps must be at least 1, got {epochs} and {epoch_steps}")
    if trainable != "all" and not affine:
        raise ValueError(f"trainable={trainable} needs batch norms that scale; set affine=true")
    scored = affine and supernet.scores is not None
    if early_bird is not None and not scored:
        raise ValueError("early_bird ranks operators by the scales of batch norms, and there are none; set it to None")
    update = one_shot_update(
        supernet,
        task=task,
        descent=descent,
        trainable=trainable,
        fresh_batches=fresh_batches,
        accumulate=accumulate,
        distill=distill,
        regularised=regularised,
    )
    by_host = backend.form() == "cpu" and device_count(devices) == 1 and accumulate == 1 and supernet.ways is not None
    compiled = data_parallel(update.run, devices)
    if by_host:
        smoothing = (descent or Descent()).label_smoothing
        compiled = by_ways(
            supernet,
            update,
            task,
            smoothing,
            fresh_batches=fresh_batches,
            distill=distill,
            regularised=regularised,
        )
    sample = jit(sampler)
    table = jit(supernet.scores) if scored else None

    def init(key: Key, batch: PyTree) -> OneShotState:
        key_weights, key_path = jax.random.split(key)
        variables = supernet.init(key_weights, sample(key_path)[0], batch["train"][0])
        scores = np.zeros_like(table(variables["params"])) if table else np.zeros((1, 1), np.float32)
        return OneShotState(
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            momentum=update.momentum(variables["params"]),
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
        rate = np.float32(update.rate(t, epochs, epoch_steps))
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
        tau = layer_tau(state.scores, scores) if done > 1 else float("nan")
        settled = int(state.settled) + 1 if early_bird is not None and tau >= early_bird.tau else 0
        state = state._replace(scores=scores, tau=np.float32(tau), settled=np.int32(settled))
        return state, done >= epochs or (early_bird is not None and settled >= early_bird.epochs)

    return Learner(init, step, epoch)


def layer_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over layers of Kendall's tau between two scores of the layer's operators, f[L, m]; NaN where none ranks any.

    A search chooses among the operators of a layer. Of all pairs in a table of 20 layers 95 % are of different layers,
    whose order says nothing. Nor do operators without batch norm, whose score is always 0: beside them a layer whose
    two others change places would keep a tau of 0.7.
    """
    scored = (np.asarray(a) != 0) | (np.asarray(b) != 0)
    found = [kendall_tau(x[there], y[there]) for x, y, there in zip(a, b, scored, strict=True) if there.sum() > 1]
    known = [tau for tau in found if not np.isnan(tau)]
    return float(np.mean(known)) if known else float("nan")


def kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b of two rankings of the same things; NaN where one of them ranks nothing."""
    from scipy.stats import kendalltau

    return float(kendalltau(np.ravel(a), np.ravel(b)).statistic)
