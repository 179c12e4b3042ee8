"""Depthwise convolution that is fast on XLA's CPU backend too: a sum of shifted products, with gradients to match."""

from __future__ import annotations

from functools import partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.ops import backend
from nasjax.ops.pieces import piece_of

_FLOATS = 2**15  # of the image, in a piece of the batch whose kernel gradient is computed in the cache: twice as fast
_TERMS = 16, 64  # at least and at most that are summed while they are in registers


def depthwise_conv2d(x: jax.Array, w: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolution of each channel with its own kernel, zero-padded by dilation * (k - 1) / 2 on every side.

    Args:
      x: [B, H, W, C].
      w: [kh, kw, C], odd sizes.
      stride: step along H and W.
      dilation: distance between the kernel's taps.

    Returns:
      [B, (H - 1) // stride + 1, (W - 1) // stride + 1, C]. On CPU it has no forward-mode derivative; the gradients may
      be differentiated again in reverse mode.

    Raises:
      ValueError: the kernel has an even side, or another number of channels than x.
    """
    if w.shape[0] % 2 == 0 or w.shape[1] % 2 == 0:
        raise ValueError(f"kernel sizes must be odd (padding is symmetric), got {w.shape[:2]}")
    if w.shape[2:] != x.shape[3:]:
        raise ValueError(f"w must be [kh, kw, {x.shape[3]}] for x of {x.shape[3]} channels, got {w.shape}")
    if backend.form() == "cpu":
        return _shifted(x, w, stride, dilation)
    return lax.conv_general_dilated(
        x,
        w[:, :, None, :],
        (stride, stride),
        [(dilation * (k // 2),) * 2 for k in w.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
    )


# The three are linear in each argument, and each is a gradient of the others. All are jitted to be traced once per
# shape: a search network has hundreds of these.


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@partial(jax.jit, static_argnums=(2, 3))
def _shifted(x: jax.Array, w: jax.Array, stride: int, dilation: int) -> jax.Array:
    kh, kw, _ = w.shape
    padded = _padded(x, (kh, kw), dilation)
    rows = [_every(padded, 1, i * dilation, x.shape[1], stride) for i in range(kh)]
    taps = [
        _every(rows[i], 2, j * dilation, x.shape[2], stride) * w[i, j][None, None, None]
        for i in range(kh)
        for j in range(kw)
    ]
    return reduce(add, taps)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _input_gradient(g: jax.Array, w: jax.Array, size: tuple[int, int], stride: int, dilation: int) -> jax.Array:
    if stride == 1:
        return _shifted(g, w[::-1, ::-1], 1, dilation)
    # Every stride-th row and column has the same taps: a convolution of its own, at stride 1, and they are interleaved.
    lengths = [-(-n // stride) for n in size]
    phases = [[_phase(k, p, stride, dilation) for p in range(stride)] for k in w.shape[:2]]
    reach = max(abs(offset) for axis in phases for taps in axis for _, offset in taps) + stride
    padded = jnp.pad(g, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    rows = []
    for row in phases[0]:
        columns = []
        for column in phases[1]:
            taps = [
                _every(_every(padded, 1, reach + down, lengths[0], 1), 2, reach + right, lengths[1], 1)
                * w[i, j][None, None, None]
                for i, down in row
                for j, right in column
            ]
            columns.append(reduce(add, taps) if taps else jnp.zeros((g.shape[0], *lengths, g.shape[3]), g.dtype))
        rows.append(jnp.stack(columns, 3))
    dx = jnp.stack(rows, 2).reshape(g.shape[0], stride * lengths[0], stride * lengths[1], -1)
    return dx[:, : size[0], : size[1]]


def _phase(kernel: int, phase: int, stride: int, dilation: int) -> list[tuple[int, int]]:
    """Taps that reach the inputs at phase, phase + stride, ..., and which output each reads, counted from the first."""
    distances = [(tap, phase + dilation * (kernel // 2) - dilation * tap) for tap in range(kernel)]
    return [(tap, distance // stride) for tap, distance in distances if distance % stride == 0]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
@partial(jax.jit, static_argnums=(2, 3, 4))
def _kernel_gradient(x: jax.Array, g: jax.Array, kernel: tuple[int, int], stride: int, dilation: int) -> jax.Array:
    batch, sample = x.shape[0], x[0].size
    piece = piece_of(batch, sample, _FLOATS)
    if piece == batch:
        return _piece_gradient(x, g, kernel, stride, dilation)
    pieces = tuple(z.reshape(-1, piece, *z.shape[1:]) for z in (x, g))

    def add_piece(dw: jax.Array, piece: Any) -> tuple[jax.Array, None]:
        return dw + _piece_gradient(piece[0], piece[1], kernel, stride, dilation), None

    return lax.scan(add_piece, jnp.zeros((*kernel, x.shape[3]), x.dtype), pieces)[0]


def _piece_gradient(x: jax.Array, g: jax.Array, kernel: tuple[int, int], stride: int, dilation: int) -> jax.Array:
    padded, reach = _padded(x, kernel, dilation), (kernel[1] - 1) * dilation + 1
    batch, height, width, channels = g.shape
    rows = _together(height, width)
    slopes = g.reshape(batch, -1, rows, width, channels)

    def row(top: jax.Array) -> jax.Array:
        """One row of the kernel, summed along some rows of the image only: [B, H' / rows, kw, C].

        What these rows of the image and of the gradient contribute to all taps is summed while both are in the
        cache. One by one the taps would read both tensors from memory each time, at a quarter of the speed. With fewer
        terms than 16 in a sum, writing the sums takes as long as the products (8x8 images: up to 5 times as long).
        """
        seen = lax.dynamic_slice_in_dim(padded, top, x.shape[1], 1)[:, ::stride][:, :height]
        seen = seen.reshape(batch, -1, rows, *seen.shape[2:])
        terms = [
            _every(seen[:, :, i], 2, stride * j, reach, dilation) * slopes[:, :, i, j][:, :, None]
            for i in range(rows)
            for j in range(width)
        ]
        return reduce(add, terms)

    # Summed outside the loop: XLA would fuse the sum over the image into the terms, and no longer vectorise them.
    return lax.map(row, dilation * jnp.arange(kernel[0])).sum((1, 2))


def _together(height: int, width: int) -> int:
    """How many rows of the image are summed at once: a divisor of its height."""
    least, most = _TERMS
    fits = [rows for rows in range(1, height + 1) if height % rows == 0 and rows * width <= most]
    return next((rows for rows in fits if rows * width >= least), fits[-1] if fits else 1)


_shifted.defvjp(
    lambda x, w, stride, dilation: (_shifted(x, w, stride, dilation), (x, w)),
    lambda stride, dilation, xw, g: (
        _input_gradient(g, xw[1], xw[0].shape[1:3], stride, dilation),
        _kernel_gradient(xw[0], g, xw[1].shape[:2], stride, dilation),
    ),
)


def _kernel_gradient_bwd(
    kernel: tuple[int, int], stride: int, dilation: int, residuals: Any, u: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, g = residuals
    return _input_gradient(g, u, x.shape[1:3], stride, dilation), _shifted(x, u, stride, dilation)


_kernel_gradient.defvjp(
    lambda x, g, kernel, stride, dilation: (_kernel_gradient(x, g, kernel, stride, dilation), (x, g)),
    _kernel_gradient_bwd,
)


def _padded(x: jax.Array, kernel: tuple[int, int], dilation: int) -> jax.Array:
    return jnp.pad(x, [(0, 0), *((dilation * (k // 2),) * 2 for k in kernel), (0, 0)])


def _every(x: jax.Array, axis: int, start: int, length: int, step: int) -> jax.Array:
    """Every `step`-th of `length` entries."""
    return lax.slice_in_dim(x, start, start + length, step, axis)
