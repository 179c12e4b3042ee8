"""Losses and scores of classifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

Loss = TypeVar("Loss", bound=Callable[..., Any])


def measured_in(unit: str) -> Callable[[Loss], Loss]:
    """Gives a loss its unit for the report. A task that takes another loss has that one's unit, or none."""

    def with_unit(loss: Loss) -> Loss:
        loss.unit = unit  # type: ignore[attr-defined]
        return loss

    return with_unit


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Mean cross-entropy in nats: logits [B, classes], labels i32[B] -> scalar.

    `smoothing` of the target's weight is spread over all classes (Szegedy et al. 2016, section 7).
    """
    # One-hot labels: the gradient of indexing is a scatter, ten more small programs to compile per child.
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    if smoothing:
        targets = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def soft_cross_entropy(logits: jax.Array, teachers: jax.Array) -> jax.Array:
    """Mean cross-entropy in nats with the probabilities of other logits as targets: [B, classes] twice -> scalar."""
    return optax.softmax_cross_entropy(logits, jax.nn.softmax(teachers)).mean()


def hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0, f32[B]; NaN where a logit is not finite."""
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)
    return jnp.where(jnp.isfinite(logits).all(-1), correct, jnp.nan)


def hits_of_best(logits: jax.Array, labels: jax.Array, best: int) -> jax.Array:
    """1 where the label is among the `best` largest logits, else 0, f32[B]; NaN where a logit is not finite.

    Of equal logits the class with the smaller number is the larger.
    """
    _, classes = jax.lax.top_k(logits, best)
    correct = (classes == labels[:, None]).any(-1).astype(jnp.float32)
    return jnp.where(jnp.isfinite(logits).all(-1), correct, jnp.nan)
