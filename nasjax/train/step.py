"""Training of one classifier, wholly inside jit: any number of steps, epochs and validations are one program.

Everything is a function of (key, state, choice); `vmap` over the three trains a population.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from nasjax.train import losses
from nasjax.train.augment import augment, whiten
from nasjax.train.recipe import Recipe
from nasjax.train.schedules import step_drops
from nasjax.types import Key, Network, PyTree

_EVAL_BATCH = 256


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

    variables: PyTree  # {"params", "batch_stats"}
    optimiser: PyTree  # optax state
    order: jax.Array  # i32[N], this epoch's permutation of the training part
    train_loss: jax.Array  # f32[epochs], mean cross-entropy in nats; the running epoch's is still a part of the mean
    valid_accuracy: jax.Array  # f32[epochs], fraction; 0 = not reached yet
    step: jax.Array  # i32, steps done
    nan_epoch: jax.Array  # i32, first epoch (1-based) whose loss or logits were not finite; 0 = none


class Trainer(NamedTuple):
    """Pure functions that train one network by one recipe.

    start(variables) -> TrainState
    run(key, state, choice, rate, data, begin, end) -> TrainState     steps begin..end-1 of the whole training
    accuracy(variables, choice, x, y, mean, std) -> f32, a fraction
    """

    start: Callable[..., TrainState]
    run: Callable[..., TrainState]
    accuracy: Callable[..., jax.Array]
    epoch_steps: int
    steps: int  # of the whole training


def trainer(network: Network, recipe: Recipe, train_size: int) -> Trainer:
    """Training of `network` on a part of `train_size` images.

    `key` serves step t as fold_in(key, t), so a training may be cut into any pieces. `choice`, `rate` (the initial
    learning rate) and `key` may be vmapped; `begin`, `end` and `data` are meant to be shared.
    """
    batch = min(recipe.batch_size, train_size)
    epoch_steps = train_size // batch
    steps = epoch_steps * recipe.epochs
    optimiser = optax.chain(
        optax.add_decayed_weights(recipe.weight_decay), optax.trace(recipe.momentum, nesterov=recipe.nesterov)
    )

    def start(variables: PyTree) -> TrainState:
        state = TrainState(
            variables=variables,
            optimiser=optimiser.init(variables["params"]),
            order=jnp.zeros(train_size, jnp.int32),
            train_loss=jnp.zeros(recipe.epochs, jnp.float32),
            valid_accuracy=jnp.zeros(recipe.epochs, jnp.float32),
            step=jnp.int32(0),
            nan_epoch=jnp.int32(0),
        )
        return jax.tree.map(jnp.copy, state)  # no buffer twice: `run` may be given them to consume

    def step(
        key: Key, state: TrainState, choice: Any, rate: jax.Array, data: Data, t: jax.Array
    ) -> TrainState:
        key_augment, key_net = jax.random.split(jax.random.fold_in(key, t))
        epoch, within = t // epoch_steps, t % epoch_steps
        index = lax.dynamic_slice(state.order, (within * batch,), (batch,))
        x = augment(key_augment, whiten(data.train_x[index], data.mean, data.std), recipe.augment)
        x = x.astype(jax.tree.leaves(state.variables["params"])[0].dtype)

        def loss_of(params: PyTree) -> tuple[jax.Array, PyTree]:
            variables = {**state.variables, "params": params}
            logits, variables = network.apply(
                variables, choice, x, key=key_net, train=True, bn_momentum=recipe.bn_momentum
            )
            return losses.cross_entropy(logits, data.train_y[index]), variables

        params = state.variables["params"]
        (loss, variables), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        direction, optimiser_state = optimiser.update(grads, state.optimiser, params)
        now = step_drops(rate, t / steps, recipe.drops, recipe.drop_factor)
        params = jax.tree.map(lambda p, d: p - (now * d).astype(p.dtype), params, direction)
        return state._replace(
            variables={**variables, "params": params},
            optimiser=optimiser_state,
            train_loss=state.train_loss.at[epoch].add(loss.astype(jnp.float32) / epoch_steps),
            nan_epoch=_first(state.nan_epoch, epoch, loss),
        )

    def run(
        key: Key, state: TrainState, choice: Any, rate: jax.Array, data: Data, begin: jax.Array, end: jax.Array
    ) -> TrainState:
        key_order, key_step = jax.random.split(key)

        def shuffle(state: TrainState, t: jax.Array) -> jax.Array:
            order = jax.random.permutation(jax.random.fold_in(key_order, t // epoch_steps), train_size)
            return order.astype(jnp.int32)

        def validate(state: TrainState, t: jax.Array) -> TrainState:
            score = accuracy(state.variables, choice, data.valid_x, data.valid_y, data.mean, data.std)
            epoch = t // epoch_steps
            return state._replace(
                valid_accuracy=state.valid_accuracy.at[epoch].set(score),
                nan_epoch=_first(state.nan_epoch, epoch, score),
            )

        def body(t: jax.Array, state: TrainState) -> TrainState:
            order = lax.cond(t % epoch_steps == 0, shuffle, lambda state, t: state.order, state, t)
            state = step(key_step, state._replace(order=order), choice, rate, data, t)
            return lax.cond((t + 1) % epoch_steps == 0, validate, lambda state, t: state, state, t)

        return lax.fori_loop(begin, end, body, state)._replace(step=jnp.asarray(end, jnp.int32))

    def accuracy(
        variables: PyTree, choice: Any, x: jax.Array, y: jax.Array, mean: jax.Array, std: jax.Array
    ) -> jax.Array:
        pieces = -(-len(y) // _EVAL_BATCH)
        size = -(-len(y) // pieces)
        dtype = jax.tree.leaves(variables["params"])[0].dtype

        def piece(i: jax.Array, total: jax.Array) -> jax.Array:
            position = i * size + jnp.arange(size)
            index = jnp.minimum(position, len(y) - 1)
            logits, _ = network.apply(variables, choice, whiten(x[index], mean, std).astype(dtype))
            return total + jnp.where(position < len(y), losses.hits(logits, y[index]), 0).sum()

        return lax.fori_loop(0, pieces, piece, jnp.float32(0)) / len(y)

    return Trainer(start, run, accuracy, epoch_steps, steps)


def _first(nan_epoch: jax.Array, epoch: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.where((nan_epoch == 0) & ~jnp.isfinite(value), epoch + 1, nan_epoch).astype(jnp.int32)
