"""Losses and scores of classifiers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Mean cross-entropy in nats: logits [B, classes], labels i32[B] -> scalar.

    `smoothing` of the target's weight is spread over all classes (Szegedy et al. 2016, section 7).
    """
    # One-hot labels: the gradient of indexing is a scatter, ten more small programs to compile per child.
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    if smoothing:
        targets = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def classified(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy in nats and accuracy of logits [B, classes] for labels i32[B]."""
    return cross_entropy(logits, labels), hits(logits, labels).mean()


def judged(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The terms whose mean is `classified`, f32[B] each: cross-entropy in nats, and whether the label was hit."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, targets), hits(logits, labels)


def hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0, f32[B]; NaN where a logit is not finite."""
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)
    return jnp.where(jnp.isfinite(logits).all(-1), correct, jnp.nan)
