"""A training in several legs: to a number of epochs, and from there on, with the same bits as at once on a CPU.

What a leg leaves behind is the whole training state (weights, running statistics, optimiser, curves, step) and the
number of the trial whose random streams the training uses. The schedule is that of the whole recipe: a training that
ends early is one that was stopped, at the learning rate that it had then.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.train.recipe import Recipe
from nasjax.types import PyTree


class Leg(NamedTuple):
    """The part of a child's training that is done now."""

    epochs: int  # it ends after so many in all
    left: dict[str, Any] | None = None  # `left_behind` by the leg before; None = it begins the training


def origin(leg: Leg | None, trial: int) -> int:
    """The trial whose random streams a training uses: the one that began it."""
    return trial if leg is None or leg.left is None else int(leg.left["origin"])


def begun(fresh: PyTree, leg: Leg | None) -> PyTree:
    """The training state to go on from; `fresh` is that before the first step.

    Raises:
      ValueError: the state that was left is of another network or recipe.
    """
    if leg is None or leg.left is None:
        return fresh
    leaves, tree = jax.tree.flatten(fresh)
    left = leg.left["state"]
    kept = [np.asarray(left[str(n)]) for n in range(len(left))]
    kept = [x.view(leaf.dtype) if x.dtype.kind == "V" else x for x, leaf in zip(kept, leaves, strict=False)]
    if [(x.shape, x.dtype) for x in kept] != [(np.shape(leaf), leaf.dtype) for leaf in leaves]:
        raise ValueError("the training that is to go on is of another network or recipe")
    # No buffer twice and none of the host's: a step consumes the state.
    on_device = [
        jax.device_put(x, may_alias=False) if isinstance(leaf, jax.Array) else x
        for x, leaf in zip(kept, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, on_device)


def end_step(leg: Leg | None, recipe: Recipe, epoch_steps: int, steps: int) -> int:
    """The step before which the leg ends, of `steps` in the whole training (`refresh_epochs` included)."""
    return steps if leg is None or leg.epochs >= recipe.epochs else leg.epochs * epoch_steps


def left_behind(state: PyTree, trial: int) -> dict[str, Any]:
    """What a later leg needs of a training state, as nested dicts of arrays; `trial` is the one that began it."""
    leaves = jax.device_get(jax.tree.leaves(state))
    return {"origin": np.int32(trial), "state": {str(n): np.asarray(leaf) for n, leaf in enumerate(leaves)}}
