"""Learning-rate schedules, traceable in every argument."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


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
