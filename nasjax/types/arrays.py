"""What arrays, trees of them and random keys are called here."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

PyTree = Any
Array = jax.Array | np.ndarray
Key = jax.Array  # a typed PRNG key, consumed by whoever receives it
