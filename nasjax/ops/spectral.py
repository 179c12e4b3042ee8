"""Convolution in the frequency domain, with the DFT as matrix products.

The cost does not depend on the kernel's size, everything is a batched matmul in real arithmetic, and a tensor's
transform is shared by all layers that read it. So a population of children with different kernels is one `vmap`
(a direct convolution with per-child kernels would become a grouped one).

A spectrum is a real array [2, P, P // 2 + 1, ...]: real and imaginary part, frequencies along H, frequencies along W;
the other half of the plane follows from Hermitian symmetry, and is never computed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def spectral_conv(
    x: jax.Array, w: jax.Array, period: int | None = None, *, precision: lax.PrecisionLike = "highest"
) -> jax.Array:
    """Equal to `conv2d(x, w)` with stride 1.

    Args:
      x: [B, H, W, Cin].
      w: [kh, kw, Cin, Cout], odd sizes. A smaller kernel may sit zero-padded in the centre of a larger one.
      period: of the transform, at least max(H, W) + max(kh, kw) // 2 (the default).
      precision: of the matmuls.

    Returns:
      [B, H, W, Cout].

    Raises:
      ValueError: the period is too short, so that the border would wrap around.
    """
    need = max(x.shape[1:3]) + max(w.shape[:2]) // 2
    period = need if period is None else period
    if period < need:
        raise ValueError(f"period {period} is too short for {x.shape[1:3]} and kernel {w.shape[:2]}; use {need}")
    xs = to_spectrum(x, period, precision=precision)
    ws = kernel_spectrum(w, period, precision=precision)
    return from_spectrum(multiply(xs, ws, precision=precision), x.shape[1:3], precision=precision)


def to_spectrum(x: jax.Array, period: int, *, precision: lax.PrecisionLike = "highest") -> jax.Array:
    """Transform of a tensor: [B, H, W, C] -> [2, P, P // 2 + 1, B, C]."""
    return _transform(x, np.arange(x.shape[1]), np.arange(x.shape[2]), period, -1, "bhwc", precision)


def kernel_spectrum(w: jax.Array, period: int, *, precision: lax.PrecisionLike = "highest") -> jax.Array:
    """Transform of a centred kernel, conjugated (layers correlate): [kh, kw, Cin, Cout] -> [2, P, P // 2 + 1, Cin, Cout]."""
    rows, columns = (np.arange(k) - k // 2 for k in w.shape[:2])
    return _transform(w, rows, columns, period, +1, "hwbc", precision)


def multiply(xs: jax.Array, ws: jax.Array, *, precision: lax.PrecisionLike = "highest") -> jax.Array:
    """Channel products per frequency: [2, P, Q, B, Cin] x [2, P, Q, Cin, Cout] -> [2, P, Q, B, Cout]."""
    (xr, xi), (wr, wi) = xs, ws
    left = jnp.concatenate([xr, xi], -1)
    right = jnp.concatenate([jnp.concatenate([wr, wi], -1), jnp.concatenate([-wi, wr], -1)], -2)
    y = jnp.matmul(left, right, precision=precision)
    return jnp.stack(jnp.split(y, 2, -1))


def from_spectrum(
    ys: jax.Array, size: tuple[int, int], *, precision: lax.PrecisionLike = "highest"
) -> jax.Array:
    """Inverse of `to_spectrum`, cut to `size`: [2, P, P // 2 + 1, B, C] -> [B, H, W, C]."""
    period, half = ys.shape[1:3]
    yr, yi = ys
    cos, sin = _waves(np.arange(size[0]), period, period, +1, ys.dtype)
    re = jnp.einsum("fh,fgbc->hgbc", cos, yr, precision=precision) - jnp.einsum(
        "fh,fgbc->hgbc", sin, yi, precision=precision
    )
    im = jnp.einsum("fh,fgbc->hgbc", sin, yr, precision=precision) + jnp.einsum(
        "fh,fgbc->hgbc", cos, yi, precision=precision
    )
    cos, sin = _waves(np.arange(size[1]), period, half, +1, ys.dtype)
    # Each frequency stands for its mirror image too, except 0 and (P even) the middle one.
    count = np.full(half, 2.0)
    count[0] = 1
    if period % 2 == 0:
        count[-1] = 1
    count = jnp.asarray(count / period**2, ys.dtype)[:, None]
    return jnp.einsum("gw,hgbc->bhwc", count * cos, re, precision=precision) - jnp.einsum(
        "gw,hgbc->bhwc", count * sin, im, precision=precision
    )


def _waves(positions: np.ndarray, period: int, count: int, sign: int, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """cos and sin of sign * 2 pi f t / P, each [count, positions]."""
    angle = 2 * np.pi * sign * ((np.arange(count)[:, None] * positions[None, :]) % period) / period
    return jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype)


def _transform(
    x: jax.Array, rows: np.ndarray, columns: np.ndarray, period: int, sign: int, layout: str, precision: object
) -> jax.Array:
    waves = jnp.stack(_waves(columns, period, period // 2 + 1, sign, x.dtype))
    first = jnp.einsum(f"ngw,{layout}->nhgbc", waves, x, precision=precision)  # real and imaginary part, W done
    cos, sin = _waves(rows, period, period, sign, x.dtype)
    waves = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])  # [part out, part in, P, H]
    return jnp.einsum("mnfh,nhgbc->mfgbc", waves, first, precision=precision)
