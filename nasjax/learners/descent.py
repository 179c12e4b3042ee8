"""How learners update shared weights (SGD) and architecture parameters (Adam), as the DARTS family does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.train.sgd import Sgd
from nasjax.types import PyTree


def cosine(sgd: Sgd, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, on the host."""
    rate = sgd.final_rate + (sgd.learning_rate - sgd.final_rate) * (1 + math.cos(math.pi * epoch / epochs)) / 2
    return rate * min(1.0, (epoch + 1) / sgd.warmup_epochs) if sgd.warmup_epochs else rate


def descend(
    sgd: Sgd, params: PyTree, momentum: PyTree, grads: PyTree, rate: jax.Array | float
) -> tuple[PyTree, PyTree]:
    """One unclipped step: buffer = momentum * buffer + grads + weight_decay * params; params - rate * buffer."""
    buffer = jax.tree.map(lambda m, g, p: sgd.momentum * m + g + sgd.weight_decay * p, momentum, grads, params)
    return jax.tree.map(lambda p, m: p - rate * m, params, buffer), buffer


def at_rest(params: PyTree) -> PyTree:
    """SGD's buffer before the first step; made on the host, because hundreds of shapes would each compile a program."""
    return jax.tree.map(lambda p: jnp.asarray(np.zeros(p.shape, p.dtype)), params)


def clip(grads: PyTree, norm: float) -> PyTree:
    """`grads` scaled down to at most this global norm; 0 = as they are."""
    if not norm:
        return grads
    scale = norm / jnp.maximum(jnp.sqrt(inner(grads, grads)), norm)
    return jax.tree.map(lambda g: g * scale, grads)


def inner(a: PyTree, b: PyTree) -> jax.Array:
    """The inner product of two pytrees."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x, y: (x * y).sum(), a, b))


@dataclass(frozen=True)
class Adam:
    """Adam for architecture parameters; its weight decay is added to the gradient (docs/methods/darts.md).

    Attributes:
      learning_rate: constant.
      b1, b2: decay of the moments.
      weight_decay: the decay is part of the gradient, so the moments see it.
      clip: largest norm of the whole gradient; None = not clipped.

    Raises:
      ValueError: a value out of its range.
    """

    learning_rate: float = 3e-4
    b1: float = 0.5
    b2: float = 0.999
    weight_decay: float = 1e-3
    clip: float | None = None

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not 0 <= self.b1 < 1 or not 0 <= self.b2 < 1 or self.weight_decay < 0:
            raise ValueError("learning_rate must be positive, b1 and b2 in [0, 1), weight_decay not negative")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None for no clipping; got {self.clip}")


def transformation(adam: Adam) -> optax.GradientTransformation:
    """The optax form of `adam`."""
    return optax.chain(
        optax.stateless(lambda grads, _: grads if adam.clip is None else clip(grads, adam.clip)),
        optax.add_decayed_weights(adam.weight_decay),
        optax.adam(adam.learning_rate, adam.b1, adam.b2),
    )
