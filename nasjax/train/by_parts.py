"""Training of a network part by part from the host: one that was never seen before compiles nothing.

`train.step` compiles a program per network, and here there is one per kind of part. The two give the same up to
rounding: the same keys, batches, rates and curves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from nasjax.ops.parts import part_of, with_part
from nasjax.train.compiling import jit
from nasjax.train.optimiser import at_rest, descent, rate_now
from nasjax.train.passes import KEPT, Call, compile_ahead, evaluated, now, record, reverse
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished, nothing, summed
from nasjax.train.step import Data, cast, first_nan, pieces_of, pipeline, pipeline_programs
from nasjax.train.streaming import PIECE, forms, on_device, pieces, step_form, steps, streamed
from nasjax.types import Array, Key, Network, PyTree, Task, carries_state


class PartsState(NamedTuple):
    """One network in training. Before the first step everything is on the host: the programs that read it move it."""

    own: tuple[PyTree, ...]  # variables of every part
    optimiser: tuple[PyTree, ...]  # optax states, of every part's weights as one vector
    order: Array  # i32[N], this epoch's order of the training part
    train_loss: Array  # f32[epochs], as in `TrainState`
    valid_metric: Array  # f32[epochs]
    step: Array  # i32, steps done
    nan_epoch: Array  # i32


class PartsTrainer(NamedTuple):
    """A network's training as functions for the host.

    start(variables) -> PartsState
    variables(state) -> {"params", ...}
    run(key, state, choice, rate, data, begin, end) -> PartsState     steps begin..end-1 of the whole training, and a
      validation at the end of every epoch among them; it waits for nothing that it computes
    measure(variables, choice, x, y, mean, std, size=None) -> f32, the task's metric; `size` samples at a time, which
      are compiled for
    """

    start: Callable[[PyTree], PartsState]
    variables: Callable[[PartsState], PyTree]
    run: Callable[..., PartsState]
    measure: Callable[..., jax.Array]
    epoch_steps: int
    steps: int


def unsuited(network: Network, recipe: Recipe) -> str:
    """Why the network cannot be trained part by part, "" where it can."""
    if not network.parts:
        return "it is not made of parts"
    if carries_state(network.carry):
        return "it carries state from step to step"
    asked = [name for name in ("refresh_epochs", "ema") if getattr(recipe, name)]
    asked += ["accumulate"] if recipe.accumulate > 1 else []
    return f"the recipe has {asked[0]}" if asked else ""


def by_parts(network: Network, recipe: Recipe, train_size: int, task: Task) -> PartsTrainer:
    """Training of `network` for `task` on a part of `train_size` samples; see `step.trainer`, which it follows.

    Programs are compiled, several at a time, before the first step that needs them.

    Raises:
      ValueError: the network, recipe or task is not for this: see `unsuited`.
    """
    if reason := unsuited(network, recipe) or ("the task is a long sequence" if task.contiguous else ""):
        raise ValueError(f"this network cannot be trained part by part: {reason}; use strategy=exact")
    parts, ready = network.parts, False
    reader: tuple[Data, Callable[..., Any]] | None = None
    shuffle, _, epoch_steps = pipeline_programs(recipe, train_size, task)

    def start(variables: PyTree) -> PartsState:
        own = tuple(part_of(variables, part) for part in parts)
        return PartsState(
            own=own,
            optimiser=tuple(_at_rest(recipe, _shapes(one.get("params", {}))) for one in own),
            order=np.zeros(train_size, np.int32),
            train_loss=np.zeros(recipe.epochs, np.float32),
            valid_metric=np.zeros(recipe.epochs, np.float32),
            step=np.zeros((), np.int32),
            nan_epoch=np.zeros((), np.int32),
        )

    def variables(state: PartsState) -> PyTree:
        tree: PyTree = {"params": {}, "batch_stats": {}}
        for part, own in zip(parts, state.own, strict=True):
            tree = with_part(tree, part, {name: of for name, of in own.items() if of})
        return tree

    def update(
        call: Call, state: PartsState, choices: Sequence[PyTree], rate: Any, batch: Any, key: Key, t: int
    ) -> PartsState:
        """Step t. Its programs are called by `call`; `batch` is what `_reader` gave for it."""
        program, order, data = batch
        x, y, key_net = call(program, key, order, np.int32(t), data)
        drop = np.float32(recipe.drop_path * (t // epoch_steps) / recipe.epochs) if recipe.drop_path else None
        outputs, pulls, stats = record(parts, state.own, choices, key_net, drop, x, call, 1, recipe.bn_momentum)
        told = call(_loss(recipe, task, epoch_steps), outputs, y, state.train_loss, state.nan_epoch, rate, np.int32(t))
        slope, now_rate, train_loss, nan_epoch = told
        del outputs, x
        params = [own.get("params", {}) for own in state.own]
        moved = _moved(parts, params, state.optimiser, pulls, slope, now_rate, recipe, call)
        own = tuple(
            {**old, **({"params": new} if new else {}), **after}
            for old, (new, _), after in zip(state.own, moved, stats, strict=True)
        )
        return state._replace(
            own=own, optimiser=tuple(one for _, one in moved), train_loss=train_loss, nan_epoch=nan_epoch
        )

    def validate(call: Call, state: PartsState, choices: Sequence[PyTree], data: Data, t: int) -> PartsState:
        """At the end of the epoch of step t."""
        total = sums(call, state.own, choices, data.valid_x, data.valid_y, data.mean, data.std)
        epoch = np.int32(t // epoch_steps)
        metric, nan_epoch = call(_finish(task), total, state.valid_metric, state.nan_epoch, epoch)
        return state._replace(valid_metric=metric, nan_epoch=nan_epoch)

    def resident(call: Call, dtype: Any, x: PyTree, y: PyTree, mean: Any, std: Any, size: int | None) -> Iterator[Any]:
        """A part's pieces, as `_cut` gives them."""
        size = size or pieces_of(y, task)[1]
        for i in range(-(-len(jax.tree.leaves(y)[0]) // size)):
            yield call(_cut(task, size, dtype), x, y, mean, std, np.int32(i))

    def files(call: Call, dtype: Any, x: Any, y: Any, mean: Any, std: Any) -> Iterator[Any]:
        """The same where images stay in files; of shapes there is one piece, and nothing is read."""
        size = min(PIECE, len(y))
        found = pieces(x, y, size) if call is now else [forms(x, y, size)]
        for part_x, part_y, inside in found:
            yield call(_whitened(task, dtype), part_x, mean, std), part_y, inside

    def sums(
        call: Call,
        own: Sequence[PyTree],
        choices: Sequence[PyTree],
        x: PyTree,
        y: PyTree,
        mean: Any,
        std: Any,
        size: int | None = None,
    ) -> PyTree:
        """Of the scores of all samples; of those in memory `size` at a time, None = as suits their number."""
        total: PyTree = None
        one, more = _measure(task)
        dtype = _dtype(own)
        read = (
            files(call, dtype, x, y, mean, std)
            if hasattr(x, "sequence")
            else resident(call, dtype, x, y, mean, std, size)
        )
        for part_x, part_y, inside in read:
            scored = evaluated(parts, own, choices, part_x, call), part_y, inside
            if total is None:
                total = jax.tree.map(jnp.asarray, nothing(jax.eval_shape(one, *scored)))
            total = call(more, *scored, total)
        return total

    def measure(
        variables: PyTree, choice: Any, x: PyTree, y: PyTree, mean: Any, std: Any, size: int | None = None
    ) -> jax.Array:
        own = [part_of(variables, part) for part in parts]
        return finished(task, sums(now, own, [part.pick(choice) for part in parts], x, y, mean, std, size))

    def run(key: Key, state: PartsState, choice: Any, rate: Any, data: Data, begin: int, end: int) -> PartsState:
        nonlocal ready, reader
        if reader is None or reader[0] is not data:
            reader = data, _reader(recipe, data, task, _dtype(state.own))
        batch = reader[1]
        choices, rate = [part.pick(choice) for part in parts], jnp.asarray(np.float32(rate))
        if not ready:

            def walk(call: Call) -> PartsState:
                first = update(call, state, choices, rate, batch(key, state.order, None), key, 0)
                return validate(call, first, choices, data, 0)

            compile_ahead(walk)
            ready = True
        for t in range(int(begin), int(end)):
            if t % epoch_steps == 0:
                state = state._replace(order=shuffle(key, np.int32(t // epoch_steps)))
            state = update(now, state, choices, rate, batch(key, state.order, t), key, t)._replace(
                step=jnp.asarray(np.int32(t + 1))
            )
            if (t + 1) % epoch_steps == 0:
                state = validate(now, state, choices, data, t)
        return state

    return PartsTrainer(start, variables, run, measure, epoch_steps, epoch_steps * recipe.epochs)


def _moved(
    parts: Sequence[Any],
    params: Sequence[PyTree],
    optimiser: Sequence[PyTree],
    pulls: list[PyTree],
    slope: PyTree,
    rate: PyTree,
    recipe: Recipe,
    call: Call,
) -> list[tuple[PyTree, PyTree]]:
    """Every part's new weights and optimiser state.

    A part's weights move in the program of its backward pass. With a clip of the whole gradient they must wait for its
    norm: then they move afterwards.
    """
    moved: list[Any] = [None] * len(parts)
    squares = jnp.asarray(np.float32(0))

    def back(i: int, at: PyTree) -> PyTree:
        nonlocal squares
        if recipe.clip:
            moved[i], squares, by_inputs = call(_squared(parts[i].apply), at, squares)
        else:
            moved[i], by_inputs = call(_descended(parts[i].apply, recipe), at, params[i], optimiser[i], rate)
        return by_inputs

    reverse(parts, pulls, {"y": slope}, call, back)
    if not recipe.clip:
        return moved
    last = _clipped(recipe)
    return [
        call(last, gradient, weights, state, rate, squares)
        for gradient, weights, state in zip(moved, params, optimiser, strict=True)
    ]


def _dtype(own: Sequence[PyTree]) -> Any:
    """Of the weights."""
    return next(leaf.dtype for one in own for leaf in jax.tree.leaves(one.get("params", {})))


def _shapes(params: PyTree) -> Any:
    """The sizes of weights as a value that can be a key: ((path, shape, dtype), ...)."""
    leaves = jax.tree.leaves_with_path(params)
    return tuple((tuple(entry.key for entry in path), leaf.shape, np.dtype(leaf.dtype)) for path, leaf in leaves)


@functools.lru_cache(maxsize=KEPT)
def _at_rest(recipe: Recipe, shapes: Any) -> PyTree:
    """A part's `optimiser.at_rest`."""
    params: PyTree = {"/".join(path): jax.ShapeDtypeStruct(shape, dtype) for path, shape, dtype in shapes}
    if not params:
        return ()

    optimiser = optax.chain(*descent(recipe, params))
    return at_rest(optimiser, jax.eval_shape(lambda params: ravel_pytree(params)[0], params))


def _move(
    recipe: Recipe, params: PyTree, state: PyTree, gradient: PyTree, rate: jax.Array, norm: jax.Array | None = None
) -> tuple[PyTree, PyTree]:
    """A part's weights and optimiser state after a step; the gradient's clip is by the norm of the whole one."""
    if not jax.tree.leaves(params):
        return params, state
    weights, restore = ravel_pytree(params)
    vector = ravel_pytree(gradient)[0]
    if norm is not None:
        vector = jnp.where(norm < recipe.clip, vector, vector / norm.astype(vector.dtype) * recipe.clip)
    direction, state = optax.chain(*descent(recipe, params)).update(vector, state, weights)
    return restore(weights - (rate * direction).astype(weights.dtype)), state


# The programs; those of the parts belong to their `apply`, so that equal parts of all networks share them.


@functools.lru_cache(maxsize=KEPT)
def _descended(apply: Callable[..., Any], recipe: Recipe) -> Callable[..., Any]:
    """((pull, gradients by outputs), params, state, rate) -> (params, state), gradients by inputs."""

    def run(at: PyTree, params: PyTree, state: PyTree, rate: jax.Array) -> tuple[PyTree, PyTree]:
        pull, slopes = at
        gradient, _, by_inputs = pull(slopes)
        return _move(recipe, params, state, gradient, rate), by_inputs

    return jit(run)


@functools.lru_cache(maxsize=KEPT)
def _squared(apply: Callable[..., Any]) -> Callable[..., Any]:
    """((pull, gradients by outputs), sum) -> gradient by params, sum + its square, gradients by inputs."""

    def run(at: PyTree, total: jax.Array) -> tuple[PyTree, jax.Array, PyTree]:
        pull, slopes = at
        gradient, _, by_inputs = pull(slopes)
        squares = sum((jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)), total)
        return gradient, jnp.asarray(squares, total.dtype), by_inputs

    return jit(run)


@functools.lru_cache(maxsize=8)
def _clipped(recipe: Recipe) -> Callable[..., Any]:
    """(gradient, params, state, rate, square of the whole gradient's norm) -> params, state."""

    def run(
        gradient: PyTree, params: PyTree, state: PyTree, rate: jax.Array, squares: jax.Array
    ) -> tuple[PyTree, PyTree]:
        return _move(recipe, params, state, gradient, rate, jnp.sqrt(squares))

    return jit(run)


@functools.lru_cache(maxsize=8)
def _batch(recipe: Recipe, train_size: int, task: Task, dtype: Any) -> Callable[..., Any]:
    """(key, order, t, data) -> x, y, key of the step."""
    _, batch, _ = pipeline(recipe, train_size, task)

    def run(key: Key, order: jax.Array, t: jax.Array, data: Data) -> tuple[PyTree, PyTree, Key]:
        x, y, key_net = batch(key, order, t, data)
        return cast(x, dtype), y, key_net

    return jit(run)


@functools.lru_cache(maxsize=8)
def _loss(recipe: Recipe, task: Task, epoch_steps: int) -> Callable[..., Any]:
    """(outputs, y, train_loss, nan_epoch, initial rate, t) -> gradient by outputs, rate now, train_loss, nan_epoch."""
    moving = epoch_steps * recipe.epochs

    def run(
        outputs: PyTree, y: PyTree, train_loss: jax.Array, nan_epoch: jax.Array, rate: jax.Array, t: jax.Array
    ) -> tuple[PyTree, jax.Array, jax.Array, jax.Array]:
        loss, slope = jax.value_and_grad(task.loss)(outputs, y, recipe)
        epoch = t // epoch_steps
        train_loss = train_loss.at[epoch].add(loss.astype(jnp.float32) / epoch_steps)
        return slope, rate_now(recipe, rate, t / moving, epoch), train_loss, first_nan(nan_epoch, epoch, loss)

    return jit(run)


def _reader(recipe: Recipe, data: Data, task: Task, dtype: Any) -> Callable[..., Any]:
    """(key, order, t) -> what step t calls: a program of `_batch`, an order and a `Data`; t None = shapes will do."""
    count = len(data.train_y)
    if not streamed(data):
        program = _batch(recipe, count, task, dtype)
        return lambda key, order, t: (program, order, data)
    size = min(recipe.batch_size, count)
    step = steps(data, recipe.augment, size, count // size)
    own = dataclasses.replace(recipe, augment=on_device(recipe.augment, data))
    program, first = _batch(own, size, task, dtype), np.arange(size, dtype=np.int32)
    form = step_form(data, size)
    return lambda key, order, t: (program, first, form if t is None else step(key, order, t))


@functools.lru_cache(maxsize=8)
def _cut(task: Task, size: int, dtype: Any) -> Callable[..., Any]:
    """(x, y, mean, std, i) -> what the network reads in piece i of `size`, its targets, and which are of this piece."""

    def cut(x: PyTree, y: PyTree, mean: jax.Array, std: jax.Array, i: jax.Array) -> tuple[PyTree, PyTree, jax.Array]:
        count = len(jax.tree.leaves(y)[0])
        position = i * size + jnp.arange(size)
        index = jnp.minimum(position, count - 1)
        part_x, part_y = jax.tree.map(lambda leaf: leaf[index], (x, y))
        return cast(task.inputs(part_x, mean, std), dtype), part_y, position < count

    return jit(cut)


@functools.lru_cache(maxsize=8)
def _whitened(task: Task, dtype: Any) -> Callable[..., Any]:
    """(x, mean, std) -> what the network reads."""
    return jit(lambda x, mean, std: cast(task.inputs(x, mean, std), dtype))


@functools.lru_cache(maxsize=8)
def _measure(task: Task) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The programs behind a network's own in a validation.

    one(outputs, y, inside) -> the piece's sums of scores; asked for its shapes only
    more(outputs, y, inside, sums) -> sums with those of the piece
    """
    one = jit(lambda outputs, y, inside: summed(task, outputs, y, inside))

    def more(outputs: PyTree, y: PyTree, inside: jax.Array, sums: PyTree) -> PyTree:
        return jax.tree.map(jnp.add, sums, summed(task, outputs, y, inside))

    return one, jit(more)


@functools.lru_cache(maxsize=8)
def _finish(task: Task) -> Callable[..., Any]:
    """(sums, valid_metric, nan_epoch, epoch) -> valid_metric, nan_epoch."""

    def finish(
        sums: PyTree, valid_metric: jax.Array, nan_epoch: jax.Array, epoch: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        score = finished(task, sums)
        return valid_metric.at[epoch].set(score), first_nan(nan_epoch, epoch, score)

    return jit(finish)
