"""Spectral norm of linear maps by power iteration (Miyato et al. 2018, arXiv:1802.05957, section 2 and appendix A).

Vectors may be arrays of any shape, and many maps may be iterated side by side: `axes` are those over which one vector
extends, the others count maps.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def power_iteration(
    linear: Callable[[jax.Array], jax.Array],
    u: jax.Array,
    like: jax.ShapeDtypeStruct | jax.Array,
    *,
    axes: tuple[int, ...],
    iterations: int = 5,
) -> tuple[jax.Array, jax.Array]:
    """The leading left and right singular vectors of `linear`, started from u.

    Args:
      linear: the map W; its transpose is taken by reverse-mode differentiation.
      u: shape of an output of W, any length.
      like: shape and dtype of an input of W.
      axes: over which one vector extends, in inputs as in outputs; negative axes where their ranks differ.
      iterations: at least 1.

    Returns:
      u, v of unit length; ||W v|| is the estimate of ||W||_2, and `inner(u, W v)` equals it.
    """
    transpose = jax.vjp(linear, jnp.zeros(like.shape, like.dtype))[1]

    def body(_: int, vectors: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        v = _unit(transpose(vectors[0])[0], axes)
        return _unit(linear(v), axes), v

    return lax.fori_loop(0, iterations, body, (u, jnp.zeros(like.shape, like.dtype)))


def estimate(u: jax.Array, image: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """sigma = u^T W v from u and image = W v; differentiated by W alone, as the vectors count as constants."""
    return (lax.stop_gradient(u) * image).sum(axes)


def _unit(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    norm = jnp.sqrt(jnp.square(x).sum(axes, keepdims=True))
    return x / jnp.maximum(norm, jnp.finfo(x.dtype).tiny)
