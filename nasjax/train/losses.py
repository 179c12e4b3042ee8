"""Losses and scores of classifiers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy in nats: logits [B, classes], labels i32[B] -> scalar."""
    # One-hot labels: the gradient of indexing is a scatter, ten more small programs to compile per child.
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)).mean()


def hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0, f32[B]; NaN where a logit is not finite."""
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)
    return jnp.where(jnp.isfinite(logits).all(-1), correct, jnp.nan)
