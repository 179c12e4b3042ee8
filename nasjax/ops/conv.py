"""Two-dimensional convolution that is fast on XLA's CPU backend too, forward and both gradients, also inside loops."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.ops import backend, columns, winograd
from nasjax.ops.pieces import piece_of_at_least
from nasjax.ops.spectral import DENSE, spectral_conv, spectral_conv_looped

_DIMS = ("NHWC", "HWIO", "NHWC")
_LOOPED = 512  # larger images have spectra that fall out of the cache


def conv2d(
    x: jax.Array, w: jax.Array, stride: tuple[int, int] = (1, 1), *, precision: lax.PrecisionLike = None
) -> jax.Array:
    """Convolution with symmetric zero padding k // 2.

    On accelerators this is `lax.conv`. On CPU it is, by shape: a matrix product (1x1), `spectral_conv` where that
    takes clearly fewer multiplications, else `lax.conv`, `winograd` or `columns` with gradients to match. The choice is
    made by `backend.form` when the function is traced, so that only one form is ever traced and compiled.

    Args:
      x: [B, H, W, Cin].
      w: [kh, kw, Cin, Cout], odd sizes.
      stride: steps along H and W.
      precision: of the multiplications, as in `lax.conv`.

    Returns:
      [B, (H - 1) // sh + 1, (W - 1) // sw + 1, Cout]. On CPU it has no forward-mode derivative (`jax.jvp`), and under
      `vmap` over kernels the direct form is slow: use `spectral` there.

    Raises:
      ValueError: the kernel has an even side.
    """
    if w.shape[0] % 2 == 0 or w.shape[1] % 2 == 0:
        raise ValueError(f"kernel sizes must be odd (padding is symmetric, k // 2), got {w.shape[:2]}")
    stride = (stride[0], stride[1])
    if backend.form() != "cpu":
        return _forward(x, w, stride, precision)
    if w.shape[:2] == (1, 1):
        y = _pointwise(x[:, :: stride[0], :: stride[1]], w[0, 0], precision)
    elif stride == (1, 1) and x.dtype.itemsize >= 4 and spectral_pays(x.shape, w.shape):
        y = _spectral(x, w, precision)
    else:
        y = _direct(x, w, stride, precision)
    # Otherwise XLA recomputes what precedes the gradient (activation, batch norm) several times, inside transposing
    # copies.
    return lax.optimization_barrier(y)


def _forward(x: jax.Array, w: jax.Array, stride: tuple[int, int], precision: Any) -> jax.Array:
    pads = [(k // 2, k // 2) for k in w.shape[:2]]
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=_DIMS, precision=precision)


def _forward_cpu(x: jax.Array, w: jax.Array, stride: tuple[int, int], precision: Any) -> jax.Array:
    # XLA is up to 10x slower when the input channels are no multiple of 4 (3 -> 24, 5x5, 32x32: 17 ms against 2).
    more = -x.shape[3] % 4 if x.shape[3] > 1 else 0
    if more:  # not `jnp.pad`: inside `custom_vjp` inside `scan` it breaks JAX's second derivatives (0.10.2)
        zero, none, some = jnp.zeros((), x.dtype), (0, 0, 0), (0, more, 0)
        x, w = lax.pad(x, zero, [none, none, none, some]), lax.pad(w, zero, [none, none, some, none])
    return _forward(x, w, stride, precision)


# -- 1x1 -------------------------------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pointwise(x: jax.Array, w: jax.Array, precision: Any) -> jax.Array:
    return jnp.einsum("bhwi,io->bhwo", x, w, precision=precision)


def _pointwise_bwd(precision: Any, residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = residuals
    dw = jnp.einsum("ni,no->io", *(z.reshape(-1, z.shape[3]) for z in (x, g)), precision=precision)
    return jnp.einsum("bhwo,io->bhwi", g, w, precision=precision), dw


_pointwise.defvjp(lambda x, w, precision: (_pointwise(x, w, precision), (x, w)), _pointwise_bwd)


# -- spectral --------------------------------------------------------------------------------------------------------


def spectral_pays(x: tuple[int, ...], w: tuple[int, ...]) -> bool:
    """Whether `spectral_conv` beats the direct form on CPU, from the shapes of x and w.

    Both sides count multiplications per position of the image. Those of the spectral form count 1.5 times, as it moves
    more memory (measured: 1.0-1.3 at 8x8, 1.6-2 at 16x16, 1.2-1.8 at 32x32). It never beats Winograd's
    filters, nor columns at 3x3 (equal with 48 channels and 64 samples; with 16 samples columns take 0.9 of its time at
    32x32, half at 16x16, a third at 8x8, where the spectra of the kernels outweigh the images).
    """
    (_, height, width, _), (kh, kw, c_in, c_out) = x, w
    if (kh == kw == 3 and columns.fit(x, w)) or winograd.pay(x, w):
        return False
    if kw == 1:
        height, width, kh, kw = width, height, kw, kh
    q, p = (width + kw // 2) // 2 + 1, height + kh // 2
    products: float
    transforms: float
    if kh == 1:
        products, transforms = 3 * q / width, 3 * q
    elif height * width <= DENSE:
        products, transforms = 3 * q * p / (height * width), 3 * q * p
    else:
        products, transforms = 3 * q * p / (height * width), 2 * q + 6 * q * p / width
    spectral = products * c_in * c_out + transforms * (c_in + c_out)
    return 1.5 * spectral < kh * kw * c_in * c_out


def _spectral(x: jax.Array, w: jax.Array, precision: Any) -> jax.Array:
    b, height, width, c = x.shape
    if w.shape[0] == 1:  # each row is an image of its own
        return spectral_conv(x.reshape(b * height, 1, width, c), w, precision=precision).reshape(b, height, width, -1)
    if w.shape[1] == 1:
        return _spectral(x.swapaxes(1, 2), w.swapaxes(0, 1), precision).swapaxes(1, 2)
    if height * width > _LOOPED:
        return spectral_conv_looped(x, w, precision=precision)
    return spectral_conv(x, w, precision=precision)


# -- direct ----------------------------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _direct(x: jax.Array, w: jax.Array, stride: tuple[int, int], precision: Any) -> jax.Array:
    if stride == (1, 1) and x.dtype.itemsize >= 4 and winograd.forward_pays(x.shape, w.shape):
        return winograd.forward(x, w, precision)
    # With more input than output channels, XLA reaches a third of the speed of its matrix products.
    if stride == (1, 1) and 2 * w.shape[2] >= 3 * w.shape[3] and columns.fit(x.shape, w.shape):
        return columns.forward(x, w, precision)
    return _forward_cpu(x, w, stride, precision)


def _direct_bwd(stride: tuple[int, int], precision: Any, residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = residuals
    if stride == (1, 1) and x.dtype.itemsize >= 4 and winograd.pay(x.shape, w.shape):
        return winograd.gradients(x, w, g, precision)
    if stride == (1, 1) and columns.pay(x.shape, w.shape):
        return columns.gradients(x, w, g, precision)
    if stride != (1, 1):  # zeros between the entries: the gradient at stride 1
        sizes = zip(x.shape[1:3], g.shape[1:3], stride, strict=True)
        gaps = [(0, n - 1 - (m - 1) * s, s - 1) for n, m, s in sizes]
        g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
    dx = _forward_cpu(g, w[::-1, ::-1].swapaxes(2, 3), (1, 1), precision)
    return dx, _kernel_gradient(x, g, w.shape[:2], precision)


_direct.defvjp(lambda x, w, stride, precision: (_direct(x, w, stride, precision), (x, w)), _direct_bwd)


def _kernel_gradient(x: jax.Array, g: jax.Array, kernel: tuple[int, int], precision: Any) -> jax.Array:
    """The kernel gradient as a forward convolution: channels play the batch, g the kernel, samples the channels.

    The transposes are spelt out because XLA's CPU backend rearranges a convolution of other dimension numbers only
    outside control flow, and falls to a naive loop inside. The batch is taken in pieces whose "kernel" stays in cache,
    of no fewer samples than a vector has lanes: with 8 channels at 48x48 a piece of one sample takes 10x longer. XLA
    packs patches of the "batch" operand, so that is the tensor with fewer channels; if it is g, the taps come out
    reversed.
    """
    swap = g.shape[3] < x.shape[3]
    a, b = (g, x) if swap else (x, g)
    batch = x.shape[0]
    piece = piece_of_at_least(batch, 8)

    def gradient(a: jax.Array, b: jax.Array) -> jax.Array:  # [kh, kw, Ca, Cb]
        pads = [(k // 2, k // 2) for k in kernel]
        a, b = a.transpose(3, 1, 2, 0), b.transpose(1, 2, 0, 3)
        return lax.conv_general_dilated(a, b, (1, 1), pads, dimension_numbers=_DIMS, precision=precision)

    if piece == batch:
        dw = gradient(a, b)
    else:
        pieces = tuple(z.reshape(-1, piece, *z.shape[1:]) for z in (a, b))
        zero = jnp.zeros((a.shape[3], *kernel, b.shape[3]), x.dtype)
        dw, _ = lax.scan(lambda total, ab: (total + gradient(*ab), None), zero, pieces)
    return dw[:, ::-1, ::-1].transpose(1, 2, 3, 0) if swap else dw.transpose(1, 2, 0, 3)
