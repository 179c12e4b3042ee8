"""The population trainer: N different children trained from scratch, fitness = validation accuracy.

Zoph & Le 2017, section 4.1: fitness is the largest validation accuracy of the last 5 epochs (the searcher cubes it).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from nasjax.data.dataset import Dataset
from nasjax.evaluators.child_exact import Child, Outcome, exact
from nasjax.evaluators.child_vmap import vmapped
from nasjax.evaluators.cost_model import choose_strategy, chunk_size, masked_bytes
from nasjax.nets.conv_chain_layout import layout
from nasjax.spaces.conv_chain import ConvChain
from nasjax.spaces.conv_plan import Plan, plan
from nasjax.train.fit import resident
from nasjax.train.recipe import Recipe
from nasjax.types import Evaluation, Evaluator, Key, Proposal, Status

STRATEGIES = ("auto", "vmap", "exact")


def child(
    space: ConvChain,
    dataset: Dataset,
    *,
    recipe: Recipe,
    strategy: str = "auto",
    last_epochs: int = 5,
    chunk: int | None = None,
    keep_weights: bool = False,
) -> Evaluator:
    """Trains every proposed architecture from scratch on the training part.

    Trial i depends on fold_in(key, i) and its architecture only, not on its neighbours or their order. A child whose
    loss becomes NaN, or that raises (too large, too small an image), is a failed trial with a reason.

    Args:
      space: where the architectures come from.
      dataset: its training and validation parts; both go to the device.
      recipe: how a child is trained.
      strategy: "exact" (one program per distinct architecture), "vmap" (one masked program for all), or "auto"
        (`cost_model.choose_strategy`). Same results up to rounding.
      last_epochs: the fitness is the maximum over so many epochs at the end.
      chunk: children that `vmap` trains at a time; None = as many as fit the memory.
      keep_weights: return {id: variables} of the children that did not fail (specialised form).

    Returns:
      Evaluator; evaluate(key, proposal, inherited=None) -> (Evaluation, artifacts). Rows with id -1 are skipped
      (fitness NaN, status OK). `info`: params, macs i64[N]; train_loss f32[N] of the last epoch, nats; valid_curve
      f32[N, epochs], fractions; error, a list of N lines. `artifacts` is None without `keep_weights`.

    Raises:
      ValueError: an unknown strategy, or a number out of its range.

    Example:
      >>> evaluator = child(space, data.load(DataConfig()), recipe=Recipe(epochs=3))
      >>> evaluation, _ = evaluator.evaluate(jax.random.key(0), proposal)
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; choose {', '.join(STRATEGIES)}")
    if last_epochs < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"last_epochs and chunk must be at least 1, got {last_epochs} and {chunk}")
    image = dataset.train.x.shape[1:]
    data = resident(dataset)
    if strategy == "auto":
        backend = jax.default_backend()
        strategy, _ = choose_strategy(space, image, dataset.classes, recipe, len(dataset.train.y), backend)
    if strategy == "exact":
        train = exact(data, recipe, keep_weights=keep_weights)
    else:
        batch = min(recipe.batch_size, len(dataset.train.y))
        chunk = chunk or chunk_size(masked_bytes(layout(space, image), batch))
        train = vmapped(space, dataset.classes, data, recipe, chunk, keep_weights=keep_weights)

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, Any]:
        ids, archs = np.asarray(proposal.id), np.asarray(proposal.arch)
        plans: dict[int, Plan] = {}
        outcomes: dict[int, Outcome] = {}
        for n in np.flatnonzero(ids >= 0).tolist():
            try:
                plans[n] = plan(space, archs[n], image, dataset.classes)
            except ValueError as error:
                outcomes[n] = Outcome(0.0, error=str(error))
        children = [Child(int(ids[n]), archs[n], plans[n]) for n in plans]
        outcomes |= zip(plans, train(key, children, len(ids)), strict=True)
        return _evaluation(ids, plans, outcomes, recipe.epochs, last_epochs), (
            _weights(ids, outcomes) if keep_weights else None
        )

    return Evaluator(evaluate)


def _evaluation(
    ids: np.ndarray, plans: dict[int, Plan], outcomes: dict[int, Outcome], epochs: int, last_epochs: int
) -> Evaluation:
    n = len(ids)
    fitness, cost, loss = (np.full(n, fill, np.float32) for fill in (np.nan, 0, np.nan))
    curves = np.full((n, epochs), np.nan, np.float32)
    status = np.full(n, Status.OK, np.int8)
    errors = [""] * n
    for i, outcome in outcomes.items():
        cost[i], errors[i] = outcome.seconds, outcome.error
        if outcome.curves is not None:
            done = int(outcome.curves.nan_epoch) or epochs
            curves[i, :done] = outcome.curves.valid_accuracy[:done]
            loss[i] = outcome.curves.train_loss[done - 1]
            if outcome.curves.nan_epoch:
                errors[i] = f"loss became NaN in epoch {done}"
                curves[i, done - 1] = np.nan
        if errors[i]:
            status[i] = Status.FAILED
        else:
            fitness[i] = curves[i, -last_epochs:].max()
    counts = {name: np.zeros(n, np.int64) for name in ("params", "macs")}
    for i, planned in plans.items():
        counts["params"][i], counts["macs"][i] = planned.params, planned.macs
    info = {**counts, "train_loss": loss, "valid_curve": curves, "error": errors}
    return Evaluation(fitness, cost, status, info)


def _weights(ids: np.ndarray, outcomes: dict[int, Outcome]) -> dict[int, Any]:
    return {
        int(ids[i]): outcome.variables
        for i, outcome in outcomes.items()
        if outcome.curves is not None and not outcome.curves.nan_epoch
    }
