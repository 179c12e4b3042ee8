"""Pooling with symmetric padding k // 2, with a static window or (for populations of children) a traced one.

A window is taken one axis at a time as a sequence of shifted copies, centre first. The static and the traced form
visit the shifts in the same order, so that values and gradients agree, also where maxima tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp


def max_pool(x: jax.Array, window: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> jax.Array:
    """Largest value of each window: [B, H, W, C] -> [B, (H - 1) // sh + 1, (W - 1) // sw + 1, C]."""
    for axis, size, step in zip((1, 2), window, stride, strict=True):
        x = reduce(jnp.maximum, _shifts(x, axis, size, step, -jnp.inf))
    return x


def avg_pool(x: jax.Array, window: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> jax.Array:
    """Mean of each window, padding excluded: [B, H, W, C] -> [B, (H - 1) // sh + 1, (W - 1) // sw + 1, C]."""
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    for axis, size, step in zip((1, 2), window, stride, strict=True):
        x, ones = (reduce(jnp.add, _shifts(z, axis, size, step, 0)) for z in (x, ones))
    return x / ones


def halve(x: jax.Array) -> jax.Array:
    """2x2 max-pooling, stride 2, no padding: [B, H, W, C] -> [B, H // 2, W // 2, C]."""
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    for axis in (2, 3):
        first, second = (jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in (0, 1))
        # Not `max`, whose gradient looks for values equal to the maximum, and is NaN where XLA computed them twice and
        # rounded them differently.
        x = jnp.where(first >= second, first, second)
    return x


def max_pool_masked(
    x: jax.Array, kh: jax.Array, kw: jax.Array, sizes: Sequence[int] = (1, 3, 5, 7), mask: jax.Array | None = None
) -> jax.Array:
    """`max_pool` with stride 1 and a traced window.

    Args:
      x: [B, H, W, C].
      kh, kw: traced int scalars, odd, at most max(sizes).
      sizes: the values they may take.
      mask: [H, W], valid positions; the others count as padding and are 0 in the result. None = all valid.

    Returns:
      [B, H, W, C].
    """
    if mask is not None:
        x = jnp.where(mask.astype(bool)[None, :, :, None], x, -jnp.inf)
    for axis, size in ((1, kh), (2, kw)):
        x, *shifts = _shifts(x, axis, max(sizes), 1, -jnp.inf)
        for i, shift in enumerate(shifts):
            x = jnp.where(i // 2 < size // 2, jnp.maximum(x, shift), x)
    return x if mask is None else jnp.where(mask.astype(bool)[None, :, :, None], x, 0)


def avg_pool_masked(
    x: jax.Array, kh: jax.Array, kw: jax.Array, sizes: Sequence[int] = (1, 3, 5, 7), mask: jax.Array | None = None
) -> jax.Array:
    """`avg_pool` with stride 1 and a traced window; arguments as in `max_pool_masked`."""
    valid = (jnp.ones(x.shape[1:3], x.dtype) if mask is None else mask.astype(x.dtype))[None, :, :, None]
    x, ones = jnp.where(valid > 0, x, 0), valid
    for axis, size in ((1, kh), (2, kw)):
        x, ones = (_partial_sum(_shifts(z, axis, max(sizes), 1, 0), size) for z in (x, ones))
    return jnp.where(valid > 0, x / jnp.maximum(ones, 1), 0)


def _partial_sum(shifts: list[jax.Array], size: jax.Array) -> jax.Array:
    return reduce(jnp.add, [jnp.where((i + 1) // 2 <= size // 2, shift, 0) for i, shift in enumerate(shifts)])


def _shifts(x: jax.Array, axis: int, size: int, step: int, fill: float) -> list[jax.Array]:
    """x moved by 0, -1, 1, -2, 2, ... along `axis`, every `step`-th position kept."""
    radius, n = size // 2, x.shape[axis]
    pads = [(0, 0)] * x.ndim
    pads[axis] = (radius, radius)
    padded = jnp.pad(x, pads, constant_values=fill)
    offsets = sorted(range(-radius, radius + 1), key=abs)
    return [jax.lax.slice_in_dim(padded, radius + d, radius + d + n, step, axis) for d in offsets]
