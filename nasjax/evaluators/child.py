"""The population trainer: N children trained from scratch, fitness = the task's metric on the validation part.

Zoph & Le 2017, section 4.1: fitness is the largest validation accuracy of the last 5 epochs (the searcher cubes it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nasjax.data.dataset import Dataset
from nasjax.evaluators.child_exact import exact
from nasjax.evaluators.child_parts import parted
from nasjax.evaluators.child_path import pathed
from nasjax.evaluators.child_vmap import vmapped
from nasjax.evaluators.children import Child, ChildResult
from nasjax.evaluators.cost_model import chunk_size
from nasjax.evaluators.legs import Leg
from nasjax.train.fit import resident
from nasjax.train.recipe import Recipe
from nasjax.train.streaming import streamed
from nasjax.types import Built, Evaluation, Evaluator, Inherit, Key, Masked, Proposal, Status, Task

STRATEGIES = ("auto", "vmap", "exact", "parts", "path")


def child(
    build: Callable[[np.ndarray], Built],
    dataset: Dataset,
    task: Task,
    *,
    recipe: Recipe,
    masked: Masked | None = None,
    last_epochs: int = 5,
    chunk: int | None = None,
    parts: bool = False,
    path: bool = False,
    inherit: Inherit | None = None,
    keep_weights: bool = False,
    continued: bool = False,
) -> Evaluator:
    """Trains every proposed architecture on the training part, from scratch or (`inherit`) from its parent's weights.

    Trial i depends on fold_in(key, i), its architecture and what it inherits only, not on its neighbours or their
    order. A child whose loss becomes NaN, or that raises (too large, too small an image), is a failed trial with a
    reason.

    With a `Proposal.fidelity` a child is trained for so many epochs of the recipe in all, under the recipe's schedule,
    which is then stopped early. A child with a parent goes on from where that one stopped, by its random streams; on a
    CPU the two legs give the bits of one training. Its `cost` is that of the added epochs.

    Args:
      build: Arch -> its network. Raises ValueError where there is none.
      dataset: its training and validation parts; both go to the device.
      task: what the networks are for.
      recipe: how a child is trained.
      masked: one network for all architectures: children then train side by side in one program (strategy "vmap");
        None = one program per distinct architecture ("exact"). The results are the same up to rounding.
      last_epochs: the fitness is the best of this many last epochs.
      chunk: children that "vmap" trains at a time; None = as many as fit the memory, or all where that is not known.
      path: with `masked`, that branches: train one child after the other by its program ("path").
      parts: train a network part by part ("parts"): a network of known parts compiles nothing.
      inherit: how a child takes over its parent's weights; None = all start from fresh weights.
      keep_weights: return artifacts of the children that did not fail, {id: {"arch": i32[A], "variables": of the
        architecture's own network}}.
      continued: return artifacts, and in them also what a child with this parent needs to go on: {"training": ...}.
        Not with `inherit`, and not of children that train side by side.

    Returns:
      Evaluator; evaluate(key, proposal, inherited=None) -> (Evaluation, artifacts). `inherited` has the artifacts of
      parents, by their ids; a child whose parent has none starts from fresh weights, or has failed where it should go
      on (a fidelity is there). Rows with id -1 are skipped
      (fitness NaN, status OK). `info`: params, macs i64[N]; train_loss f32[N] of the last epoch; valid_curve
      f32[N, epochs], the metric; with `inherit` inherited f32[N], the fraction of its weights that a child inherits;
      error, a list of N lines. `artifacts` is None without `keep_weights` and `continued`.

    Raises:
      ValueError: a number out of its range.

    Example:
      >>> evaluator = child(build, data.load(DataConfig()), classification.TASK, recipe=Recipe(epochs=3))
      >>> evaluation, _ = evaluator.evaluate(jax.random.key(0), proposal)
    """
    if last_epochs < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"last_epochs and chunk must be at least 1, got {last_epochs} and {chunk}")
    data, signature = resident(dataset), task.signature(dataset)
    if masked is not None and inherit is not None:
        raise ValueError("children of one program do not inherit weights; use strategy=exact or parts")
    if continued and (inherit is not None or (masked is not None and not path)):
        raise ValueError(
            "trainings that go on inherit nothing else and do not run side by side in one program; use inherit=false "
            "and strategy=exact, parts or path"
        )
    if path and not (masked is not None and masked.branching):
        raise ValueError("only networks that branch at run time train by strategy=path; use exact or vmap")
    keep_weights, side_by_side = keep_weights or continued, masked is not None and not path
    if parts:
        train = parted(data, signature, task, recipe, keep_weights=keep_weights, continued=continued)
    elif masked is None:
        train = exact(data, signature, task, recipe, keep_weights=keep_weights, continued=continued)
    elif path:
        train = pathed(masked, data, signature, task, recipe, keep_weights=keep_weights, continued=continued)
    else:
        if streamed(data):
            raise ValueError("strategy=vmap needs images in memory; write --set strategy=exact or data.stream=false")
        if chunk is None and masked.cost is not None:
            chunk = chunk_size(masked.cost(min(recipe.batch_size, len(dataset.train.y))).bytes)
        train = vmapped(masked, data, signature, task, recipe, chunk, keep_weights=keep_weights)

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, Any]:
        ids, archs = np.asarray(proposal.id), np.asarray(proposal.arch)
        epochs, parents = _epochs(proposal, recipe, side_by_side), np.asarray(proposal.parent).tolist()
        builts: dict[int, Built] = {}
        legs: dict[int, Leg] = {}
        outcomes: dict[int, ChildResult] = {}
        for n in np.flatnonzero(ids >= 0).tolist():
            try:
                if proposal.fidelity is not None:
                    legs[n] = _leg(int(epochs[n]), parents[n], inherited or {})
                builts[n] = build(archs[n])
            except ValueError as error:
                outcomes[n] = ChildResult(0.0, error=str(error))

        def inherited_init(n: int) -> Callable[[Any], tuple[Any, float]] | None:
            left = (inherited or {}).get(parents[n])
            if inherit is None or left is None:
                return None
            return lambda fresh: inherit(builts[n], build(left["arch"]), fresh, left["variables"])

        children = [Child(int(ids[n]), archs[n], builts[n], inherited_init(n), legs.get(n)) for n in builts]
        outcomes |= zip(builts, train(key, children, len(ids)), strict=True)
        evaluation = _evaluation(ids, builts, outcomes, recipe.epochs, last_epochs, task, epochs)
        if inherit is not None:
            shares = np.array([outcomes[n].inherited if n in outcomes else 0.0 for n in range(len(ids))], np.float32)
            evaluation.info["inherited"] = shares
        return evaluation, _artifacts(ids, archs, outcomes) if keep_weights else None

    return Evaluator(evaluate)


def _epochs(proposal: Proposal, recipe: Recipe, side_by_side: bool) -> np.ndarray:
    """i32[N], the epochs that each is trained for in all. Raises ValueError for what the recipe has not."""
    ids = np.asarray(proposal.id)
    if proposal.fidelity is None:
        return np.full(len(ids), recipe.epochs, np.int32)
    if side_by_side:
        raise ValueError("children of one program are trained for the same epochs; use strategy=exact, parts or path")
    epochs = np.asarray(proposal.fidelity)
    if wrong := [int(n) for n in epochs[ids >= 0] if not 1 <= n <= recipe.epochs]:
        raise ValueError(f"a child can be trained for 1 to {recipe.epochs} epochs (recipe.epochs), not for {wrong[0]}")
    return epochs


def _leg(epochs: int, parent: int, inherited: Any) -> Leg:
    """A child's part of a training. Raises ValueError where what it should go on from is not there."""
    if parent < 0:
        return Leg(epochs)
    if "training" not in inherited.get(parent, {}):
        raise ValueError(f"the training of trial {parent}, which this one takes on, was not kept")
    return Leg(epochs, inherited[parent]["training"])


def _evaluation(
    ids: np.ndarray,
    builts: dict[int, Built],
    outcomes: dict[int, ChildResult],
    epochs: int,
    last_epochs: int,
    task: Task,
    fidelity: np.ndarray | None = None,
) -> Evaluation:
    n, sign = len(ids), task.metric.sign
    trained = np.full(n, epochs) if fidelity is None else fidelity
    fitness, cost, loss = (np.full(n, fill, np.float32) for fill in (np.nan, 0, np.nan))
    curves = np.full((n, epochs), np.nan, np.float32)
    status = np.full(n, Status.OK, np.int8)
    errors = [""] * n
    for i, outcome in outcomes.items():
        cost[i], errors[i] = outcome.seconds, outcome.error
        if outcome.curves is not None:
            done = int(outcome.curves.nan_epoch) or int(trained[i])
            curves[i, :done] = outcome.curves.valid_metric[:done]
            loss[i] = outcome.curves.train_loss[done - 1]
            if outcome.curves.nan_epoch:
                errors[i] = f"loss became NaN in epoch {done}"
                curves[i, done - 1] = np.nan
        if errors[i]:
            status[i] = Status.FAILED
        else:
            fitness[i] = (sign * curves[i, : trained[i]][-last_epochs:]).max()
    counts = {name: np.zeros(n, np.int64) for name in ("params", "macs")}
    for i, built in builts.items():
        counts["params"][i], counts["macs"][i] = built.params, built.macs
    info = {**counts, "train_loss": loss, "valid_curve": curves, "error": errors}
    return Evaluation(fitness, cost, status, info)


def _artifacts(ids: np.ndarray, archs: np.ndarray, outcomes: dict[int, ChildResult]) -> dict[int, Any]:
    return {
        int(ids[i]): {
            "arch": archs[i],
            "variables": outcome.variables,
            **({} if outcome.left is None else {"training": outcome.left}),
        }
        for i, outcome in outcomes.items()
        if outcome.curves is not None and not outcome.curves.nan_epoch
    }
