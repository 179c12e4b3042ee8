"""Synaptic flow: how much passes through an untrained network's weights, without any data.

Tanaka et al. 2020 (arXiv:2006.05467), equation 3; as a score of architectures Abdelfattah et al. 2021
(arXiv:2101.08134) and its code: absolute weights, an image of ones, no batch norm. Cavagnero et al. 2023, "FreeREA"
(arXiv:2207.05135): LogSynflow, whose gradients are compressed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.scores.backward import by_weights, layers, require_numbers
from nasjax.types import Network, PyTree


def synflow(network: Network, variables: PyTree, choice: Any, x: PyTree) -> float:
    """The sum of w * dR/dw over the weights of all layers; R is the sum of the outputs.

    R is that of absolute parameters, an image of ones, and batch norms with the running statistics of `variables`,
    which leave everything as it is before any training. All is computed in float64: the values of deep networks are
    beyond float32. They span dozens of orders of magnitude, so compare ranks, or logarithms.

    Args:
      network, variables, choice: an untrained network.
      x: [N, H, W, C] as it receives images; only the shape of one counts.

    Returns:
      0 or more, without unit; 0 where the outputs do not depend on the images.

    Raises:
      ValueError: the network reads words or carries a state, or its flow is beyond float64.

    Example:
      >>> variables = network.init(jax.random.key(0), None, x)  # doctest: +SKIP
      >>> synflow(network, variables, None, x)  # doctest: +SKIP
    """
    return _flow(network, variables, choice, x, "synflow")["synflow"]


def logsynflow(network: Network, variables: PyTree, choice: Any, x: PyTree) -> float:
    """The sum of w * log(1 + dR/dw), FreeREA's; the rest as of `synflow`. (It is not the logarithm of `synflow`.)"""
    return _flow(network, variables, choice, x, "logsynflow")["logsynflow"]


def flows(network: Network, variables: PyTree, choice: Any, x: PyTree) -> dict[str, float]:
    """Both, of one pass."""
    return _flow(network, variables, choice, x, "synflow")


def _flow(network: Network, variables: PyTree, choice: Any, x: PyTree, name: str) -> dict[str, float]:
    require_numbers(network, x, name)
    with jax.enable_x64(True):
        ones = jax.tree.map(lambda leaf: jnp.ones((1, *np.shape(leaf)[1:]), jnp.float64), x)
        given: PyTree = jax.tree.map(_double, variables)
        params = jax.tree.map(jnp.abs, given.get("params", {}))
        given = {**given, "params": params}
        found = by_weights(network, given, choice, ones, lambda y: jax.tree.map(jnp.ones_like, y), train=False)
        pairs = [(np.asarray(w), np.asarray(g)) for w, g in zip(layers(params), layers(found), strict=True)]
    with np.errstate(over="ignore", invalid="ignore"):
        plain = float(sum((w * np.abs(g)).sum() for w, g in pairs))
    if not np.isfinite(plain):
        raise ValueError(f"{name} of this network is beyond the numbers of float64: leave it out")
    return {"synflow": plain, "logsynflow": float(sum((w * np.log1p(np.abs(g))).sum() for w, g in pairs))}


def _double(leaf: Any) -> jax.Array:
    value = np.asarray(leaf)
    return jnp.asarray(value, jnp.float64 if np.issubdtype(value.dtype, np.floating) else value.dtype)
