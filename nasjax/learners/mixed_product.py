"""Products with second derivatives of the loss: by weights and mixing weights, and by mixing weights twice.

The first is what the second-order architecture gradient needs (Liu et al. 2019, DARTS, equation 7); the second tells
how sharp the validation loss is (Zela et al. 2020, arXiv:1909.09656, section 4).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.descent import inner
from nasjax.ops.parts import part_of
from nasjax.train.objective import Objective
from nasjax.train.parallel import data_parallel_piece, mean, split
from nasjax.train.passes import (
    KEPT,
    Call,
    accumulate,
    choices,
    end,
    execution,
    gradients,
    parts_of,
    record,
)
from nasjax.types import Network, PyTree


def mixed_product(network: Network, objective: Objective, devices: int | None = None) -> Callable[..., PyTree]:
    """product(params, batch_stats, choice, key, drop_rate, v, (x, y)) -> d <d loss / d params, v> / d choice.

    v has the form of params.
    """
    return _product(
        network, objective, devices, lambda v, pick, part, i: part_of({"params": v}, part).get("params", {}), 0
    )


def choice_product(network: Network, objective: Objective, devices: int | None = None) -> Callable[..., PyTree]:
    """product(params, batch_stats, choice, key, drop_rate, v, (x, y)) -> d <d loss / d choice, v> / d choice.

    v has the form of choice.
    """
    return _product(network, objective, devices, lambda v, pick, part, i: pick(v)[i], 1)


def _product(
    network: Network, objective: Objective, devices: int | None, own_along: Callable[..., PyTree], by: int
) -> Any:
    """own_along(v, pick, part, i) -> v of part i, along its params (`by` = 0) or its choice (1).

    This is reverse mode over reverse mode, because the hand-written convolutions have no forward-mode derivative. The
    backward pass of a backward pass runs forward through the parts. A slope is the gradient by a value; the gradient by
    that slope is the change of the value along v.
    """
    parts, execute = parts_of(network), execution(network, devices)
    pick, unpick = choices(parts)

    def run(
        params: PyTree, batch_stats: PyTree, choice: PyTree, key: jax.Array, drop_rate: Any, v: PyTree, batch: PyTree
    ) -> PyTree:
        x, targets = split(batch, devices)
        variables, own_choices = {"params": params, "batch_stats": batch_stats}, pick(choice)
        own = [part_of(variables, part) for part in parts]

        def walk(call: Call) -> tuple[list[PyTree], list[PyTree]]:
            inputs: list[PyTree] = []
            slopes: dict[int, PyTree] = {}
            outputs, pulls, _ = record(parts, own, own_choices, key, drop_rate, x, call, devices, seen=inputs)
            slope = call(end(objective, devices), (outputs, targets))[1]
            gradients(parts, list(pulls), {"y": slope}, call, devices, slopes)
            changes: dict[str, PyTree] = {"x": x * 0}  # the images do not change
            again: dict[str, PyTree] = {}
            direct = []
            for i, part in enumerate(parts):
                along = own_along(v, pick, part, i)
                local = (inputs[i], slopes[i], tuple(changes[name] for name in part.reads))
                second = (own[i], own_choices[i], key, np.int32(i), drop_rate, along, local)
                one, (by_inputs, by_slopes) = call(_second(part.apply, devices, by), *second)
                direct.append(one)
                accumulate(again, part.reads, by_inputs, call)
                changes |= zip(part.writes, by_slopes, strict=True)
            again["y"] = call(_end_second(objective, devices), (outputs, targets, changes["y"]))[1]
            return direct, gradients(parts, pulls, again, call, devices)

        direct, indirect = execute(walk)
        return unpick(choice, tuple(_add(a, b) for a, (_, b) in zip(direct, indirect, strict=True)))

    return run


@functools.lru_cache(maxsize=KEPT)
def _second(apply: Callable[..., Any], devices: int | None, by: int) -> Callable[..., Any]:
    """The gradient of <gradient by params or choice, v> + <gradient by inputs, changes of inputs> of a backward pass.

    (variables, choice, key, i, drop_rate, v, (inputs, slopes, changes)) -> by choice, by (inputs, slopes)
    """

    def second(
        variables: PyTree, choice: PyTree, key: jax.Array, i: jax.Array, drop_rate: Any, v: PyTree, local: PyTree
    ) -> tuple[PyTree, PyTree]:
        inputs, slopes, changes = local
        own, rate = jax.random.fold_in(key, i), 0.0 if drop_rate is None else drop_rate
        params = variables.get("params", {})

        def way_back(choice: PyTree, inputs: PyTree, slopes: PyTree) -> jax.Array:
            def run(along: PyTree, inputs: PyTree) -> PyTree:
                variables_of = {**variables, "params": params if by else along}
                return apply(variables_of, along if by else choice, inputs, key=own, train=True, drop_rate=rate)[0]

            by_along, by_inputs = jax.vjp(run, choice if by else params, inputs)[1](slopes)
            return inner((by_along, by_inputs), (v, changes))

        by_choice, by_inputs, by_slopes = jax.grad(way_back, (0, 1, 2))(choice, inputs, slopes)
        return mean(by_choice), (by_inputs, by_slopes)

    return data_parallel_piece(second, devices)


@functools.lru_cache(maxsize=32)
def _end_second(objective: Objective, devices: int | None) -> Callable[..., Any]:
    """((outputs, targets, change of outputs)) -> (), gradient by outputs of <the loss's gradient, change>."""

    def run(own: PyTree) -> tuple[PyTree, PyTree]:
        outputs, targets, change = own
        slope = jax.grad(lambda outputs: objective.loss(outputs, targets))
        return (), jax.grad(lambda outputs: inner(slope(outputs), change))(outputs)

    return data_parallel_piece(run, devices)


_add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b))
