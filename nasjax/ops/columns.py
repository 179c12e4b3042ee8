"""Convolution at stride 1 as matrix products over pieces of the batch, with columns on the output's side.

The usual "im2col" gathers the kernel's taps from the input, kh kw Cin columns. Here the product comes first, giving
kh kw Cout columns that are then shifted and added; the gradients gather the same columns from the output's gradient,
once for both. A piece is small enough for its columns to stay in a CPU's cache.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.ops.pieces import piece_of

_FLOATS = 750_000  # columns of a piece: 3 MB; with twice as many gradients take up to 1.6x longer in small caches
_MOST = 12_000_000  # columns of one sample; beyond it they cost more in memory than they save in time


def fit(x: tuple[int, ...], w: tuple[int, ...]) -> bool:
    """Whether one sample's columns are few enough, from the shapes of x and w."""
    return x[1] * x[2] * w[0] * w[1] * w[3] <= _MOST


def pay(x: tuple[int, ...], w: tuple[int, ...]) -> bool:
    """Whether `gradients` beats convolutions on CPU: with many channels (1.2x from 36 to 36, 32x32 and 64 samples; 0.7x
    from 24 to 24 and 0.5x from 16 to 16; 0.7x from 3)."""
    return w[2] >= 16 and w[2] + w[3] >= 64 and fit(x, w)


def forward(x: jax.Array, w: jax.Array, precision: Any = None) -> jax.Array:
    """[B, H, W, Cin], [kh, kw, Cin, Cout] of odd sizes -> [B, H, W, Cout], zero-padded by k // 2."""
    kh, kw, c_in, c_out = w.shape
    flat = w.transpose(2, 0, 1, 3).reshape(c_in, -1)

    def piece(x: jax.Array) -> jax.Array:
        taps = jnp.einsum("bhwi,io->bhwo", x, flat, precision=precision)
        parts = jnp.split(taps, kh * kw, axis=3)
        offsets = [(i - kh // 2, j - kw // 2) for i in range(kh) for j in range(kw)]
        return sum((_shift(part, *offset) for part, offset in zip(parts, offsets, strict=True)), jnp.zeros((), x.dtype))

    pieces = _pieces(x, w)
    return piece(x) if pieces.shape[0] == 1 else lax.map(piece, pieces).reshape(*x.shape[:3], c_out)


def gradients(x: jax.Array, w: jax.Array, g: jax.Array, precision: Any = None) -> tuple[jax.Array, jax.Array]:
    """The gradients of x and w, from that of the output, g [B, H, W, Cout]."""
    kh, kw, c_in, c_out = w.shape
    height, width = x.shape[1:3]
    flat = w.transpose(0, 1, 3, 2).reshape(-1, c_in)

    def piece(dw: jax.Array, xg: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, g = xg
        padded = jnp.pad(g, [(0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)])
        taps = [(kh - 1 - i, kw - 1 - j) for i in range(kh) for j in range(kw)]
        columns = jnp.concatenate([padded[:, i : i + height, j : j + width] for i, j in taps], 3)
        dx = jnp.einsum("bhwo,oi->bhwi", columns, flat, precision=precision)
        return dw + jnp.einsum("bhwi,bhwo->io", x, columns, precision=precision), dx

    xs, gs, zero = _pieces(x, w), _pieces(g, w), jnp.zeros((c_in, kh * kw * c_out), x.dtype)
    dw, dx = piece(zero, (x, g)) if xs.shape[0] == 1 else lax.scan(piece, zero, (xs, gs))
    return dx.reshape(x.shape), dw.reshape(c_in, kh, kw, c_out).transpose(1, 2, 0, 3)


def _shift(y: jax.Array, down: int, right: int) -> jax.Array:
    """y[h + down, w + right], 0 outside."""
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0)])


def _pieces(z: jax.Array, w: jax.Array) -> jax.Array:
    """[pieces, b, H, W, C], b samples having at most _FLOATS columns."""
    batch, height, width, _ = z.shape
    size = piece_of(batch, height * width * w.shape[0] * w.shape[1] * w.shape[3], _FLOATS)
    return z.reshape(-1, size, *z.shape[1:])
