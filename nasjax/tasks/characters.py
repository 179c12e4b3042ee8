"""Task `characters`: as `language`, of a text whose tokens are characters. Metric: bits per character.

It is the mean cross-entropy to the base 2, the logarithm of the perplexity of a character.
"""

from __future__ import annotations

import jax.numpy as jnp

from nasjax.tasks import language
from nasjax.types import Metric

TASK = language.TASK._replace(
    name="characters",
    metric=Metric("bits_per_character", "plain", sign=-1),
    finish=lambda total, weight: total / (weight * jnp.log(2.0)),
    like="language",
)
