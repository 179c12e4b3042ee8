"""A layer of recurrent cells over a window of time, with a backward pass of its own.

The products of the input, for all steps, are one matrix product before the loop; the gradient of the recurrent matrices
is one after it, where automatic differentiation would add one product in every step. The backward pass stores the
products and the states, [T, B, 2 P H + 2 H] numbers, and recomputes the step itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.nets.cell_tree.cell import Step
from nasjax.nets.numerics import cast, precision
from nasjax.types import PyTree

State = tuple[jax.Array, jax.Array]  # c, h, as in Flax: [B, H] each


def layer(
    step: Step,
    weights: PyTree,
    choice: Any,
    x: jax.Array,
    state: State,
    mask: jax.Array | None = None,
    *,
    dtype: str = "float32",
) -> tuple[jax.Array, State]:
    """One layer over T steps.

    Args:
      step: of `nets.cell_tree.cell`.
      weights: {"kernel" [E, P H], "recurrent_kernel" [H, P H]} and perhaps {"bias" [P H]}, which is added to the
        recurrent products. Columns k H..(k + 1) H - 1 belong to product k.
      choice: of the step; may be traced and vmapped, as may everything else.
      x: [T, B, E].
      state: before the first step.
      mask: [B, H], multiplies h_{t-1} where the cell multiplies it (recurrent dropout); None = 1.
      dtype: of the matrix products, "float32", "tf32" or "bfloat16".

    Returns:
      h of every step [T, B, H], and the state after the last.
    """
    hidden = weights["recurrent_kernel"].shape[0]
    u = _split(dot(dtype, x, weights["kernel"]), hidden)
    return _unroll(step, dtype, choice, weights["recurrent_kernel"], weights.get("bias"), u, state, mask)


def one_step(step: Step, weights: PyTree, x: jax.Array, state: State, *, dtype: str = "float32") -> State:
    """One step of the same layer: x [B, E]."""
    hidden = weights["recurrent_kernel"].shape[0]
    u = _split(dot(dtype, x, weights["kernel"]), hidden)
    w = _recurrent(dtype, weights["recurrent_kernel"], weights.get("bias"), state[1])
    return step(None, u, w, *state)


def dot(dtype: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """a [..., K] times b [K, N], summed in at least float32.

    As a product of two matrices: with more axes its gradient under vmap takes four times as long on a CPU.
    """
    wide = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    rows = a.reshape(-1, a.shape[-1])
    product = jnp.matmul(*cast(dtype, rows, b), precision=precision(dtype), preferred_element_type=wide)
    return product.reshape(*a.shape[:-1], -1)


def _split(products: jax.Array, hidden: int) -> jax.Array:
    return products.reshape(*products.shape[:-1], -1, hidden)


def _recurrent(dtype: str, kernel: jax.Array, bias: jax.Array | None, h: jax.Array) -> jax.Array:
    products = dot(dtype, h, kernel)
    return _split(products if bias is None else products + bias[None], kernel.shape[0])


def _masked(h: jax.Array, mask: jax.Array | None) -> jax.Array:
    return h if mask is None else h * mask


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _unroll(step, dtype, choice, kernel, bias, u, state, mask):
    return _forward(step, dtype, choice, kernel, bias, u, state, mask)[0]


def _forward(step, dtype, choice, kernel, bias, u, state, mask):
    def body(state: State, u: jax.Array) -> tuple[State, PyTree]:
        w = _recurrent(dtype, kernel, bias, _masked(state[1], mask))
        after = step(choice, u, w, *state)
        return after, (after[1], w, state)

    last, (h, w, before) = lax.scan(body, state, u)
    return (h, last), (choice, kernel, bias, u, w, before, mask)


def _backward(step, dtype, kept, gradients):
    choice, kernel, bias, u, w, before, mask = kept
    flipped = kernel.T

    def body(later: State, now: PyTree) -> tuple[State, PyTree]:
        dc, dh = later
        g, u, w, before = now
        _, pull = jax.vjp(partial(step, choice), u, w, *before)
        du, dw, dc, direct = pull((dc, dh + g))
        through = dot(dtype, dw.reshape(len(dw), -1), flipped)
        return (dc, direct + _masked(through, mask)), (du, dw)

    first, (du, dw) = lax.scan(body, gradients[1], (gradients[0], u, w, before), reverse=True)
    flat = dw.reshape(-1, kernel.shape[1])
    h = before[1] if mask is None else before[1] * mask[None]
    dkernel = dot(dtype, h.reshape(-1, h.shape[-1]).T, flat)
    return None, dkernel, None if bias is None else flat.sum(0), du, first, None


_unroll.defvjp(_forward, _backward)
