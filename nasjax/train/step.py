"""Training of one network, wholly inside jit: any number of steps, epochs and validations are one program.

Everything is a function of (key, state, choice); `vmap` over the three trains a population.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from nasjax.ops.collective import mean
from nasjax.train.compiling import jit
from nasjax.train.optimiser import at_rest, descent, rate_now
from nasjax.train.photometric import prepared
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished, nothing, summed
from nasjax.types import Key, Network, PyTree, Signature, Task, carries_state

_EVAL_BATCH = 512  # samples of a validation at a time, where their order does not matter
_EVAL_TOKENS = 2**11  # of a text at a time: a network answers every token with a number for each word
_EVAL_PIXELS = 2**18  # of masks at a time: a network that answers every pixel keeps its maps at full size


class Data(NamedTuple):
    """Both parts, resident on the device; or images that stay in files (`train.streaming`), and y on the host."""

    train_x: Any  # [N, ...]; images u8 or f32[N, H, W, C], windows of tokens i32[N, T]
    train_y: Any  # [N, ...]; classes i32[N], masks [N, H, W, 1], the windows' next tokens i32[N, T]
    valid_x: Any
    valid_y: Any
    mean: jax.Array  # f32[C] of images, else f32[0]
    std: jax.Array  # f32[C]


class TrainState(NamedTuple):
    """One child in training."""

    params: jax.Array  # [P], all weights in one vector: the optimiser is then one operation, and compiles as one
    rest: jax.Array  # [Q], all that `variables` holds beside the weights: running statistics
    optimiser: PyTree  # optax state
    order: jax.Array  # i32[N], this epoch's order of the training part
    carry: PyTree  # what the network hands to the next step; () for most
    train_loss: jax.Array  # f32[epochs], the task's mean loss; the running epoch's is still a part of the mean
    valid_metric: jax.Array  # f32[epochs], the task's metric; 0 = not reached yet
    step: jax.Array  # i32, steps done
    nan_epoch: jax.Array  # i32, first epoch (1-based) whose loss or outputs were not finite; 0 = none


class Trainer(NamedTuple):
    """Pure functions that train one network by one recipe; `run` is the others put together.

    start(variables) -> TrainState
    variables(state) -> {"params", ...}
    shuffle(key, epoch) -> i32[N], the order of the training part in that epoch
    batch(key, order, t, data) -> (x, y, key), step t's samples as the network reads them, augmented, and its own key
    update(state, choice, rate, x, y, key, t) -> TrainState     step t of the whole training
    validate(state, choice, data, t) -> TrainState     at the end of the epoch of step t
    run(key, state, choice, rate, data, begin, end) -> TrainState     steps begin..end-1 of the whole training
    measure(variables, choice, x, y, mean, std) -> f32, the task's metric
    sums(variables, choice, x, y, counted, mean, std) -> the sums of what the task scores, of a piece of a part
    judged(state, metric, t) -> TrainState     with the validation metric at the end of the epoch of step t
    """

    start: Callable[..., TrainState]
    variables: Callable[[TrainState], PyTree]
    shuffle: Callable[..., jax.Array]
    batch: Callable[..., tuple[jax.Array, jax.Array, Key]]
    update: Callable[..., TrainState]
    validate: Callable[..., TrainState]
    run: Callable[..., TrainState]
    measure: Callable[..., jax.Array]
    sums: Callable[..., PyTree]
    judged: Callable[..., TrainState]
    epoch_steps: int
    steps: int  # of the whole training, refresh_epochs included


def keys_of_step(key: Key, t: jax.Array) -> tuple[Key, Key]:
    """The keys of step t's augmentation and of its network; `key` is the training's."""
    _, key_step = jax.random.split(key)
    key_augment, key_net = jax.random.split(jax.random.fold_in(key_step, t))
    return key_augment, key_net


def pipeline(recipe: Recipe, train_size: int, task: Task) -> tuple[Callable[..., Any], Callable[..., Any], int]:
    """Trainer's shuffle, batch and epoch_steps: what does not depend on the network.

    The streams of a contiguous task are equal parts of the whole sequence; step t takes window t of each.
    """
    size = min(recipe.batch_size, train_size)
    epoch_steps = train_size // size
    streams = np.concatenate(
        [np.arange(epoch_steps * size).reshape(size, epoch_steps).T.ravel(), np.arange(epoch_steps * size, train_size)]
    ).astype(np.int32)

    def shuffle(key: Key, epoch: jax.Array) -> jax.Array:
        if task.contiguous:
            return jnp.asarray(streams)
        key_order, _ = jax.random.split(key)
        return jax.random.permutation(jax.random.fold_in(key_order, epoch), train_size).astype(jnp.int32)

    def batch(key: Key, order: jax.Array, t: jax.Array, data: Data) -> tuple[PyTree, PyTree, Key]:
        key_augment, key_net = keys_of_step(key, t)
        index = lax.dynamic_slice(order, (t % epoch_steps * size,), (size,))
        raw, y = data.train_x[index], data.train_y[index]
        return *prepared(task, key_augment, raw, y, data.mean, data.std, recipe.augment), key_net

    return shuffle, batch, epoch_steps


@functools.lru_cache(maxsize=8)
def pipeline_programs(
    recipe: Recipe, train_size: int, task: Task
) -> tuple[Callable[..., Any], Callable[..., Any], int]:
    """`pipeline` with its functions jitted: they know nothing of the network, so all children share their programs."""
    shuffle, batch, epoch_steps = pipeline(recipe, train_size, task)
    return jit(shuffle), jit(batch), epoch_steps


def pieces_of(y: PyTree, task: Task, streams: int | None = None) -> tuple[int, int]:
    """How many pieces a part with the targets `y` is measured in, and the samples of each, `streams` at most."""
    count, *sides = jax.tree.leaves(y)[0].shape
    most = max(1, (_EVAL_TOKENS if task.contiguous else _EVAL_PIXELS) // math.prod(sides))
    pieces = -(-count // (streams or min(_EVAL_BATCH, most)))
    return pieces, -(-count // pieces)


def example(network: Network, signature: Signature) -> PyTree:
    """Zeros in the form of a batch of one sample, for `network.init`."""
    x = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), signature.inputs)
    return (x, network.carry(1)) if carries_state(network.carry) else x


def trainer(network: Network, recipe: Recipe, train_size: int, like: PyTree, task: Task) -> Trainer:
    """Training of `network` for `task` on a part of `train_size` samples.

    `key` serves step t as fold_in(key, t), so a training may be cut into any pieces. `choice`, `rate` (the initial
    learning rate) and `key` may be vmapped; `begin`, `end` and `data` are meant to be shared. `like` is the network's
    variables, or their shapes. The state that a network carries starts anew with every epoch.

    Raises ValueError where the recipe has eval_streams that this network would not read.
    """
    shuffle, batch, epoch_steps = pipeline(recipe, train_size, task)
    moving = epoch_steps * recipe.epochs  # steps that move the weights
    steps = moving + epoch_steps * recipe.refresh_epochs
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(like))
    clip = [optax.clip_by_global_norm(recipe.clip)] if recipe.clip else []
    optimiser = optax.chain(*clip, *descent(recipe, blank["params"]))
    fresh = network.carry(min(recipe.batch_size, train_size))
    stateful = carries_state(network.carry)
    in_streams = task.contiguous and stateful
    if recipe.accumulate > 1 and stateful:
        raise ValueError("accumulate has no meaning for a network that carries state through a text; leave it 1")
    if min(recipe.batch_size, train_size) % recipe.accumulate:
        raise ValueError(
            f"accumulate={recipe.accumulate} does not divide a batch of all {train_size} samples; write accumulate=1"
        )
    if recipe.eval_streams > 1 and not in_streams:
        raise ValueError("eval_streams has no effect: the network carries no state through a text; leave it out")

    def start(variables: PyTree) -> TrainState:
        params = _ravel(variables["params"])
        zeros: Any = np.zeros  # from the host no shape compiles a program
        still = at_rest(optimiser, params)
        state = TrainState(
            params=params,
            rest=_ravel(_without_params(variables)),
            optimiser=(still, params) if recipe.ema else still,
            order=zeros(train_size, np.int32),
            carry=fresh,
            train_loss=zeros(recipe.epochs, np.float32),
            valid_metric=zeros(recipe.epochs, np.float32),
            step=zeros((), np.int32),
            nan_epoch=zeros((), np.int32),
        )
        if _traced(state):
            return jax.tree.map(jnp.asarray, state)
        # No buffer twice: `run` may be given them to consume.
        return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf), may_alias=False), state)

    def variables(state: TrainState) -> PyTree:
        params = state.optimiser[1] if recipe.ema else state.params
        return moving_variables(state._replace(params=params))

    def moving_variables(state: TrainState) -> PyTree:
        """Those that the optimiser moves."""
        return {"params": _parted(state.params, blank["params"]), **_parted(state.rest, _without_params(blank))}

    def call(variables: PyTree, choice: Any, x: PyTree, carry: PyTree, **options: Any) -> tuple[PyTree, PyTree, PyTree]:
        """Outputs, what is carried on, and the variables afterwards."""
        outputs, after = network.apply(variables, choice, (x, carry) if stateful else x, **options)
        outputs, carry = outputs if stateful else (outputs, carry)
        return outputs, carry, after

    def update(
        state: TrainState, choice: Any, rate: jax.Array, x: PyTree, y: PyTree, key: Key, t: jax.Array
    ) -> TrainState:
        epoch = t // epoch_steps
        x = cast(x, state.params.dtype)
        carry = jax.tree.map(lambda new, old: jnp.where(t % epoch_steps == 0, new, old), fresh, state.carry)
        bn_momentum: Any = recipe.bn_momentum
        if recipe.refresh_epochs:
            batches = jnp.maximum(t - moving, 0)  # of the refresh, before this one
            bn_momentum = jnp.where(t < moving, bn_momentum, batches / (batches + 1))

        def loss_of(
            params: jax.Array, rest: jax.Array, x: PyTree, y: PyTree, key: Key
        ) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
            outputs, left, after = call(
                moving_variables(state._replace(params=params, rest=rest)),
                choice,
                x,
                carry,
                key=key,
                train=True,
                drop_rate=recipe.drop_path * epoch / recipe.epochs if recipe.drop_path else 0.0,
                bn_momentum=bn_momentum,
            )
            return task.loss(outputs, y, recipe), (ravel_pytree(_without_params(after))[0], left)

        slope = jax.value_and_grad(loss_of, has_aux=True)
        if recipe.accumulate == 1:
            (loss, (rest, left)), grads = slope(state.params, state.rest, x, y, key)
        else:
            left = carry
            (loss, rest), grads = _accumulated(slope, recipe.accumulate, state.params, state.rest, x, y, key)
        (loss, rest), grads = mean(((loss, rest), grads))  # over devices, in a data-parallel program
        before, average = state.optimiser if recipe.ema else (state.optimiser, state.params)
        direction, optimiser_state = optimiser.update(grads, before, state.params)
        now = rate_now(recipe, rate, t / moving, epoch)
        params = state.params - (now * direction).astype(state.params.dtype)
        if recipe.ema:
            optimiser_state = (optimiser_state, recipe.ema * average + (1 - recipe.ema) * params)
        return state._replace(
            params=params,
            rest=rest,
            optimiser=optimiser_state,
            carry=left,
            # A refresh has no place in it: what is added beyond the end is dropped.
            train_loss=state.train_loss.at[epoch].add(loss.astype(jnp.float32) / epoch_steps),
            step=jnp.asarray(t + 1, jnp.int32),
            nan_epoch=first_nan(state.nan_epoch, epoch, loss),
        )

    def validate(state: TrainState, choice: Any, data: Data, t: jax.Array) -> TrainState:
        return judged(state, measure(variables(state), choice, data.valid_x, data.valid_y, data.mean, data.std), t)

    def judged(state: TrainState, score: jax.Array, t: jax.Array) -> TrainState:
        epoch = t // epoch_steps
        if recipe.refresh_epochs:
            epoch = jnp.minimum(epoch, recipe.epochs - 1)
        return state._replace(
            valid_metric=state.valid_metric.at[epoch].set(score),
            nan_epoch=first_nan(state.nan_epoch, epoch, score),
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

    def measure(variables: PyTree, choice: Any, x: PyTree, y: PyTree, mean: jax.Array, std: jax.Array) -> jax.Array:
        count = len(jax.tree.leaves(y)[0])
        pieces, size = pieces_of(y, task, recipe.eval_streams if in_streams else None)
        dtype = jax.tree.leaves(variables["params"])[0].dtype

        def sums(x: PyTree, y: PyTree, carry: PyTree, counted: jax.Array | None = None) -> tuple[PyTree, PyTree]:
            outputs, carry, _ = call(variables, choice, cast(task.inputs(x, mean, std), dtype), carry)
            return summed(task, outputs, y, counted), carry

        if pieces == 1:  # no loop: it would be one more thing to compile
            return finished(task, sums(x, y, network.carry(count))[0])

        def piece(i: jax.Array, carry: PyTree) -> tuple[PyTree, PyTree]:
            rows = jnp.arange(size)
            position = rows * pieces + i if in_streams else i * size + rows
            index = jnp.minimum(position, count - 1)
            part_x, part_y = jax.tree.map(lambda leaf: leaf[index], (x, y))
            return sums(part_x, part_y, carry, position < count)

        def more(i: jax.Array, state: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            total, carry = state
            part, carry = piece(i, carry)
            return jax.tree.map(jnp.add, total, part), carry

        begin = network.carry(size)
        form, _ = jax.eval_shape(piece, jnp.int32(0), begin)
        return finished(task, lax.fori_loop(0, pieces, more, (nothing(form), begin))[0])

    def piece_sums(
        variables: PyTree, choice: Any, x: PyTree, y: PyTree, counted: jax.Array, mean: jax.Array, std: jax.Array
    ) -> PyTree:
        dtype = jax.tree.leaves(variables["params"])[0].dtype
        outputs, _, _ = call(variables, choice, cast(task.inputs(x, mean, std), dtype), ())
        return summed(task, outputs, y, counted)

    return Trainer(
        start,
        variables,
        shuffle,
        batch,
        update,
        validate,
        run,
        measure,
        piece_sums,
        judged,
        epoch_steps,
        steps,
    )


def _accumulated(
    slope: Callable[..., Any], parts: int, params: jax.Array, rest: jax.Array, x: PyTree, y: PyTree, key: Key
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Loss, what the network holds beside its weights afterwards, and gradient: means over equal parts of a batch."""

    def one(carried: tuple[Any, ...], of: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
        loss, rest, grads = carried
        (value, (rest, _)), own = slope(params, rest, *of)
        return (loss + value / parts, rest, grads + own / parts), None

    pieces = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), (x, y))
    begin = (jnp.zeros((), params.dtype), rest, jnp.zeros_like(params))
    (loss, rest, grads), _ = lax.scan(one, begin, (*pieces, jax.random.split(key, parts)))
    return (loss, rest), grads


def _without_params(variables: PyTree) -> PyTree:
    return {name: part for name, part in variables.items() if name != "params"}


def cast(x: PyTree, dtype: Any) -> PyTree:
    """Floating arrays in the weights' type; tokens and other integers stay what they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, x)


def _ravel(tree: PyTree) -> Any:
    """As `ravel_pytree`; on the host for concrete arrays, where JAX would compile a program per shape."""
    leaves = jax.tree.leaves(tree)
    if not leaves or _traced(leaves):
        return ravel_pytree(tree)[0]
    return np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(jnp.result_type(*leaves))


def _parted(vector: jax.Array, like: PyTree) -> PyTree:
    """The inverse of `_ravel`."""
    leaves, tree = jax.tree.flatten(like)
    sizes = [leaf.size for leaf in leaves]
    if not leaves:
        return like
    traced = _traced(vector)
    pieces: Any = lax.split(vector, sizes) if traced else np.split(np.asarray(vector), np.cumsum(sizes)[:-1])
    parted = [piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]
    if len({leaf.dtype for leaf in leaves}) > 1:
        parted = [piece.astype(leaf.dtype) for piece, leaf in zip(parted, leaves, strict=True)]
    return jax.tree.unflatten(tree, parted if traced else map(jax.device_put, parted))


def _traced(tree: PyTree) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def first_nan(nan_epoch: jax.Array, epoch: jax.Array, value: jax.Array) -> jax.Array:
    """`nan_epoch` after a value of an epoch (from 0): epoch + 1 where it is the first that is not finite."""
    return jnp.where((nan_epoch == 0) & ~jnp.isfinite(value), epoch + 1, nan_epoch).astype(jnp.int32)
