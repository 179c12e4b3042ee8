"""One forward and one backward pass of an untrained network, part by part where it has parts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.ops.parts import part_of, with_part
from nasjax.train.passes import KEPT, gradients, now, parts_of, record
from nasjax.types import Network, Part, PyTree, carries_state

_CHOICE = "choice of the score"  # among the variables, as no gradient by it is wanted and it may hold integers
_GIVEN = "given"  # the value that stands for the images where the gradient by them is wanted


def by_weights(
    network: Network,
    variables: PyTree,
    choice: Any,
    x: PyTree,
    slope: Callable[[PyTree], PyTree],
    *,
    train: bool = True,
) -> PyTree:
    """The gradient by "params" of a scalar function of the outputs.

    Args:
      network, variables, choice, x: a network and what it reads, [N, ...].
      slope: outputs -> the gradient of the scalar by them.
      train: whether batch norm uses the statistics of the batch; nothing is drawn at random in either mode.

    Returns:
      A tree like variables["params"].
    """
    parts = [part._replace(apply=_fixed(part.apply, train)) for part in parts_of(network)]
    found = _run(parts, variables, choice, x, slope)
    tree: PyTree = {"params": {}}
    for part, one in zip(parts, found, strict=True):
        tree = with_part(tree, part, {"params": one} if one else {})
    return tree["params"]


def by_images(network: Network, variables: PyTree, choice: Any, x: PyTree, slope: Callable[[PyTree], PyTree]) -> PyTree:
    """The gradient by x, in training mode. Arguments as of `by_weights`; the images are the weights of a first part."""
    parts = [Part((_GIVEN,), _weights, (), (_GIVEN,), lambda choice: None)]
    for part in parts_of(network):
        reads = tuple(_GIVEN if name == "x" else name for name in part.reads)
        parts.append(part._replace(apply=_fixed(part.apply, True), reads=reads))
    given = {**variables, "params": {**variables.get("params", {}), _GIVEN: {"x": x}}}
    return _run(parts, given, choice, x, slope)[0]["x"]


def layers(params: PyTree) -> list[jax.Array]:
    """The weights of a network's layers: parameters with two axes or more, so no scales, shifts or biases."""
    return [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]


def require_numbers(network: Network, x: PyTree, score: str) -> None:
    """Raises ValueError where a network reads words, or carries a state from one step to the next."""
    numbers = all(jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) for leaf in jax.tree.leaves(x))
    if carries_state(network.carry) or not numbers:
        raise ValueError(f"{score} is for networks of images; this one reads words or carries a state: leave it out")


def _run(
    parts: list[Part], variables: PyTree, choice: Any, x: PyTree, slope: Callable[[PyTree], PyTree]
) -> list[PyTree]:
    """Each part's gradient by its params."""
    own = [{**part_of(variables, part), _CHOICE: part.pick(choice)} for part in parts]
    nothing = [None] * len(parts)
    outputs, pulls, _ = record(parts, own, nothing, jax.random.key(0), None, x, now)
    return [by_params for by_params, _ in gradients(parts, pulls, {"y": slope(outputs)}, now)]


@functools.lru_cache(maxsize=KEPT)  # equal parts stay equal, and so are compiled once
def _fixed(apply: Callable[..., Any], train: bool) -> Callable[..., Any]:
    """`apply` in one mode, without dropout, with its choice among the variables."""

    def run(variables: PyTree, choice: Any, inputs: PyTree, **unused: Any) -> tuple[PyTree, PyTree]:
        own = {name: tree for name, tree in variables.items() if name != _CHOICE}
        return apply(own, variables[_CHOICE], inputs, train=train)[0], {}

    return run


def _weights(variables: PyTree, choice: Any, inputs: PyTree, **unused: Any) -> tuple[PyTree, PyTree]:
    return (variables["params"]["x"],), {}
