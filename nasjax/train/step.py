"""Training of one classifier, wholly inside jit: any number of steps, epochs and validations are one program.

Everything is a function of (key, state, choice); `vmap` over the three trains a population.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from nasjax.ops.collective import mean
from nasjax.train import losses, schedules
from nasjax.train.augment import augment, whiten
from nasjax.train.recipe import Recipe
from nasjax.types import Key, Network, PyTree

_UNDECAYED = ("gamma", "beta", "bias")  # what `Recipe.decay_on` "kernels" leaves out
_EVAL_BATCH = 512  # images of a validation at a time


class Data(NamedTuple):
    """Both parts, resident on the device."""

    train_x: jax.Array  # u8 or f32[N, H, W, C]
    train_y: jax.Array  # i32[N]
    valid_x: jax.Array
    valid_y: jax.Array
    mean: jax.Array  # f32[C]
    std: jax.Array  # f32[C]


class TrainState(NamedTuple):
    """One child in training."""

    params: jax.Array  # [P], all weights in one vector: the optimiser is then one operation, and compiles as one
    batch_stats: jax.Array  # [Q], all running statistics
    optimiser: PyTree  # optax state
    order: jax.Array  # i32[N], this epoch's permutation of the training part
    train_loss: (
        jax.Array
    )  # f32[epochs], mean loss (cross-entropy) in nats; the running epoch's is still a part of the mean
    valid_accuracy: jax.Array  # f32[epochs], fraction; 0 = not reached yet
    step: jax.Array  # i32, steps done
    nan_epoch: jax.Array  # i32, first epoch (1-based) whose loss or logits were not finite; 0 = none


class Trainer(NamedTuple):
    """Pure functions that train one network by one recipe; `run` is the others put together.

    start(variables) -> TrainState
    variables(state) -> {"params", "batch_stats"}
    shuffle(key, epoch) -> i32[N], the order of the training part in that epoch
    batch(key, order, t, data) -> (x f32[B, H, W, C], y i32[B], key), step t's, augmented; key is the network's
    update(state, choice, rate, x, y, key, t) -> TrainState     step t of the whole training
    validate(state, choice, data, t) -> TrainState     at the end of the epoch of step t
    run(key, state, choice, rate, data, begin, end) -> TrainState     steps begin..end-1 of the whole training
    accuracy(variables, choice, x, y, mean, std) -> f32, a fraction
    """

    start: Callable[..., TrainState]
    variables: Callable[[TrainState], PyTree]
    shuffle: Callable[..., jax.Array]
    batch: Callable[..., tuple[jax.Array, jax.Array, Key]]
    update: Callable[..., TrainState]
    validate: Callable[..., TrainState]
    run: Callable[..., TrainState]
    accuracy: Callable[..., jax.Array]
    epoch_steps: int
    steps: int  # of the whole training, refresh_epochs included


def pipeline(recipe: Recipe, train_size: int) -> tuple[Callable[..., Any], Callable[..., Any], int]:
    """Trainer's shuffle, batch and epoch_steps: what does not depend on the network."""
    size = min(recipe.batch_size, train_size)
    epoch_steps = train_size // size

    def shuffle(key: Key, epoch: jax.Array) -> jax.Array:
        key_order, _ = jax.random.split(key)
        return jax.random.permutation(jax.random.fold_in(key_order, epoch), train_size).astype(jnp.int32)

    def batch(key: Key, order: jax.Array, t: jax.Array, data: Data) -> tuple[jax.Array, jax.Array, Key]:
        _, key_step = jax.random.split(key)
        key_augment, key_net = jax.random.split(jax.random.fold_in(key_step, t))
        index = lax.dynamic_slice(order, (t % epoch_steps * size,), (size,))
        x = augment(key_augment, whiten(data.train_x[index], data.mean, data.std), recipe.augment)
        return x, data.train_y[index], key_net

    return shuffle, batch, epoch_steps


def trainer(network: Network, recipe: Recipe, train_size: int, like: PyTree) -> Trainer:
    """Training of `network` on a part of `train_size` images.

    `key` serves step t as fold_in(key, t), so a training may be cut into any pieces. `choice`, `rate` (the initial
    learning rate) and `key` may be vmapped; `begin`, `end` and `data` are meant to be shared. `like` is the network's
    variables, or their shapes.
    """
    shuffle, batch, epoch_steps = pipeline(recipe, train_size)
    moving = epoch_steps * recipe.epochs  # steps that move the weights
    steps = moving + epoch_steps * recipe.refresh_epochs
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    unravel = {name: ravel_pytree(blank[name])[1] for name in ("params", "batch_stats")}
    optimiser = optax.chain(
        *([optax.clip_by_global_norm(recipe.clip)] if recipe.clip else []),
        _decay(recipe, blank["params"]),
        optax.trace(recipe.momentum, nesterov=recipe.nesterov),
    )

    def start(variables: PyTree) -> TrainState:
        params = _ravel(variables["params"])
        state = TrainState(
            params=params,
            batch_stats=_ravel(variables["batch_stats"]),
            optimiser=optimiser.init(params),
            order=jnp.zeros(train_size, jnp.int32),
            train_loss=jnp.zeros(recipe.epochs, jnp.float32),
            valid_accuracy=jnp.zeros(recipe.epochs, jnp.float32),
            step=jnp.int32(0),
            nan_epoch=jnp.int32(0),
        )
        return jax.tree.map(jnp.copy, state)  # no buffer twice: `run` may be given them to consume

    def variables(state: TrainState) -> PyTree:
        return {name: restore(getattr(state, name)) for name, restore in unravel.items()}

    def update(
        state: TrainState, choice: Any, rate: jax.Array, x: jax.Array, y: jax.Array, key: Key, t: jax.Array
    ) -> TrainState:
        epoch = t // epoch_steps
        x = x.astype(state.params.dtype)
        bn_momentum: Any = recipe.bn_momentum
        if recipe.refresh_epochs:
            batches = jnp.maximum(t - moving, 0)  # of the refresh, before this one
            bn_momentum = jnp.where(t < moving, bn_momentum, batches / (batches + 1))

        def loss_of(params: jax.Array) -> tuple[jax.Array, jax.Array]:
            outputs, after = network.apply(
                variables(state._replace(params=params)),
                choice,
                x,
                key=key,
                train=True,
                drop_rate=recipe.drop_path * epoch / recipe.epochs if recipe.drop_path else 0.0,
                bn_momentum=bn_momentum,
            )
            return _loss(outputs, y, recipe), ravel_pytree(after["batch_stats"])[0]

        found = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        (loss, batch_stats), grads = mean(found)  # over devices, in a data-parallel program
        direction, optimiser_state = optimiser.update(grads, state.optimiser, state.params)
        now = _rate(recipe, rate, t / moving, epoch)
        return state._replace(
            params=state.params - (now * direction).astype(state.params.dtype),
            batch_stats=batch_stats,
            optimiser=optimiser_state,
            # A refresh has no place in it: what is added beyond the end is dropped.
            train_loss=state.train_loss.at[epoch].add(loss.astype(jnp.float32) / epoch_steps),
            step=jnp.asarray(t + 1, jnp.int32),
            nan_epoch=_first(state.nan_epoch, epoch, loss),
        )

    def validate(state: TrainState, choice: Any, data: Data, t: jax.Array) -> TrainState:
        score = accuracy(variables(state), choice, data.valid_x, data.valid_y, data.mean, data.std)
        epoch = t // epoch_steps
        if recipe.refresh_epochs:
            epoch = jnp.minimum(epoch, recipe.epochs - 1)
        return state._replace(
            valid_accuracy=state.valid_accuracy.at[epoch].set(score),
            nan_epoch=_first(state.nan_epoch, epoch, score),
        )

    def run(
        key: Key, state: TrainState, choice: Any, rate: jax.Array, data: Data, begin: jax.Array, end: jax.Array
    ) -> TrainState:
        def body(t: jax.Array, state: TrainState) -> TrainState:
            first, last = t % epoch_steps == 0, (t + 1) % epoch_steps == 0
            order = lax.cond(first, lambda order: shuffle(key, t // epoch_steps), lambda order: order, state.order)
            x, y, key_net = batch(key, order, t, data)
            state = update(state._replace(order=order), choice, rate, x, y, key_net, t)
            return lax.cond(last, lambda state: validate(state, choice, data, t), lambda state: state, state)

        return lax.fori_loop(begin, end, body, state)

    def accuracy(
        variables: PyTree, choice: Any, x: jax.Array, y: jax.Array, mean: jax.Array, std: jax.Array
    ) -> jax.Array:
        pieces = -(-len(y) // _EVAL_BATCH)
        size = -(-len(y) // pieces)
        dtype = jax.tree.leaves(variables["params"])[0].dtype

        if pieces == 1:  # no loop: it would be one more thing to compile
            logits, _ = network.apply(variables, choice, whiten(x, mean, std).astype(dtype))
            return losses.hits(logits, y).mean()

        def piece(i: jax.Array, total: jax.Array) -> jax.Array:
            position = i * size + jnp.arange(size)
            index = jnp.minimum(position, len(y) - 1)
            logits, _ = network.apply(variables, choice, whiten(x[index], mean, std).astype(dtype))
            return total + jnp.where(position < len(y), losses.hits(logits, y[index]), 0).sum()

        return lax.fori_loop(0, pieces, piece, jnp.float32(0)) / len(y)

    return Trainer(start, variables, shuffle, batch, update, validate, run, accuracy, epoch_steps, steps)


def _loss(outputs: PyTree, y: jax.Array, recipe: Recipe) -> jax.Array:
    """The loss of logits, or of (logits, auxiliary logits)."""
    logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
    loss = losses.cross_entropy(logits, y, recipe.label_smoothing)
    if not recipe.auxiliary_weight:
        return loss
    if auxiliary is None:
        raise ValueError("auxiliary_weight needs a network with an auxiliary head; build it with one, or set 0")
    return loss + recipe.auxiliary_weight * losses.cross_entropy(auxiliary, y, recipe.label_smoothing)


def _rate(recipe: Recipe, rate: jax.Array, progress: jax.Array, epoch: jax.Array) -> jax.Array:
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
    if recipe.warmup_epochs:
        now = now * schedules.warm_up(epoch, recipe.warmup_epochs)
    return jnp.where(progress < 1, now, 0.0) if recipe.refresh_epochs else now


def _decay(recipe: Recipe, params: PyTree) -> optax.GradientTransformation:
    """Weight decay of the vector of all weights."""
    if recipe.decay_on == "all":
        return optax.add_decayed_weights(recipe.weight_decay)
    leaves = jax.tree.leaves_with_path(params)
    kernels = np.concatenate([np.full(leaf.size, path[-1].key not in _UNDECAYED) for path, leaf in leaves])
    return optax.stateless(lambda grads, weights: grads + recipe.weight_decay * jnp.where(kernels, weights, 0))


def _ravel(tree: PyTree) -> jax.Array:
    """As `ravel_pytree`; on the host for concrete arrays, where JAX would compile a program per shape."""
    leaves = jax.tree.leaves(tree)
    if not leaves or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return ravel_pytree(tree)[0]
    return jnp.asarray(np.concatenate([np.ravel(leaf) for leaf in leaves]))


def _first(nan_epoch: jax.Array, epoch: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.where((nan_epoch == 0) & ~jnp.isfinite(value), epoch + 1, nan_epoch).astype(jnp.int32)
