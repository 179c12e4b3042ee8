"""Parameters and multiply-adds of any network, read off its shapes and its jaxpr; nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from nasjax.types import Network, PyTree


def count(network: Network, x: PyTree) -> tuple[int, int, PyTree]:
    """Counts a network on a batch of one sample.

    Args:
      network: its `choice` is None.
      x: the sample, see `train.step.example`.

    Returns:
      Parameters; multiply-adds of dot products and convolutions in one forward pass (a loop whose length is not known
      counts once, of several branches the most expensive); and the shapes of the outputs.
    """
    variables = jax.eval_shape(lambda key, x: network.init(key, None, x), jax.random.key(0), x)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    apply: Callable[..., Any] = lambda variables, x: network.apply(variables, None, x)[0]  # noqa: E731
    jaxpr, outputs = jax.make_jaxpr(apply, return_shape=True)(variables, x)
    return params, macs_of(jaxpr.jaxpr), outputs


def macs_of(jaxpr: core.Jaxpr) -> int:
    """Multiply-adds of the dot products and convolutions in a jaxpr, inner ones included."""
    return sum(_macs(equation) for equation in jaxpr.eqns)


def _macs(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        lhs = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(lhs[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_feature = params["dimension_numbers"].rhs_spec[0]
        taps = math.prod(size for axis, size in enumerate(kernel) if axis != out_feature)
        return math.prod(equation.outvars[0].aval.shape) * taps
    inner = [macs_of(part) for value in params.values() for part in _jaxprs(value)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in _jaxprs(item)]
    return []
