"""A training in several legs: to a number of epochs, and from there on, with the same bits as at once on a CPU.

What a leg leaves behind is the whole training state (weights, running statistics, optimiser, curves, step) and the
number of the trial whose random streams the training uses. The schedule is that of the whole recipe: a training that
ends early is one that was stopped, at the learning rate that it had then.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nasjax.train import underway
from nasjax.train.recipe import Recipe
from nasjax.types import PyTree


class Leg(NamedTuple):
    """The part of a child's training that is done now."""

    epochs: int  # it ends after so many in all
    left: dict[str, Any] | None = None  # `left_behind` by the leg before; None = it begins the training
    underway: dict[str, Any] | None = None  # by this one, where it was interrupted


def origin(leg: Leg | None, trial: int) -> int:
    """The trial whose random streams a training uses: the one that began it."""
    return trial if leg is None or leg.left is None else int(leg.left["origin"])


def begun(fresh: PyTree, leg: Leg | None) -> PyTree:
    """The training state to go on from; `fresh` is that before the first step.

    Raises:
      ValueError: the state that was left is of another network or recipe.
    """
    if leg is None:
        return fresh
    if leg.underway is not None:
        try:
            return underway.restored(fresh, leg.underway)
        except ValueError:  # a plugin's file was changed: this one begins again
            pass
    return fresh if leg.left is None else underway.restored(fresh, leg.left)


def end_step(leg: Leg | None, recipe: Recipe, epoch_steps: int, steps: int) -> int:
    """The step before which the leg ends, of `steps` in the whole training (`refresh_epochs` included)."""
    return steps if leg is None or leg.epochs >= recipe.epochs else leg.epochs * epoch_steps


def left_behind(state: PyTree, trial: int) -> dict[str, Any]:
    """What a later leg needs of a training state, as nested dicts of arrays; `trial` is the one that began it."""
    return {"origin": np.int32(trial), **underway.stored(state)}
