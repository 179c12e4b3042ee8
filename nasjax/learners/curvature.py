"""How sharp the validation loss is in the architecture: the dominant eigenvalue of its Hessian.

Zela et al. 2020, "Understanding and Robustifying Differentiable Architecture Search" (arXiv:1909.09656), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from nasjax.learners.bilevel import Relaxation
from nasjax.learners.descent import inner
from nasjax.learners.mixed_product import choice_product
from nasjax.train.compiling import jit
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.passes import gradient_pass
from nasjax.types import Key, Network, PyTree

Times = Callable[[Any], jax.Array]  # v f[n] -> a matrix times v


def hessian_product(
    network: Network, relaxation: Relaxation, objective: Objective = CLASSIFICATION, devices: int | None = None
) -> Callable[..., Times]:
    """product(params, batch_stats, alpha, (x, y)) -> v -> H v, for the Hessian H of the loss by alpha at fixed params.

    v and H v are f32[n], the entries of alpha in the order of `ravel_pytree`. H is exact: of the choice by automatic
    differentiation of the backward pass, and from there to alpha through the relaxation's first and second
    derivative. The relaxation draws nothing, batch norm uses the batch's statistics, nothing is dropped. Weight decay
    of alpha is not counted.
    """
    gradients, second = gradient_pass(network, objective, devices), choice_product(network, objective, devices)

    def choice_of(alpha: PyTree) -> PyTree:
        return relaxation.choice(alpha, None, 0)

    def forward(alpha: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
        return jax.jvp(choice_of, (alpha,), (v,))

    @jit
    def back(alpha: PyTree, v: PyTree, slope: PyTree, change: PyTree) -> jax.Array:
        """From d loss / d choice and its change along v."""
        bent = jax.grad(lambda alpha: inner(slope, forward(alpha, v)[1]))(alpha)
        (direct,) = jax.vjp(choice_of, alpha)[1](change)
        return ravel_pytree(jax.tree.map(jnp.add, bent, direct))[0]

    along = jit(forward)

    def product(params: PyTree, batch_stats: PyTree, alpha: PyTree, batch: PyTree) -> Times:
        key = jax.random.key(0)  # nothing is drawn
        unravel = ravel_pytree(alpha)[1]
        choice = choice_of(alpha)
        slope = gradients(params, batch_stats, choice, key, None, batch).choice

        def times(v: Any) -> jax.Array:
            direction = unravel(jnp.asarray(v, ravel_pytree(alpha)[0].dtype))
            change = second(params, batch_stats, choice, key, None, along(alpha, direction)[1], batch)
            return back(alpha, direction, slope, change)

        return times

    return product


def largest_eigenvalue(times: Times, size: int, steps: int, key: Key) -> float:
    """The largest eigenvalue of a symmetric matrix by Lanczos's method, every vector made orthogonal to all before.

    Args:
      times: v f[n] -> H v.
      size: n; with as many steps the value is exact.
      steps: products taken; the value never exceeds the true one.
      key: of the vector to begin with.

    Returns:
      The eigenvalue, NaN where a product was not finite.
    """
    v = np.asarray(jax.random.normal(key, (size,)), np.float64)
    basis: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    for _ in range(min(steps, size)):
        length = np.linalg.norm(v)
        if basis and length < 1e-6 * max(1.0, float(np.abs(rows[-1]).max())):  # the rest of the space is not reached
            break
        basis.append(v / length)
        product = np.asarray(times(basis[-1]), np.float64)
        if not np.isfinite(product).all():
            return float("nan")
        rows.append(product)
        v = product
        for _ in range(2):  # twice: once leaves rounding errors of the size of the products
            for b in basis:
                v = v - (b @ v) * b
    small = np.stack(basis) @ np.stack(rows).T
    return float(np.linalg.eigvalsh((small + small.T) / 2)[-1])
