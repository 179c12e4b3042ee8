"""Depthwise convolution that is fast on XLA's CPU backend too: a sum of shifted products, with gradients to match."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def depthwise_conv2d(x: jax.Array, w: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolution of each channel with kernels of its own, zero-padded by dilation * (k - 1) / 2 on every side.

    Args:
      x: [B, H, W, C].
      w: [kh, kw, C], or [kh, kw, E, C] for E kernels per channel; odd sizes.
      stride: step along H and W.
      dilation: distance between the kernel's taps.

    Returns:
      [B, (H - 1) // stride + 1, (W - 1) // stride + 1, E C], channel e C + c from channel c. On CPU it has no
      forward-mode derivative; the gradients may be differentiated again in reverse mode.

    Raises:
      ValueError: the kernel has an even side.
    """
    if w.shape[0] % 2 == 0 or w.shape[1] % 2 == 0:
        raise ValueError(f"kernel sizes must be odd (padding is symmetric), got {w.shape[:2]}")
    w = w.reshape(*w.shape[:2], -1, x.shape[3])
    if jax.default_backend() == "cpu":
        return _shifted(x, w, stride, dilation)
    pads = [(dilation * (k // 2),) * 2 for k in w.shape[:2]]
    y = lax.conv_general_dilated(
        x,
        w.transpose(0, 1, 3, 2).reshape(*w.shape[:2], 1, -1),  # XLA's channel is c E + e
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
    )
    return y.reshape(*y.shape[:3], x.shape[3], -1).swapaxes(3, 4).reshape(y.shape)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@partial(jax.jit, static_argnums=(2, 3))  # traced once per shape: a search network has hundreds of these
def _shifted(x: jax.Array, w: jax.Array, stride: int, dilation: int) -> jax.Array:
    kh, kw, many, channels = w.shape
    if many > 1:  # copies: read through a broadcast inside the sum, a channel's neighbours would lie apart
        x = jnp.einsum("bhwc,cd->bhwd", x, _copies(x, many), precision="highest")
    padded, size = _padded(x, (kh, kw), dilation), (x.shape[1], x.shape[2])
    flat = w.reshape(kh, kw, 1, 1, 1, many * channels)
    taps = [_tap(padded, size, i * dilation, j * dilation, stride) * flat[i, j] for i in range(kh) for j in range(kw)]
    return sum(taps[1:], taps[0])


def _copies(x: jax.Array, many: int) -> jax.Array:
    """[C, many C], the identity side by side. As a matrix product XLA cannot fuse the copying into what reads it."""
    return jnp.tile(jnp.eye(x.shape[3], dtype=x.dtype), (1, many))


def _padded(x: jax.Array, kernel: tuple[int, int], dilation: int) -> jax.Array:
    return jnp.pad(x, [(0, 0), *((dilation * (k // 2),) * 2 for k in kernel), (0, 0)])


def _tap(padded: jax.Array, size: tuple[int, int], top: Any, left: Any, stride: int) -> jax.Array:
    """What one tap of the kernel sees; `top` and `left` may be traced."""
    b, _, _, c = padded.shape
    seen = lax.dynamic_slice(padded, (0, top, left, 0), (b, *size, c))
    return seen[:, ::stride, ::stride]


@partial(jax.jit, static_argnums=(0, 1))
def _shifted_bwd(
    stride: int, dilation: int, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = residuals
    kh, kw, many, channels = w.shape
    wide = g
    if stride > 1:  # as if computed at stride 1, with zeros between
        sizes = zip(x.shape[1:3], g.shape[1:3], strict=True)
        gaps = [(0, n - 1 - (m - 1) * stride, stride - 1) for n, m in sizes]
        wide = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
    flipped = w[::-1, ::-1].reshape(kh, kw, 1, many * channels)
    dx = _shifted(wide, flipped, 1, dilation)
    if many > 1:
        dx = jnp.einsum("bhwd,cd->bhwc", dx, _copies(x, many), precision="highest")
    padded, split = _padded(x, (kh, kw), dilation), g.reshape(*g.shape[:3], many, channels)
    offsets = dilation * np.array([(i, j) for i in range(kh) for j in range(kw)])

    def kernel(offset: jax.Array) -> jax.Array:
        seen = _tap(padded, (x.shape[1], x.shape[2]), offset[0], offset[1], stride)
        return (seen[..., None, :] * split).sum((0, 1, 2))

    # A loop over taps: unrolled, every tap would be a kernel of its own to compile.
    return dx, lax.map(kernel, jnp.asarray(offsets)).reshape(w.shape)


_shifted.defvjp(lambda x, w, stride, dilation: (_shifted(x, w, stride, dilation), (x, w)), _shifted_bwd)
