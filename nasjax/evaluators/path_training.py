"""Paths of a supernet trained from scratch, each alone, by one program, to check the supernet's ranking.

Chu et al. 2021 (FairNAS, arXiv:1907.01845), section 5, compares one-shot with stand-alone accuracies in this way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators import legs
from nasjax.evaluators.legs import Leg
from nasjax.train import activity
from nasjax.train.fit import Run, advance, sample_of, stepwise
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, Trainer, TrainState, example, trainer
from nasjax.types import Evaluation, Evaluator, Key, Proposal, PyTree, Status, Task

# (key, variables, arch, initial rate, leg=None) -> the state at the end, and the trainer, which takes its variables out
PathFit = Callable[..., tuple[TrainState, Trainer]]


def path_fit(network: Any, data: Data, task: Task, recipe: Recipe) -> PathFit:
    """Trains one architecture of `network`, whose `choice` it is; compiled by the first, for all of its shape."""
    prepared: list[tuple[Trainer, Run]] = []

    def fit(
        key: Key, variables: PyTree, arch: jax.Array, rate: float, leg: Leg | None = None
    ) -> tuple[TrainState, Trainer]:
        if not prepared:
            train = trainer(network, recipe, len(data.train_y), variables, task)
            with activity.compiling():
                prepared.append((train, stepwise(train, recipe, train.start(variables), arch, data, task)))
        train, run = prepared[0]
        state = legs.begun(train.start(variables), leg)
        end = legs.end_step(leg, recipe, train.epoch_steps, train.steps)
        return advance(run, key, state, arch, jnp.float32(rate), data, int(state.step), end), train

    return fit


def trained_alone(supernet: Any, data: Data, task: Task, *, recipe: Recipe) -> Evaluator:
    """Trains every proposed path from fresh weights; fitness = the metric on the validation part after the last epoch.

    The path is data to the supernet's program, so N paths cost one compilation. Operators off the path exist, but are
    not used. Trial i depends on fold_in(key, i) and its path only.

    Args:
      supernet: `nets.choice_chain.supernet` with affine batch norms; its results are those of a path's own network.
      data: see `train.fit.resident`.
      task: of the paths.
      recipe: how a path is trained.

    Returns:
      Evaluator; `info` has train_loss f32[N] of the last epoch, nats. A loss of NaN is a failed trial.
    """
    x, fit = example(supernet, sample_of(data, task)), path_fit(supernet, data, task, recipe)

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, None]:
        ids, archs = np.asarray(proposal.id), jnp.asarray(proposal.arch)
        fitness, loss, cost = (np.full(len(ids), fill, np.float32) for fill in (np.nan, np.nan, 0))
        for n in np.flatnonzero(ids >= 0).tolist():
            watch = activity.Stopwatch()
            activity.doing(f"trial {int(ids[n])} alone")
            key_init, key_train = jax.random.split(jax.random.fold_in(key, int(ids[n])))
            variables = supernet.init(key_init, archs[n], x)
            state, _ = fit(key_train, variables, archs[n], recipe.learning_rate)
            if not int(state.nan_epoch):
                fitness[n], loss[n] = task.metric.sign * state.valid_metric[-1], state.train_loss[-1]
            cost[n] = watch.trained(1)
        status = np.where(np.isfinite(fitness) | (ids < 0), Status.OK, Status.FAILED).astype(np.int8)
        return Evaluation(fitness, cost, status, {"train_loss": loss}), None

    return Evaluator(evaluate)
