"""Learning-rate schedules, traceable in every argument."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

TAIL = 5  # epochs of the flatter end of `linear_tail`


def step_drops(
    rate: jax.Array | float, progress: jax.Array | float, drops: Sequence[float], factor: float
) -> jax.Array:
    """`rate` times `factor` for every drop already passed (the DenseNet recipe: x0.1 at 50% and 75% of training).

    Args:
      rate: initial learning rate.
      progress: part of the training done, 0..1.
      drops: where the rate drops, as parts of the training.
    """
    passed = (jnp.asarray(progress) >= jnp.asarray(drops, jnp.float32)).sum()
    return rate * jnp.asarray(factor, jnp.float32) ** passed


def cosine(rate: jax.Array | float, epoch: jax.Array | int, epochs: int, final: float = 0.0) -> jax.Array:
    """Half a cosine from `rate` at epoch 0 towards `final`, which epoch `epochs` would have."""
    return final + (rate - final) * (1 + jnp.cos(jnp.pi * jnp.asarray(epoch) / epochs)) / 2


def exponential(rate: jax.Array | float, epoch: jax.Array | int, factor: float) -> jax.Array:
    """`rate` times `factor` after every epoch."""
    return rate * jnp.asarray(factor, jnp.float32) ** jnp.asarray(epoch)


def linear(rate: jax.Array | float, epoch: jax.Array | int, epochs: int, final: float = 0.0) -> jax.Array:
    """A straight line from `rate` at epoch 0 towards `final`, which epoch `epochs` would have."""
    return final + (rate - final) * (1 - jnp.asarray(epoch) / epochs)


def linear_tail(rate: jax.Array | float, epoch: jax.Array | int, epochs: int) -> jax.Array:
    """`linear` towards 0 at epoch `epochs` - 5, then a flatter line to `epochs`: the released ImageNet trainings of
    P-DARTS and PC-DARTS, whose rate of 0.5 / 250 an epoch is large at the end."""
    epoch, straight = jnp.asarray(epoch), epochs - TAIL
    return rate * jnp.where(epoch < straight, (straight - epoch) / straight, (epochs - epoch) / (straight * TAIL))


def warm_up(epoch: jax.Array | int, epochs: int) -> jax.Array:
    """The factor of the rate: (epoch + 1) / epochs in the first `epochs` epochs, then 1."""
    return jnp.minimum(1.0, (jnp.asarray(epoch) + 1) / epochs)
