"""The learner of the DARTS family: architecture parameters on validation batches, weights on training batches.

Liu et al. 2019, "DARTS: Differentiable Architecture Search" (arXiv:1806.09055), algorithm 1. A method fills four slots:
the relaxation (architecture parameters -> mixing weights), the gradient of the architecture (`architecture_gradient`),
the derivation of a cell from the state (a function beside the method's factory), and stages (`p_darts`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from nasjax.learners.architecture_gradient import ArchitectureGradient, Problem, first_order
from nasjax.learners.descent import Adam, at_rest, clip, cosine, descend, transformation
from nasjax.learners.mixed_product import mixed_product
from nasjax.train.accumulate import passes_in_parts, product_in_parts
from nasjax.train.compiling import jit
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.parallel import replicate
from nasjax.train.passes import gradient_pass, validation
from nasjax.train.sgd import Sgd
from nasjax.types import Key, Learner, Network, PyTree

_SAMPLES = zlib.crc32(b"relaxation")  # folded into a step's key, so that other draws are the same with any relaxation


class Relaxation(NamedTuple):
    """How architecture parameters become the network's `choice`.

    init(key) -> alpha, a pytree
    choice(alpha, key, epoch) -> mixing weights, differentiable by alpha. With a key it may draw them, and anneal over
      the epochs; a key of None asks for what the network is judged by, which is not drawn: a mean or a mode
    """

    init: Callable[[Key], PyTree]
    choice: Callable[[PyTree, Key | None, Any], PyTree]


class BilevelState(NamedTuple):
    """A search in progress; everything in it is an array."""

    params: PyTree  # the network's weights w
    momentum: PyTree  # SGD's buffer, as params
    batch_stats: PyTree  # running statistics, moved by the weights' passes only
    alpha: PyTree  # architecture parameters, e.g. {"normal": f32[14, O], "reduce": f32[14, O]}
    adam: PyTree  # optax state of alpha
    epoch: Any  # i32[], epochs done
    valid_loss: Any  # f32[], nats, of the network as it was at the last epoch's end; NaN = not measured
    valid_accuracy: Any  # f32[], the objective's metric, likewise; the name is that of written checkpoints


def bilevel(
    network: Network,
    relaxation: Relaxation,
    *,
    epochs: int = 50,
    frozen_epochs: int = 0,
    sgd: Sgd | None = None,
    adam: Adam | None = None,
    architecture_gradient: ArchitectureGradient = first_order,
    rate: Callable[[int], float] | None = None,
    drop_rate: Callable[[int], float] | None = None,
    objective: Objective = CLASSIFICATION,
    accumulate: int = 1,
    devices: int | None = None,
) -> Learner:
    """A learner that alternates: it updates alpha on a validation batch, then w on a training batch.

    `step` runs a handful of compiled programs from the host. The forward and backward pass through the network uses the
    same programs for every architecture gradient; they compile once if both batches have the same shape. `batch` is
    {"train": (x, y), "val": (x, y)}. `epoch` measures the search network on `val_batches`, which may be empty.
    A relaxation that draws does so once for alpha's update, in all its passes, and once for the weights'.
    Batch norm uses the batch's statistics in every pass; only the weights' pass moves the running ones (our choice).

    Args:
      network: `choice` are mixing weights.
      relaxation: makes the mixing weights.
      epochs: length of the search; the learning rate's cosine spans it.
      frozen_epochs: first epochs in which only w is trained; Adam does not see them.
      sgd, adam: of w and alpha; None = the defaults, which are those of DARTS.
      architecture_gradient: one of `nasjax.learners.architecture_gradient`.
      rate: epoch -> learning rate of w; None = the cosine of `sgd`.
      drop_rate: epoch -> the network's `drop_rate` in both passes; None = no dropout.
      objective: loss of w and alpha, and the metric; `train.objective.objective(task)` makes that of a task.
      accumulate: parts in which a batch of either side goes through the network, in every pass; see `train.accumulate`.
      devices: local devices to divide each batch among; None = all.

    Returns:
      Learner; metrics are train_loss, train_accuracy and, once alpha is trained, val_loss, val_accuracy, with the
      name of the objective's metric in the place of "accuracy".

    Raises:
      ValueError: epochs or frozen_epochs out of range.
    """
    if epochs < 1 or not 0 <= frozen_epochs <= epochs:
        raise ValueError(f"epochs must be >= 1 and frozen_epochs 0..epochs, got {epochs} and {frozen_epochs}")
    sgd, adam = sgd or Sgd(), adam or Adam()
    optimiser = transformation(adam)
    gradients = passes_in_parts(gradient_pass(network, objective, devices), accumulate)
    mixed = product_in_parts(mixed_product(network, objective, devices), accumulate)
    validate = validation(network, objective, devices)
    choice_of = jit(relaxation.choice)

    @jit
    def update_alpha(
        alpha: PyTree, state: PyTree, gradient: PyTree, keys: tuple[Key, Key], epoch: Any
    ) -> tuple[PyTree, PyTree, PyTree]:
        (gradient,) = jax.vjp(lambda alpha: relaxation.choice(alpha, keys[0], epoch), alpha)[1](gradient)
        updates, state = optimiser.update(gradient, state, alpha)
        alpha = optax.apply_updates(alpha, updates)
        return alpha, state, relaxation.choice(alpha, keys[1], epoch)

    @jit
    def update_weights(params: PyTree, momentum: PyTree, grads: PyTree, rate: Any) -> tuple[PyTree, PyTree]:
        return descend(sgd, params, momentum, clip(grads, sgd.clip), rate)

    @jit
    def look_ahead(params: PyTree, momentum: PyTree, grads: PyTree, rate: Any) -> PyTree:
        return descend(sgd, params, momentum, grads, rate)[0]

    def init(key: Key, batch: PyTree) -> BilevelState:
        unknown = np.float32(np.nan)
        key_alpha, key_weights = jax.random.split(key)
        alpha = jit(relaxation.init)(key_alpha)
        variables = network.init(key_weights, choice_of(alpha, None, np.int32(0)), batch["train"][0])
        momentum, adam_state = at_rest(variables["params"]), optimiser.init(alpha)
        return BilevelState(
            **variables,
            momentum=momentum,
            alpha=alpha,
            adam=adam_state,
            epoch=np.int32(0),
            valid_loss=unknown,
            valid_accuracy=unknown,
        )

    def step(key: Key, state: BilevelState, batch: PyTree) -> tuple[BilevelState, dict[str, Any]]:
        epoch, state = int(state.epoch), replicate(state, devices)
        now = np.float32(cosine(sgd, epoch, epochs) if rate is None else rate(epoch))
        drop = None if drop_rate is None else np.float32(drop_rate(epoch))
        key_alpha, key_weights = jax.random.split(key)
        draws = tuple(jax.random.split(jax.random.fold_in(key, _SAMPLES)))
        alpha, adam_state, at_epoch = state.alpha, state.adam, np.int32(epoch)
        metrics: dict[str, Any] = {}
        if epoch < frozen_epochs:
            choice = choice_of(alpha, draws[1], at_epoch)
        else:
            choice = choice_of(alpha, draws[0], at_epoch)
            fixed = (state.batch_stats, choice, key_alpha, drop)
            problem = Problem(
                gradients=lambda params, batch: gradients(params, *fixed, batch),
                mixed=lambda params, v, batch: mixed(params, *fixed, v, batch),
                look_ahead=lambda grads: look_ahead(state.params, state.momentum, grads, now),
                params=state.params,
                rate=now,
                train=batch["train"],
                val=batch["val"],
            )
            at, gradient = architecture_gradient(problem)
            alpha, adam_state, choice = update_alpha(alpha, adam_state, gradient, draws, at_epoch)
            metrics |= {"val_loss": at.loss, f"val_{objective.metric.name}": at.score}
        at = gradients(state.params, state.batch_stats, choice, key_weights, drop, batch["train"])
        params, momentum = update_weights(state.params, state.momentum, at.params, now)
        state = state._replace(
            params=params, momentum=momentum, batch_stats=at.batch_stats, alpha=alpha, adam=adam_state
        )
        return state, metrics | {"train_loss": at.loss, f"train_{objective.metric.name}": at.score}

    def epoch(key: Key, state: BilevelState, val_batches: Iterable[PyTree] = ()) -> tuple[BilevelState, bool]:
        state = replicate(state, devices)
        choice = choice_of(state.alpha, None, np.int32(state.epoch))
        loss, metric = validate(state.params, state.batch_stats, choice, val_batches)
        done = int(state.epoch) + 1
        state = state._replace(epoch=np.int32(done), valid_loss=np.float32(loss), valid_accuracy=np.float32(metric))
        return state, done >= epochs

    return Learner(init, step, epoch)
