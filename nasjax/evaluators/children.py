"""What the strategies of the population trainer have in common: child records, training results, initialisation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.evaluators import legs
from nasjax.evaluators.legs import Leg
from nasjax.train import activity, underway
from nasjax.train.recipe import Recipe
from nasjax.train.step import example
from nasjax.types import Built, Key, Network, PyTree, Signature, one_line


class Child(NamedTuple):
    """One child to train."""

    id: int
    arch: np.ndarray  # i32[S]
    built: Built
    # its initial variables -> those with the parent's weights, and the part of all weights that are; None = no parent
    inherit: Callable[[PyTree], tuple[PyTree, float]] | None = None
    leg: Leg | None = None  # the part of the training that is done now; None = all of it


class Curves(NamedTuple):
    """The fields of a training state that describe the training, on the host."""

    train_loss: Any  # f32[epochs]
    valid_metric: Any  # f32[epochs]
    nan_epoch: Any  # i32


class ChildResult(NamedTuple):
    """The result of one child."""

    seconds: float
    curves: Curves | None = None  # None: it raised
    variables: PyTree = None  # where they are kept
    error: str = ""  # one line; "" = none
    inherited: float = 0.0  # fraction of all weights that were inherited
    left: dict[str, Any] | None = None  # of `legs`, where a training may go on


# train(key, children, width) -> outcomes; `width` is the largest number of children: compiled shapes follow it, so that
# a round in which some are refused compiles nothing new.
Train = Callable[[Key, Sequence[Child], int], list[ChildResult]]
# fit(key, network, variables, initial rate, leg) -> the training state at the end, and what takes its variables out
Fit = Callable[[Key, Network, PyTree, float, Leg | None], tuple[Any, Callable[[Any], PyTree]]]


def train_child(
    key: Key, child: Child, signature: Signature, recipe: Recipe, fit: Fit, *, keep_weights: bool, continued: bool
) -> ChildResult:
    """The result of training a child by `fit`; it depends on fold_in(key, id), its architecture and its parent.

    A training that goes on uses the id of the child that began it. `continued`: leave what a later leg needs.
    """
    name = underway.name(key, [child.id], [child.arch])
    kept = underway.kept(name)
    before, leg = 0.0, child.leg
    if kept is not None and "result" in kept:
        return _outcome(kept["result"])
    if kept is not None:
        before = float(kept["seconds"])
        leg = (leg or Leg(recipe.epochs))._replace(underway=kept)
    began, watch = time.monotonic(), activity.Stopwatch()
    activity.doing(f"trial {child.id}")
    try:
        stream = legs.origin(child.leg, child.id)
        key_init, key_train = jax.random.split(jax.random.fold_in(key, stream))
        network = network_of(child.built, recipe)
        variables, inherited = _initialise(key_init, network, child, signature)
        rate = child.built.learning_rate or recipe.learning_rate

        def form(state: PyTree) -> underway.Tree:
            return {**legs.left_behind(state, stream), "seconds": np.float64(before + time.monotonic() - began)}

        with underway.training(name, form):
            state, variables_of = fit(key_train, network, variables, rate, leg)
        curves = Curves(state.train_loss, state.valid_metric, state.nan_epoch)
        curves, trained = jax.device_get((curves, variables_of(state) if keep_weights else None))
        curves, trained = jax.tree.map(np.asarray, (curves, trained))
        ends = child.leg is None or child.leg.epochs >= recipe.epochs
        left = legs.left_behind(state, stream) if continued and not ends else None
        seconds = underway.uncounted(before) + time.monotonic() - began
        result = ChildResult(seconds, curves, trained, inherited=inherited, left=left)
        underway.ended(name, lambda: kept_form(result))
        return result
    except Exception as error:  # a child that cannot be trained is a result, not the end of the search
        return ChildResult(time.monotonic() - began, error=one_line(error))
    finally:
        watch.trained(1, goes_on=child.leg is not None and child.leg.left is not None)


def kept_form(result: ChildResult) -> underway.Tree:
    """The result of a child that was trained, for `underway`."""
    assert result.curves is not None
    parts = {"curves": result.curves._asdict(), "variables": result.variables, "left": result.left}
    numbers = {"seconds": np.float64(result.seconds), "inherited": np.float64(result.inherited)}
    return {"result": {**numbers, **{name: part for name, part in parts.items() if part is not None}}}


def _outcome(tree: underway.Tree) -> ChildResult:
    """The inverse of `kept_form`."""
    return ChildResult(
        underway.uncounted(float(tree["seconds"])),
        Curves(**tree["curves"]),
        tree.get("variables"),
        inherited=float(tree["inherited"]),
        left=tree.get("left"),
    )


def ended_before(key: Key, child: Child) -> ChildResult | None:
    """The result of a child whose training an earlier attempt has ended."""
    kept = underway.kept(underway.name(key, [child.id], [child.arch]))
    return None if kept is None or "result" not in kept else _outcome(kept["result"])


def _initialise(key: Key, network: Network, child: Child, signature: Signature) -> tuple[PyTree, float]:
    """A child's variables before its training, and the fraction of its weights that it inherits."""
    variables = network.init(key, None, example(network, signature))
    return (variables, 0.0) if child.inherit is None else child.inherit(variables)


def network_of(built: Built, recipe: Recipe) -> Network:
    """The network with the recipe's settings."""
    return built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
