"""Normalisations as pure functions."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.ops.collective import mean as over_devices


def batch_norm(
    x: jax.Array,
    gamma: jax.Array,
    beta: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    *,
    train: bool,
    momentum: float | jax.Array = 0.9,
    eps: float = 1e-5,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Batch normalisation over B, H, W (Ioffe & Szegedy 2015), statistics in at least float32.

    In a data-parallel program (`train.parallel`) without a mask, the statistics are those of all devices' samples.

    Args:
      x: [B, H, W, C].
      gamma, beta: scale and shift, [C].
      mean, var: running statistics, [C]; the variance is the biased one, here and in normalising.
      train: normalise by the batch's statistics and update the running ones.
      momentum: running = momentum * running + (1 - momentum) * batch.
      eps: added to the variance.
      mask: None, or [H, W] of valid positions: only these count, and y is 0 elsewhere.

    Returns:
      y [B, H, W, C] in x's dtype, and the new (mean, var).
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def moved(batch_mean: jax.Array, batch_var: jax.Array) -> tuple[jax.Array, jax.Array]:
        running = (momentum * mean + (1 - momentum) * batch_mean, momentum * var + (1 - momentum) * batch_var)
        return jax.tree.map(lax.stop_gradient, running)

    if train and mask is None:
        y, batch_mean, batch_var = _normalise(wide, gamma, beta, eps)
        return y.astype(x.dtype), moved(batch_mean, batch_var)
    if train:
        assert mask is not None
        weight = mask.astype(wide.dtype)[None, :, :, None] / (x.shape[0] * mask.sum()).astype(wide.dtype)
        batch_mean = (wide * weight).sum((0, 1, 2))
        batch_var = (jnp.square(wide - batch_mean[None, None, None, :]) * weight).sum((0, 1, 2))
        statistics = moved(batch_mean, batch_var)
        mean, var = batch_mean, batch_var
    else:
        statistics = (mean, var)
    scale = gamma * lax.rsqrt(var + eps)
    y = (wide - mean[None, None, None, :]) * scale[None, None, None, :] + beta[None, None, None, :]
    if mask is not None:
        y = jnp.where(mask.astype(bool)[None, :, :, None], y, 0)
    return y.astype(x.dtype), statistics


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(x: jax.Array, gamma: jax.Array, beta: jax.Array, eps: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the batch; also its mean and variance, through which no gradient flows.

    The gradient is written out: autodiff's takes 1.5 times as long to compile and makes more passes over the data.
    """
    return _normalise_fwd(x, gamma, beta, eps)[0]


def _normalise_fwd(x: jax.Array, gamma: jax.Array, beta: jax.Array, eps: float) -> Any:
    rows = x.reshape(-1, x.shape[-1])
    mean = over_devices(rows.mean(0))
    var = over_devices(jnp.square(rows - mean[None]).mean(0))
    spread = jnp.sqrt(var + eps)
    # The division comes last: XLA's CPU backend repeats cheap sums in each of several readers, but not a division.
    y = (rows * gamma[None] + (beta * spread - mean * gamma)[None]) / spread[None]
    return (y.reshape(x.shape), mean, var), (rows, mean, 1 / spread, gamma)


def _normalise_bwd(eps: float, residuals: Any, cotangents: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, mean, inverse, gamma = residuals
    g = cotangents[0].reshape(rows.shape)
    d_beta = g.sum(0)
    d_gamma = ((rows - mean[None]) * g).sum(0) * inverse
    scale, slope = gamma * inverse, gamma * jnp.square(inverse) * over_devices(d_gamma) / len(rows)
    shift = mean * slope - scale * over_devices(d_beta) / len(rows)
    return (g * scale[None] - rows * slope[None] + shift[None]).reshape(cotangents[0].shape), d_gamma, d_beta


_normalise.defvjp(_normalise_fwd, _normalise_bwd)


def local_contrast_norm(
    x: jax.Array,
    *,
    size: int = 9,
    sigma: float = 2.25,
    channel_mask: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Local contrast normalisation (Jarrett et al. 2009, section 2): subtractive, then divisive.

    v = x - the Gaussian-weighted mean over the window and all channels; y = v / max(c, s), where s is the weighted
    root mean square of v and c the mean of s over the sample's positions. The paper does not treat the border: ours
    divides the window's weights by the part that falls inside. Ours too: s is at least 1e-5, so flat regions give 0.

    Args:
      x: [B, H, W, C].
      size: window, odd.
      sigma: standard deviation of the Gaussian, in positions.
      channel_mask: [C], which channels count; None = all. May be traced, and so may `mask`.
      mask: [H, W], which positions count; None = all.

    Returns:
      [B, H, W, C]; 0 where masked.
    """
    _, height, width, channels = x.shape
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    rows, columns = (jnp.asarray(_gaussian(n, size, sigma), wide.dtype) for n in (height, width))
    channel = jnp.ones(channels, wide.dtype) if channel_mask is None else channel_mask.astype(wide.dtype)
    place = jnp.ones((height, width), wide.dtype) if mask is None else mask.astype(wide.dtype)
    weight = place[None, :, :, None] * channel[None, None, None, :]

    def blur(maps: jax.Array) -> jax.Array:  # [B, H, W] -> [B, H, W]
        return jnp.einsum("ih,bhw,jw->bij", rows, maps, columns, precision="highest")

    # Masked positions far from every valid one have no weight at all in their window.
    total = jnp.maximum(blur(place[None]) * channel.sum(), jnp.finfo(wide.dtype).tiny)
    centred = (wide - (blur((wide * weight).sum(-1)) / total)[..., None]) * weight
    floor = 1e-5
    spread = jnp.sqrt(jnp.maximum(blur(jnp.square(centred).sum(-1)) / total, floor**2))
    typical = (spread * place[None]).sum((1, 2), keepdims=True) / place.sum()
    return (centred / jnp.maximum(spread, typical)[..., None]).astype(x.dtype)


def _gaussian(n: int, size: int, sigma: float) -> np.ndarray:
    """[n, n] banded matrix of exp(-d^2 / 2 sigma^2) within the window."""
    offset = np.arange(n)[:, None] - np.arange(n)[None, :]
    return np.where(np.abs(offset) <= size // 2, np.exp(-(offset**2) / (2 * sigma**2)), 0.0)
