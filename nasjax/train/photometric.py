"""Colour jitter and lighting of ImageNet's recipes, on images in 0..1 before they are whitened; inside jit.

Jitter is what torchvision calls ColorJitter: brightness, contrast, saturation and hue by random amounts, in a random
order for every image. Lighting adds a random colour along the principal components of ImageNet's pixels (Krizhevsky et
al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train.augment import Augment
from nasjax.types import Key, PyTree, Task

_COLOURS = 0x6A6974  # what a step's key is folded with, for randomness of its own
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # of ITU-R BT.601
# Eigenvalues and eigenvectors of the covariance of ImageNet's pixels, as released with fb.resnet.torch.
_VALUES = np.array([0.2175, 0.0188, 0.0045], np.float32)
_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32)


def prepared(
    task: Task, key: Key, x: Any, y: PyTree, mean: jax.Array, std: jax.Array, cfg: Augment
) -> tuple[PyTree, PyTree]:
    """Raw samples as the network reads them, changed at random: colours, then whitening, then `task.augment`."""
    if any(cfg.jitter) or cfg.lighting:
        x = colours(jax.random.fold_in(key, _COLOURS), x, cfg)
    return task.augment(key, task.inputs(x, mean, std), y, cfg)


def colours(key: Key, x: jax.Array, cfg: Augment) -> jax.Array:
    """Images u8 or u16[B, H, W, 3] as f32 in 0..1, each with its own jitter and lighting.

    All randomness of image i is a function of (key, i). Raises ValueError for values whose white is not known.
    """
    if not jnp.issubdtype(x.dtype, jnp.unsignedinteger) or x.ndim != 4 or x.shape[-1] != 3:
        raise ValueError(
            f"jitter and lighting are for RGB images of 8 or 16 bits, not for {x.dtype} {list(x.shape[1:])}; leave "
            "them out of the augmentation"
        )
    unit = x.astype(jnp.float32) / int(jnp.iinfo(x.dtype).max)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(x.shape[0]))

    def one(key: Key, x: jax.Array) -> jax.Array:
        key_amounts, key_order, key_light = jax.random.split(key, 3)
        if any(cfg.jitter):
            factors, order = amounts(key_amounts, cfg.jitter), jax.random.permutation(key_order, 4)
            x = jittered(x, factors, order, tuple(strength > 0 for strength in cfg.jitter))
        return lit(x, cfg.lighting * jax.random.normal(key_light, (3,))) if cfg.lighting else x

    return jax.vmap(one)(keys, unit)


def amounts(key: Key, strengths: tuple[float, ...]) -> jax.Array:
    """Random factors f32[4] of brightness, contrast and saturation, each within 1 +- strength, and the turn of hue."""
    strength = jnp.asarray(strengths)
    low = jnp.maximum(jnp.array([1.0, 1.0, 1.0, 0.0]) - strength, jnp.array([0.0, 0.0, 0.0, -0.5]))
    high = jnp.array([1.0, 1.0, 1.0, 0.0]) + strength
    return jax.random.uniform(key, (4,), minval=low, maxval=high)


def jittered(x: jax.Array, factors: jax.Array, order: jax.Array, present: tuple[bool, ...] = (True,) * 4) -> jax.Array:
    """f32[H, W, 3] in 0..1 after four changes in an order, each kept within 0..1.

    Args:
      x: the image.
      factors: f32[4], of brightness, contrast, saturation (1 = no change) and hue (0 = none, 1 = a whole turn).
      order: i32[4], a permutation: which change comes first.
      present: which of them there are; static.
    """
    changes = (brightness, contrast, saturation, hue)
    for place in range(4):
        found = x
        for number, change in enumerate(changes):
            if present[number]:
                found = jnp.where(order[place] == number, change(x, factors[number]), found)
        x = found
    return x


def brightness(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from black."""
    return jnp.clip(x * factor, 0, 1)


def contrast(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from the mean of its gray form."""
    middle = (x @ _GRAY).mean()
    return jnp.clip(middle + factor * (x - middle), 0, 1)


def saturation(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from its gray form."""
    gray = (x @ _GRAY)[..., None]
    return jnp.clip(gray + factor * (x - gray), 0, 1)


def hue(x: jax.Array, turn: jax.Array) -> jax.Array:
    """The hue of the HSV form by part of a turn.

    Channel k of a colour with hue h (in sixths), value v and chroma c is v - c clip(min(s, 4 - s), 0, 1), s = (k0 + h)
    mod 6 with k0 = 5, 3, 1: the usual inverse without its six cases.
    """
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = functools.reduce(jnp.maximum, (red, green, blue))
    chroma = value - functools.reduce(jnp.minimum, (red, green, blue))
    safe = jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sixths + 6 * turn
    steps = jnp.stack([turned + channel for channel in (5.0, 3.0, 1.0)], -1) % 6
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(steps, 4 - steps), 0, 1)


def lit(x: jax.Array, weights: jax.Array) -> jax.Array:
    """The image and a colour: the principal components, each times its eigenvalue and its weight f32[3]."""
    return x + jnp.reshape(_VECTORS @ (weights * _VALUES), (1, 1, 3))
