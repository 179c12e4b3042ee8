"""Strategy `parts`: children train one after the other, part by part; a network of known parts compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from nasjax.evaluators import legs
from nasjax.evaluators.children import Child, ChildResult, Train, train_child
from nasjax.evaluators.legs import Leg
from nasjax.train.by_parts import by_parts
from nasjax.train.fit import advance
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data
from nasjax.types import Key, Network, PyTree, Signature, Task


def parted(
    data: Data, signature: Signature, task: Task, recipe: Recipe, *, keep_weights: bool = False, continued: bool = False
) -> Train:
    """Trains children whose networks have `parts`. Arguments as of `exact`.

    Returns:
      train(key, children, width) -> results of `train_child`. A child's seconds include the compilation of parts
      that no earlier child had.
    """

    def fit(
        key: Key, network: Network, variables: PyTree, rate: float, leg: Leg | None
    ) -> tuple[Any, Callable[[Any], PyTree]]:
        train = by_parts(network, recipe, len(data.train_y), task)
        state = legs.begun(train.start(variables), leg)
        end = legs.end_step(leg, recipe, train.epoch_steps, train.steps)
        return advance(train.run, key, state, None, jnp.float32(rate), data, int(state.step), end), train.variables

    def train(key: Key, children: Sequence[Child], width: int) -> list[ChildResult]:
        options = {"keep_weights": keep_weights, "continued": continued}
        return [train_child(key, child, signature, recipe, fit, **options) for child in children]

    return train
