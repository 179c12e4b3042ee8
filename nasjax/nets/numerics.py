"""The meaning of a `dtype` option: the precision of the large multiplications."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_PRECISION = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


def precision(dtype: str) -> str:
    """Precision argument of `lax.conv`, `einsum` and the like. Raises ValueError for an unknown dtype."""
    if dtype not in _PRECISION:
        raise ValueError(f"unknown dtype {dtype!r}; choose float32, tf32 or bfloat16")
    return _PRECISION[dtype]


def cast(dtype: str, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Operands of a multiplication: bfloat16 where asked for, else as they are (float64 stays so, in tests)."""
    return tuple(a.astype(jnp.bfloat16) for a in arrays) if dtype == "bfloat16" else arrays
