"""Strategy `path`: children train one after the other through one program, to which the architecture is data.

Unlike in `vmap` the network branches at run time, so that a child costs what its own operators cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from nasjax.evaluators.children import Child, ChildResult, Train, train_child
from nasjax.evaluators.legs import Leg
from nasjax.evaluators.path_training import path_fit
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data
from nasjax.types import Key, Masked, Network, PyTree, Signature, Task


def pathed(
    masked: Masked,
    data: Data,
    signature: Signature,
    task: Task,
    recipe: Recipe,
    *,
    keep_weights: bool = False,
    continued: bool = False,
) -> Train:
    """Trains children of a network whose architectures have equal shapes. Arguments as of `child_vmap.vmapped`.

    Returns:
      train(key, children, width) -> results of `train_child`, compiled once; the first child waits for that.
    """
    network = masked.network(0, bn_eps=recipe.bn_eps, dtype=recipe.dtype)

    train_path = path_fit(network, data, task, recipe)

    def one(key: Key, child: Child) -> ChildResult:
        def fit(
            key: Key, network: Network, variables: PyTree, rate: float, leg: Leg | None
        ) -> tuple[Any, Callable[[Any], PyTree]]:
            state, train = train_path(key, variables, jnp.asarray(child.arch, jnp.int32), rate, leg)
            return state, lambda state: masked.pack(child.arch, train.variables(state), 0)

        whole = child._replace(built=child.built._replace(network=lambda **_: network))
        return train_child(key, whole, signature, recipe, fit, keep_weights=keep_weights, continued=continued)

    def train(key: Key, children: Sequence[Child], width: int) -> list[ChildResult]:
        return [one(key, child) for child in children]

    return train
