"""Gradients of the validation loss with respect to the architecture: three answers to the inner problem.

Liu et al. 2019, "DARTS: Differentiable Architecture Search" (arXiv:1806.09055), section 2.3, equations 6 to 8. With
w* taken as w' = w - xi * (SGD's step on the training batch), the gradient is

  d L_val(w', alpha) / d alpha  -  xi * d <d L_train(w, alpha) / dw, v> / d alpha,    v = d L_val(w', alpha) / dw'.

Every function takes a `Problem` and returns (the pass over the validation batch, the gradient by the mixing weights).
The learner applies the chain rule through the relaxation (a softmax) afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasjax.learners.descent import inner
from nasjax.train.passes import Pass
from nasjax.types import PyTree


class Problem(NamedTuple):
    """One bilevel step, at fixed mixing weights."""

    gradients: Callable[[PyTree, Any], Pass]  # (params, batch)
    mixed: Callable[[PyTree, PyTree, Any], PyTree]  # (params, v, batch) -> d <d loss / d params, v> / d choice
    look_ahead: Callable[[PyTree], PyTree]  # gradient on the training batch -> w'
    params: PyTree  # w
    rate: Any  # xi, the current learning rate of the weights
    train: Any  # the batch of the coming weight step
    val: Any


ArchitectureGradient = Callable[[Problem], tuple[Pass, PyTree]]


def first_order(problem: Problem) -> tuple[Pass, PyTree]:
    """xi = 0: w* = w. One pass."""
    at = problem.gradients(problem.params, problem.val)
    return at, at.choice


def second_order_difference(problem: Problem) -> tuple[Pass, PyTree]:
    """As in the paper: the mixed product by a central difference of step 0.01 / ||v||_2 in w. Four passes."""
    ahead = problem.look_ahead(problem.gradients(problem.params, problem.train).params)
    at = problem.gradients(ahead, problem.val)
    product = mixed_difference(lambda w: problem.gradients(w, problem.train).choice, problem.params, at.params)
    return at, _corrected(at.choice, product, problem.rate)


def second_order_exact(problem: Problem) -> tuple[Pass, PyTree]:
    """The mixed product by automatic differentiation. Two passes and one reverse-over-reverse pass."""
    ahead = problem.look_ahead(problem.gradients(problem.params, problem.train).params)
    at = problem.gradients(ahead, problem.val)
    return at, _corrected(at.choice, problem.mixed(problem.params, at.params, problem.train), problem.rate)


def mixed_difference(gradient: Callable[[PyTree], PyTree], params: PyTree, v: PyTree, length: float = 0.01) -> PyTree:
    """d <d loss / d params, v> / d choice by a central difference of step length / ||v||_2 in the weights.

    Args:
      gradient: of the loss by the choice, at given weights.
      params: the weights w.
      v: a direction in them.
      length: of the step w -> w + eps v, as a norm; the paper's is 0.01.
    """
    eps, plus, minus = _around(params, v, length)
    return _quotient(gradient(plus), gradient(minus), eps)


@jax.jit
def _around(params: PyTree, v: PyTree, length: float) -> tuple[jax.Array, PyTree, PyTree]:
    """eps, w + eps v and w - eps v."""
    eps = length / jnp.sqrt(inner(v, v))

    def shifted(step: jax.Array) -> PyTree:
        return jax.tree.map(lambda p, d: p + step * d, params, v)

    return eps, shifted(eps), shifted(-eps)


@jax.jit
def _quotient(plus: PyTree, minus: PyTree, eps: jax.Array) -> PyTree:
    return jax.tree.map(lambda p, m: (p - m) / (2 * eps), plus, minus)


@jax.jit
def _corrected(gradient: PyTree, product: PyTree, rate: Any) -> PyTree:
    return jax.tree.map(lambda g, p: g - rate * p, gradient, product)
