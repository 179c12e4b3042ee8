"""From a gradient to a step by a recipe: the optimiser on the vector of all weights, and the learning rate now."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.train import schedules
from nasjax.train.recipe import Recipe
from nasjax.types import PyTree

_UNDECAYED = {"kernels": ("gamma", "beta", "bias"), "kernels_and_biases": ("gamma", "beta")}  # by `Recipe.decay_on`


def descent(recipe: Recipe, params: PyTree) -> list[optax.GradientTransformation]:
    """What turns the clipped gradient into the direction that the learning rate scales; weight by weight.

    The gradient is a vector, as `ravel_pytree` makes it of the weights `params`.
    """
    decay = _decay(recipe, params)
    match recipe.optimizer:
        case "sgd":
            return [decay, optax.trace(recipe.momentum, nesterov=recipe.nesterov)]
        case "adam":
            return [decay, optax.scale_by_adam(*recipe.betas)]
        case "adamw":
            return [optax.scale_by_adam(*recipe.betas), decay]
        case "rmsprop":
            momentum = [optax.trace(recipe.momentum)] if recipe.momentum else []
            return [decay, optax.scale_by_rms(recipe.betas[1]), *momentum]


def rate_now(recipe: Recipe, rate: jax.Array, progress: jax.Array, epoch: jax.Array) -> jax.Array:
    """The learning rate now; `rate` is the initial one."""
    place = progress * recipe.epochs if recipe.rate_per_step else epoch
    match recipe.schedule:
        case "drops":
            now = schedules.step_drops(rate, progress, recipe.drops, recipe.drop_factor)
        case "cosine":
            now = schedules.cosine(rate, place, recipe.epochs, recipe.final_rate)
        case "linear":
            now = schedules.linear(rate, place, recipe.epochs, recipe.final_rate)
        case "exponential":
            now = schedules.exponential(rate, place, recipe.rate_decay)
        case "linear_tail":
            now = schedules.linear_tail(rate, place, recipe.epochs)
    if recipe.warmup_epochs:
        base = jnp.where(epoch < recipe.warmup_epochs, rate, now) if recipe.schedule == "linear_tail" else now
        now = base * schedules.warm_up(epoch, recipe.warmup_epochs)
    return jnp.where(progress < 1, now, 0.0) if recipe.refresh_epochs else now


def at_rest(optimiser: optax.GradientTransformation, params: PyTree) -> PyTree:
    """The optimiser's state before the first step: zeros on the host, where no size compiles a program."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(optimiser.init, params))


def _decay(recipe: Recipe, params: PyTree) -> optax.GradientTransformation:
    """Weight decay of the vector of all weights."""
    if recipe.decay_on == "all":
        return optax.add_decayed_weights(recipe.weight_decay)
    leaves = jax.tree.leaves_with_path(params)
    if recipe.decay_on == "convolutions":
        flags = [leaf.ndim == 4 for _, leaf in leaves]
    else:
        flags = [path[-1].key not in _UNDECAYED[recipe.decay_on] for path, _ in leaves]
    decayed = np.concatenate([np.full(leaf.size, flag) for flag, (_, leaf) in zip(flags, leaves, strict=True)])
    return optax.stateless(lambda grads, weights: grads + recipe.weight_decay * jnp.where(decayed, weights, 0))
