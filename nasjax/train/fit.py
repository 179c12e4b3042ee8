"""The host side of training: compile once, give the device a few seconds of work at a time, stop on NaN."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.train import activity, underway
from nasjax.train.by_parts import PartsTrainer, by_parts, unsuited
from nasjax.train.compiling import compile_lowered, jit
from nasjax.train.parallel import data_parallel, device_count, replicate
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished
from nasjax.train.step import Data, Trainer, TrainState, example, pieces_of, pipeline_programs, trainer
from nasjax.train.streaming import PIECE, on_device, pieces, step_form, steps, streamed
from nasjax.types import Key, Network, PyTree, Signature, Task, carries_state

DISPATCH_S = 4.0  # seconds of work handed over at a time, so that Ctrl-C answers and saving is prompt

Run = Callable[..., Any]  # as Trainer.run


def resident(dataset: Any) -> Data:
    """The arrays of a `data.Dataset`, on the device; images that stay in files, and their targets, are left there."""
    (train_x, train_y), (valid_x, valid_y) = dataset.train, dataset.valid
    parts = Data(train_x, train_y, valid_x, valid_y, dataset.mean, dataset.std)
    if streamed(parts):
        return parts._replace(mean=jnp.asarray(parts.mean), std=jnp.asarray(parts.std))
    return Data(*(jnp.asarray(part) for part in parts))


def sample_of(data: Data, task: Task) -> Signature:
    """A network's inputs, from the data themselves; the number of outputs is not known here (0)."""
    one = jax.ShapeDtypeStruct((1, *data.train_x.shape[1:]), data.train_x.dtype)
    x = jax.eval_shape(task.inputs, one, data.mean, data.std)
    return Signature(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x), 0)


def valid_name(task: Task) -> str:
    """The name of the task's validation metric in histories and results."""
    return f"valid_{task.metric.name}"


def stepwise(
    train: Trainer, recipe: Recipe, state: TrainState, choice: Any, data: Data, task: Task, devices: int | None = 1
) -> Run:
    """`train.run` as a loop on the host over two compiled programs of the network: a step and a validation.

    For one network this compiles in half the time of `run`, and its gradients are not inside a loop, where XLA's CPU
    convolutions are slow. The state given to it is consumed. With several devices (None = all) each takes its part of
    every batch.
    """
    shuffle, batch, _ = pipeline_programs(recipe, len(data.train_y), task)
    key, t, rate = jax.random.key(0), jnp.int32(0), jnp.float32(0)
    if streamed(data):
        batch, form = streamed_batch(recipe, data, task)
    else:
        form = jax.eval_shape(batch, key, state.order, t, data)
    x, y, _ = form
    update: Callable[..., TrainState]
    if device_count(devices) == 1:
        update = compile_lowered(jax.jit(train.update, donate_argnums=0).lower(state, choice, rate, x, y, key, t))
    else:
        update = _divided(train, devices)
    validate: Callable[..., TrainState]
    if streamed(data):
        validate = _validated_in_pieces(train, data, task)
    else:
        validate = compile_lowered(jax.jit(train.validate, donate_argnums=0).lower(state, choice, data, t))
    epoch_steps = train.epoch_steps  # `run` must not hold `train`: JAX keeps the traces of functions that live

    def run(
        key: Key, state: TrainState, choice: Any, rate: jax.Array, data: Data, begin: jax.Array, end: jax.Array
    ) -> TrainState:
        for step in range(int(begin), int(end)):
            t = jnp.int32(step)
            if step % epoch_steps == 0:
                state = state._replace(order=shuffle(key, jnp.int32(step // epoch_steps)))
            state = update(state, choice, rate, *batch(key, state.order, t, data), t)
            if (step + 1) % epoch_steps == 0:
                state = validate(state, choice, data, t)
        return state

    return run


def streamed_batch(recipe: Recipe, data: Data, task: Task) -> tuple[Callable[..., Any], tuple[Any, Any, Any]]:
    """`Trainer.batch` for images that stay in files, as a function for the host, and the form of what it returns."""
    count = len(data.train_y)
    size = min(recipe.batch_size, count)
    step = steps(data, recipe.augment, size, count // size)
    own = dataclasses.replace(recipe, augment=on_device(recipe.augment, data))
    program, order = pipeline_programs(own, size, task)[1], jnp.arange(size, dtype=jnp.int32)
    form = jax.eval_shape(program, jax.random.key(0), order, jnp.int32(0), step_form(data, size))
    return lambda key, all_of, t, data: program(key, order, t, step(key, all_of, int(t))), form


def measured(
    train: Trainer | PartsTrainer, variables: PyTree, choice: Any, x: Any, y: Any, data: Data, task: Task
) -> Any:
    """The task's metric of any part, in memory or in files; mean and deviation are those of `data`.

    By parts as many samples at a time as in the validation of `data`, whose programs are there.
    """
    if hasattr(x, "sequence"):
        if isinstance(train, Trainer):
            return _in_pieces(jit(train.sums), task)(variables, choice, x, y, data)
        return train.measure(variables, choice, x, y, data.mean, data.std)
    arrays = jnp.asarray(x), jnp.asarray(y), data.mean, data.std
    if isinstance(train, Trainer):
        return jit(train.measure)(variables, choice, *arrays)
    return train.measure(variables, choice, *arrays, pieces_of(data.valid_y, task)[1])


def _in_pieces(sums: Callable[..., PyTree], task: Task) -> Callable[..., Any]:
    def measure(variables: PyTree, choice: Any, x: Any, y: Any, data: Data) -> Any:
        total: PyTree = None
        for part, targets, counted in pieces(x, y, min(PIECE, len(y))):
            one = sums(variables, choice, part, targets, counted, data.mean, data.std)
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        return finished(task, total)

    return measure


def _validated_in_pieces(train: Trainer, data: Data, task: Task) -> Callable[..., TrainState]:
    """`train.validate` where the validation images stay in files."""
    measure, variables = _in_pieces(jit(train.sums), task), jit(train.variables)
    judged = jit(train.judged)

    def validate(state: TrainState, choice: Any, data: Data, t: jax.Array) -> TrainState:
        return judged(state, measure(variables(state), choice, data.valid_x, data.valid_y, data), t)

    return validate


def _divided(train: Trainer, devices: int | None) -> Callable[..., TrainState]:
    """`train.update`, each batch divided among devices."""

    def part(state: TrainState, choice: Any, rate: jax.Array, key: Key, t: jax.Array, xy: PyTree) -> TrainState:
        return train.update(state, choice, rate, *xy, key, t)

    parallel = data_parallel(part, devices)
    return lambda state, choice, rate, x, y, key, t: parallel(state, choice, rate, key, t, (x, y))


def advance(run: Run, key: Key, state: Any, choice: Any, rate: jax.Array, data: Data, begin: int, end: int) -> Any:
    """Steps begin..end-1 in pieces of at most about DISPATCH_S seconds; stops early where every child is NaN.

    The pieces do not change the result.
    """
    piece = 1
    while begin < end:
        began = time.monotonic()
        stop = min(begin + piece, end)
        state = run(key, state, choice, rate, data, jnp.int32(begin), jnp.int32(stop))
        activity.at(f"step {stop} of {end}")
        if np.all(np.asarray(state.nan_epoch) > 0):
            break
        if stop < end:
            underway.reached(state)
        per_step = (time.monotonic() - began) / (stop - begin)
        piece = max(1, min(int(DISPATCH_S / per_step), 8 * piece))
        begin = stop
    return state


def in_parts(network: Network, recipe: Recipe, task: Task, devices: int | None) -> bool:
    """Whether `fit` trains part by part: on a CPU, where this compiles and runs a large network faster.

    An accelerator, where this was not measured, has one program for the whole network, and so have several devices.
    """
    alone = jax.default_backend() == "cpu" and device_count(devices) == 1
    return alone and not task.contiguous and not unsuited(network, recipe)


def training(
    network: Network, recipe: Recipe, data: Data, task: Task, like: PyTree, devices: int | None
) -> Trainer | PartsTrainer:
    """The training that `fit` runs; `like` has the shapes of the variables."""
    if in_parts(network, recipe, task, devices):
        return by_parts(network, recipe, len(data.train_y), task)
    return trainer(network, recipe, len(data.train_y), like, task)


def fit(
    key: Key,
    network: Network,
    data: Data,
    recipe: Recipe,
    task: Task,
    *,
    choice: Any = None,
    state: Any = None,
    devices: int | None = 1,
    on_epoch: Callable[[int, Any], None] = lambda epoch, state: None,
    kept_as: str = "",
) -> tuple[PyTree, dict[str, list[float]]]:
    """Trains one network epoch by epoch, as the population trainer trains a child.

    Args:
      key: of the whole training; a resumed one needs the same.
      network: e.g. `nets.conv_chain.network.conv_chain(plan, bn_eps=recipe.bn_eps, dtype=recipe.dtype)`.
      data: see `resident`.
      recipe: its learning_rate is the initial one.
      task: of the network.
      choice: passed on to the network.
      state: of an interrupted training, to resume from, a state of `training`; None = from the start.
      devices: local devices to divide each batch among; None = all. A network that carries state uses one.
      on_epoch: called with the number of epochs done (above recipe.epochs in a refresh) and the state. The state is
        consumed by the next epoch, so copy (or save) what is to be kept.
      kept_as: a name of this training in `train.underway`, from which it goes on where it was interrupted; "" = none.

    Returns:
      The trained variables and {"train_loss": [...], "valid_<metric>": [...]}, one number per epoch done. A training
      whose loss became NaN ends with that epoch, and its last train_loss is NaN.

    Raises:
      ValueError: `state` belongs to a recipe with another number of epochs.
    """
    key_init, key_train = jax.random.split(key)
    variables = network.init(key_init, choice, example(network, sample_of(data, task)))
    if carries_state(network.carry):
        devices = 1
    train = training(network, recipe, data, task, variables, devices)
    if state is None:
        state = train.start(variables)
        if kept_as and (left := underway.kept(kept_as)) is not None:
            state = underway.restored(state, left)
    if state.train_loss.shape != (recipe.epochs,):
        raise ValueError(
            f"the state is of a training of {state.train_loss.size} epochs, the recipe has {recipe.epochs}"
        )
    run: Run = train.run
    if isinstance(train, Trainer):
        state = replicate(state, devices)
        with activity.compiling("compiling the step"):
            run = stepwise(train, recipe, state, choice, data, task, devices)
    rate, begun = jnp.float32(recipe.learning_rate), int(state.step)
    with underway.training(kept_as, underway.stored) if kept_as else nullcontext():
        for epoch in range(begun // train.epoch_steps, train.steps // train.epoch_steps):
            begin, end = epoch * train.epoch_steps, (epoch + 1) * train.epoch_steps
            state = advance(run, key_train, state, choice, rate, data, max(begun, begin), end)
            if state.nan_epoch > 0:
                break
            on_epoch(epoch + 1, state)
            if end < train.steps:
                underway.reached(state)
    done = int(state.nan_epoch) or recipe.epochs
    curves = {"train_loss": state.train_loss, valid_name(task): state.valid_metric}
    return train.variables(state), {name: np.asarray(curve, float)[:done].tolist() for name, curve in curves.items()}
