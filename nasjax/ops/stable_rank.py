"""Stable rank ||A||_F^2 / ||A||_2^2 of matrices and convolutions.

Machida et al. 2021 (MSR-DARTS, arXiv:2009.09209) score operators by it. It is at least 1, at most the rank, and free
of scale. A convolution is read as a matrix in one of two ways: (a) its kernel, reshaped to [out, in * kh * kw]; (b) the
circular convolution of an H x W map, whose singular values are those of the kernel's spectrum at each frequency
(Sedghi et al. 2019, arXiv:1805.10408). For a 1x1 kernel (b) is H * W * (a).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def matrix(a: jax.Array) -> jax.Array:
    """Of matrices: [..., m, n] -> [...]; NaN for a zero matrix."""
    return _ratio(jnp.linalg.svd(a, compute_uv=False), (-1,))


def kernel(w: jax.Array) -> jax.Array:
    """(a) of dense kernels: [..., kh, kw, in, out] -> [...]."""
    return matrix(w.reshape(*w.shape[:-4], -1, w.shape[-1]))


def depthwise_kernel(w: jax.Array) -> jax.Array:
    """(a) of depthwise kernels [..., kh, kw, C] -> [...]: block-diagonal, a singular value per channel (our choice)."""
    return _ratio(jnp.sqrt(jnp.square(w).sum((-3, -2))), (-1,))


def circular(w: jax.Array, size: tuple[int, int], dilation: int = 1) -> jax.Array:
    """(b) of a dense kernel [kh, kw, in, out] on a map of this size, scalar."""
    return _ratio(jnp.linalg.svd(_spectrum(w, size, dilation), compute_uv=False), (0, 1, 2))


def circular_depthwise(w: jax.Array, size: tuple[int, int], dilation: int = 1) -> jax.Array:
    """(b) of a depthwise kernel [kh, kw, C] on a map of this size, scalar."""
    return _ratio(jnp.abs(_spectrum(w, size, dilation)), (0, 1, 2))


def _spectrum(w: jax.Array, size: tuple[int, int], dilation: int) -> jax.Array:
    """The kernel's two-dimensional transform on the map, [H, W, ...]; a kernel wider than the map wraps around."""
    rows, columns = (jnp.arange(k) * dilation % n for k, n in zip(w.shape[:2], size, strict=True))
    padded = jnp.zeros((*size, *w.shape[2:]), w.dtype).at[rows[:, None], columns[None]].add(w)
    return jnp.fft.fft2(padded, axes=(0, 1))


def _ratio(values: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    squares = jnp.square(values)
    return squares.sum(axes) / squares.max(axes)
