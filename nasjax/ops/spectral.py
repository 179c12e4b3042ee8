"""Convolution in the frequency domain, with the discrete Fourier transform as matrix products.

Its cost hardly depends on the kernel's size, it consists only of (batched) matmuls in real arithmetic, and a tensor's
transform is shared by all layers that read it. So a population of children with different kernels is one `vmap`
(a direct convolution with per-child kernels would become a grouped one).

A spectrum is a real array [Q, 3 P, ...]: frequencies along W (Q = P // 2 + 1 of an odd period P: the rest of the plane
follows from Hermitian symmetry), then along H, each as real part, imaginary part and their sum. With these three forms
a complex product takes three real ones (Karatsuba), ac, bd and (a + b)(c + d), and since putting them together again
is linear it is part of the inverse transform: between the transforms there is only one batched matmul.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

DENSE = 64  # images of up to this many positions are transformed in one matrix product instead of one per axis


def spectral_conv(
    x: jax.Array, w: jax.Array, period: int | None = None, *, precision: lax.PrecisionLike = "highest"
) -> jax.Array:
    """Equal to `conv2d(x, w)` with stride 1.

    Args:
      x: [B, H, W, Cin].
      w: [kh, kw, Cin, Cout], odd sizes. A smaller kernel may sit zero-padded in the centre of a larger one.
      period: of the transform along both axes; None = the shortest, H + kh // 2 and W + kw // 2.
      precision: of the matmuls.

    Returns:
      [B, H, W, Cout].

    Raises:
      ValueError: a kernel side is even, or the period so short that the border would wrap around.
    """
    if w.shape[0] % 2 == 0 or w.shape[1] % 2 == 0:
        raise ValueError(f"kernel sizes must be odd, got {w.shape[:2]}; pad the kernel with zeros")
    need = (x.shape[1] + w.shape[0] // 2, x.shape[2] + w.shape[1] // 2)
    if period is not None and period < max(need):
        raise ValueError(f"period {period} is too short for {x.shape[1:3]} and kernel {w.shape[:2]}; use {max(need)}")
    periods = need if period is None else (period, period)
    xs = to_spectrum(x, periods, precision=precision)
    ws = kernel_spectrum(w, periods, precision=precision)
    return from_spectrum(multiply(xs, ws, precision=precision), (x.shape[1], x.shape[2]), precision=precision)


def to_spectrum(x: jax.Array, period: int | tuple[int, int], *, precision: lax.PrecisionLike = "highest") -> jax.Array:
    """Transform of a tensor: [B, H, W, C] -> [Q, 3 P, B, C]; `period` may differ between H and W."""
    b, height, width, c = x.shape
    rows, columns = _periods(period)
    along_h, along_w = _analysis(height, width, rows, columns, height * width <= DENSE)
    if along_w is None:
        flat = jnp.matmul(_cast(along_h, x), x.transpose(1, 2, 0, 3).reshape(-1, b * c), precision=precision)
    else:
        first = jnp.matmul(_cast(along_w, x), x.transpose(2, 1, 0, 3).reshape(width, -1), precision=precision)
        first = first.reshape(-1, 2 * height, b * c)
        flat = jnp.matmul(_repeat(along_h, x, len(first)), first, precision=precision)
    return flat.reshape(-1, 3 * rows, b, c)


def kernel_spectrum(
    w: jax.Array, period: int | tuple[int, int], *, precision: lax.PrecisionLike = "highest"
) -> jax.Array:
    """Transform of a centred kernel, conjugated since layers correlate: [kh, kw, Cin, Cout] -> [Q, 3 P, Cin, Cout]."""
    kh, kw, c_in, c_out = w.shape
    rows, columns = _periods(period)
    forms = _cast(_kernel_analysis(kh, kw, rows, columns), w)
    return jnp.matmul(forms, w.reshape(kh * kw, -1), precision=precision).reshape(-1, 3 * rows, c_in, c_out)


def multiply(xs: jax.Array, ws: jax.Array, *, precision: lax.PrecisionLike = "highest") -> jax.Array:
    """Channel products per frequency: [Q, 3 P, B, Cin] x [Q, 3 P, Cin, Cout] -> products for `from_spectrum`."""
    return jnp.matmul(xs, ws, precision=precision)


def from_spectrum(ys: jax.Array, size: tuple[int, int], *, precision: lax.PrecisionLike = "highest") -> jax.Array:
    """The tensor of given (H, W) whose products these are: [Q, 3 P, B, C] -> [B, H, W, C]."""
    half, rows, b, c = ys.shape
    along_h, along_w = _synthesis(*size, rows // 3, 2 * half - 1, size[0] * size[1] <= DENSE)
    if along_w is None:
        y = jnp.matmul(_cast(along_h, ys), ys.reshape(half * rows, b * c), precision=precision)
        return y.reshape(*size, b, c).transpose(2, 0, 1, 3)
    first = jnp.matmul(_repeat(along_h, ys, half), ys.reshape(half, rows, b * c), precision=precision)
    y = jnp.matmul(_cast(along_w, ys), first.reshape(2 * half, -1), precision=precision)
    return y.reshape(size[1], size[0], b, c).transpose(2, 1, 0, 3)


def spectral_conv_looped(x: jax.Array, w: jax.Array, *, precision: lax.PrecisionLike = "highest") -> jax.Array:
    """`spectral_conv` one W-frequency at a time, forward and backward.

    No whole spectrum is ever stored: the gradient recomputes it from the transform along W alone (1.1 times x). On a
    CPU this is also faster for large images, whose spectra do not stay in cache.
    """
    b, height, width, c = x.shape
    rows, columns = _periods((height + w.shape[0] // 2, width + w.shape[1] // 2))
    along_h, along_w = _analysis(height, width, rows, columns, dense=False)
    back_h, back_w = _synthesis(height, width, rows, columns, dense=False)
    forms = _kernel_analysis(*w.shape[:2], rows, columns).reshape(len(along_w) // 2, 3 * rows, -1)
    kernel = w.reshape(-1, c * w.shape[3])

    @partial(jax.checkpoint, prevent_cse=False)
    def frequency(args: tuple[jax.Array, jax.Array]) -> jax.Array:
        part, form = args
        xs = jnp.matmul(_cast(along_h, x), part, precision=precision).reshape(-1, b, c)
        ws = jnp.matmul(form, kernel, precision=precision).reshape(-1, *w.shape[2:])
        ys = multiply(xs, ws, precision=precision).reshape(3 * rows, -1)
        return jnp.matmul(_cast(back_h, x), ys, precision=precision)

    first = jnp.matmul(_cast(along_w, x), x.transpose(2, 1, 0, 3).reshape(width, -1), precision=precision)
    last = lax.map(frequency, (first.reshape(-1, 2 * height, b * c), _cast(forms, x)))
    y = jnp.matmul(_cast(back_w, x), last.reshape(len(along_w), -1), precision=precision)
    return y.reshape(width, height, b, -1).transpose(2, 1, 0, 3)


def _periods(period: int | tuple[int, int]) -> tuple[int, int]:
    """Along H and W; the latter odd, so that it can be read off the spectrum's shape."""
    rows, columns = (period, period) if isinstance(period, int) else period
    return rows, columns | 1


def _cast(matrix: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(matrix, like.dtype)


def _repeat(matrix: np.ndarray, like: jax.Array, n: int) -> jax.Array:
    # One copy per W-frequency: a batched matmul that XLA need not transpose.
    return jnp.broadcast_to(_cast(matrix, like)[None], (n, *matrix.shape))


# -- the matrices (numpy, float64) -----------------------------------------------------------------------------------


def _wave(count: int, positions: np.ndarray, period: int, sign: int) -> np.ndarray:
    """exp(sign 2 pi i f t / period): complex [count, positions]."""
    return np.exp(sign * 2j * np.pi * (np.outer(np.arange(count), positions) % period) / period)


def _forms(z: np.ndarray) -> np.ndarray:
    """Complex [..., P, n] -> real [..., 3 P, n]: real part, imaginary part, sum."""
    return np.concatenate([z.real, z.imag, z.real + z.imag], -2)


def _joins(z: np.ndarray) -> np.ndarray:
    """Re(z y) as a matrix on the three products of y = (ac - bd) + i((a + b)(c + d) - ac - bd): [..., n, 3 P]."""
    return np.concatenate([z.real + z.imag, z.imag - z.real, -z.imag], -1)


@lru_cache(maxsize=64)
def _analysis(height: int, width: int, rows: int, columns: int, dense: bool) -> tuple[np.ndarray, Any]:
    along_w = _wave(columns // 2 + 1, np.arange(width), columns, -1)
    along_h = _wave(rows, np.arange(height), rows, -1)
    if dense:
        both = np.einsum("qw,ph->qphw", along_w, along_h).reshape(len(along_w), rows, -1)
        return _forms(both).reshape(-1, height * width), None
    parts = np.stack([along_w.real, along_w.imag], 1).reshape(-1, width)  # rows (q, part)
    return _forms(np.concatenate([along_h, 1j * along_h], 1)), parts


@lru_cache(maxsize=64)
def _kernel_analysis(kh: int, kw: int, rows: int, columns: int) -> np.ndarray:
    along_w = _wave(columns // 2 + 1, np.arange(kw) - kw // 2, columns, +1)
    along_h = _wave(rows, np.arange(kh) - kh // 2, rows, +1)
    both = np.einsum("qw,ph->qphw", along_w, along_h).reshape(len(along_w), rows, -1)
    return _forms(both).reshape(-1, kh * kw)


@lru_cache(maxsize=64)
def _synthesis(height: int, width: int, rows: int, columns: int, dense: bool) -> tuple[np.ndarray, Any]:
    along_w = _wave(columns // 2 + 1, np.arange(width), columns, +1) / (rows * columns)
    along_w[1:] *= 2  # each stands for its mirror image too
    along_h = _wave(rows, np.arange(height), rows, +1)
    if dense:
        both = np.einsum("qw,ph->hwqp", along_w, along_h)
        return _joins(both).reshape(height * width, -1), None
    parts = np.stack([along_w.real, -along_w.imag], 1).reshape(-1, width).T
    return _joins(np.concatenate([along_h.T, -1j * along_h.T], 0)), parts
