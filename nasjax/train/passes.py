"""Passes over a network part by part from the host: forward, backward, evaluation; their programs are compiled once.

A network with `parts` is a sequence of small programs, and equal parts share one. So a network of 17 cells compiles
about as fast as one of 6, and a graph never seen before, made of known parts, compiles nothing. Any other network is a
single part. A forward program returns its outputs together with its pullback (`jax.vjp`), which is a pytree of arrays
that another program can apply.

No gradient by the images, the value "x", is computed.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.ops.parts import part_of, through, whole, with_part
from nasjax.train import activity
from nasjax.train.compiling import jit
from nasjax.train.objective import Objective
from nasjax.train.parallel import data_parallel_piece, device_count, mean, split, total
from nasjax.train.scoring import summed
from nasjax.types import Network, Part, PyTree

# Kinds of parts whose programs are kept. The largest space of graphs has 60 for each of its channel counts. A part that
# is not asked for any more, that of a single network say, goes with its programs when so many others came.
KEPT = 1024


class Pass(NamedTuple):
    """What a forward and backward pass over a batch gives, over all devices."""

    loss: jax.Array  # f32[]
    score: jax.Array  # f32[], the objective's metric
    params: PyTree  # d loss / d params
    choice: PyTree  # d loss / d choice, the mixing weights
    batch_stats: PyTree  # running statistics after the pass


def gradient_pass(network: Network, objective: Objective, devices: int | None = None) -> Callable[..., Pass]:
    """pass(params, batch_stats, choice, key, drop_rate, (x, y)) -> Pass; drop_rate None leaves dropout out.

    The same programs serve the architecture's pass and the weights': they give both gradients, because compiling
    a network of 8 cells twice takes longer than computing the unused half.
    """
    parts, execute = parts_of(network), execution(network, devices)
    pick, unpick = choices(parts)

    def run(params: PyTree, batch_stats: PyTree, choice: PyTree, key: jax.Array, drop_rate: Any, batch: PyTree) -> Pass:
        x, targets = split(batch, devices)
        variables, own_choices = {"params": params, "batch_stats": batch_stats}, pick(choice)
        own = [part_of(variables, part) for part in parts]

        def walk(call: Call) -> tuple[PyTree, list[PyTree], list[PyTree]]:
            outputs, pulls, stats = record(parts, own, own_choices, key, drop_rate, x, call, devices)
            scores, slope = call(end(objective, devices), (outputs, targets))
            return scores, gradients(parts, pulls, {"y": slope}, call, devices), stats

        (value, score), found, stats = execute(walk)
        by_params: PyTree = {"params": {}}
        after = variables
        for part, (one, _), new in zip(parts, found, stats, strict=True):
            by_params = with_part(by_params, part, {"params": one} if one else {})
            after = with_part(after, part, new)
        by_choice = unpick(choice, tuple(one for _, one in found))
        return Pass(value, score, by_params["params"], by_choice, after["batch_stats"])

    return run


def validation(
    network: Network, objective: Objective, devices: int | None = None, *, batch_statistics: bool = False
) -> Callable[..., tuple[float, float]]:
    """validate(params, batch_stats, choice, batches) -> the loss and the metric of all samples, on the host.

    A batch is (x, y), or (x, y, weight f32[B]) with 0 for samples that another batch counts. The loss is the mean of
    what it is for each sample alone. Batch norm uses the running statistics, or each batch's own: then the programs are
    those of `gradient_pass`. Without batches the figures are NaN. Batches of another size compile again.
    """
    parts, execute = parts_of(network), execution(network, devices)
    pick, _ = choices(parts)

    def sums(variables: PyTree, choice: PyTree, batch: PyTree) -> PyTree:
        x, targets, weight = split(batch, devices)
        own, own_choices = [part_of(variables, part) for part in parts], pick(choice)

        def walk(call: Call) -> PyTree:
            if batch_statistics:
                key = jax.random.key(0)  # nothing is drawn: no dropout
                outputs, *_ = record(parts, own, own_choices, key, None, x, call, devices, keep=False)
            else:
                outputs = evaluated(parts, own, own_choices, x, call, devices)
            return call(_summed(objective, devices), (outputs, targets, weight))[0]

        return execute(walk)

    def validate(params: PyTree, batch_stats: PyTree, choice: PyTree, batches: Iterable[PyTree]) -> tuple[float, float]:
        variables = {"params": params, "batch_stats": batch_stats}
        found = []
        for x, y, *given in batches:
            weight = given[0] if given else jnp.ones(len(jax.tree.leaves(x)[0]), jnp.float32)
            found.append(sums(variables, choice, (x, y, weight)))
        if not found:
            return float("nan"), float("nan")
        added = jax.tree.map(lambda *parts: np.asarray(parts, np.float64).sum(0), *jax.device_get(found))
        loss, samples, scores = added
        return float(loss / samples), float(objective.finish(scores))

    return validate


def parts_of(network: Network) -> tuple[Part, ...]:
    """The network's parts, or the network as its only one."""
    return network.parts or (whole(network),)


# A walk through the parts is told how to call a program: to run it, or to compile it ahead of time.
Call = Callable[..., PyTree]  # call(program, *arguments) -> what the program returns, or its shapes


def now(program: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """Runs a program."""
    return program(*arguments)


def execution(network: Network, devices: int | None) -> Callable[[Callable[[Call], Any]], Any]:
    """execute(walk) -> walk(now); the first time the programs of several parts are compiled before any runs.

    Raises:
      ValueError: there are fewer devices.
    """
    # A single program gains nothing from compiling ahead, and programs of pmap compile when they are first called.
    ready = device_count(devices) > 1 or not network.parts

    def execute(walk: Callable[[Call], Any]) -> Any:
        nonlocal ready
        if not ready:
            compile_ahead(walk)
            ready = True
        return walk(now)

    return execute


# program -> {form of its arguments: shapes of what it returns}, for all that was compiled ahead
_known: weakref.WeakKeyDictionary[Any, dict[Any, PyTree]] = weakref.WeakKeyDictionary()


def compile_ahead(walk: Callable[[Call], Any]) -> None:
    """Compiles the programs that walk(call) calls, several at a time, while the next ones are traced.

    What was compiled ahead before, for another network too, is neither traced nor compiled again.
    """
    begun: list[Future[Any]] = []
    with activity.compiling(), ThreadPoolExecutor(os.cpu_count()) as pool:

        def ahead(program: Any, *arguments: PyTree) -> PyTree:
            leaves, tree = jax.tree.flatten(arguments)
            form = (tree, tuple(map(_shape_and_dtype, leaves)))
            known = _known.setdefault(program, {})
            if form not in known:
                begun.append(pool.submit(program.lower(*arguments).compile))
                known[form] = jax.eval_shape(program, *arguments)
            return known[form]

        try:
            walk(ahead)
            for one in begun:
                one.result()
        except BaseException:  # an interrupt does not wait for what has not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], Any]:
    try:  # a graph has a thousand leaves, and `np.shape` takes five times as long
        return leaf.shape, leaf.dtype
    except AttributeError:
        return (), type(leaf)


def record(
    parts: Sequence[Part],
    own: Sequence[PyTree],
    own_choices: Sequence[PyTree],
    key: jax.Array,
    drop_rate: Any,
    x: PyTree,
    call: Call,
    devices: int | None = 1,
    bn_momentum: float = 0.9,
    seen: list[PyTree] | None = None,
    *,
    keep: bool = True,
) -> tuple[PyTree, list[PyTree], list[PyTree]]:
    """Runs the parts forward in training mode, with what the backward pass needs.

    Args:
      parts: of the network; own and own_choices are their variables and choices.
      key: part i gets fold_in(key, i).
      drop_rate: None = no dropout.
      x: what the network reads, `split` among the devices.
      call: see `Call`.
      devices: see `train.parallel`.
      bn_momentum: of running statistics.
      seen: gets the inputs of every part.
      keep: False = only the outputs are wanted, and nothing else takes memory.

    Returns:
      The network's outputs, and of every part its pullback and its new {"batch_stats"}.
    """
    pulls, stats = [], []

    def forward(i: int, part: Part, reads: PyTree) -> PyTree:
        program = _forward(part.apply, images_of(part), bn_momentum, devices)
        new, (outputs, pull) = call(program, own[i], own_choices[i], key, np.int32(i), drop_rate, reads)
        if keep:
            stats.append(new)
            pulls.append(pull)
        if seen is not None:
            seen.append(reads)
        return outputs

    return through(parts, forward, x), pulls, stats


def evaluated(
    parts: Sequence[Part],
    own: Sequence[PyTree],
    own_choices: Sequence[PyTree],
    x: PyTree,
    call: Call,
    devices: int | None = 1,
) -> PyTree:
    """The outputs in evaluation mode. Arguments as of `record`."""

    def evaluate(i: int, part: Part, reads: PyTree) -> PyTree:
        return call(_evaluate(part.apply, devices), own[i], own_choices[i], reads)[1]

    return through(parts, evaluate, x)


def reverse(
    parts: Sequence[Part],
    pulls: list[PyTree],
    slopes: dict[str, PyTree],
    call: Call,
    back: Callable[[int, PyTree], PyTree],
) -> None:
    """Runs back(i, (pull, gradients by the outputs)) -> gradients by the inputs, from the last part to the first.

    `slopes` = {"y": gradient by the network's outputs}. It and `pulls` are emptied, so that their memory is freed. The
    gradients by inputs are those of `moving(part)`.
    """
    for i in reversed(range(len(parts))):
        outputs = tuple(slopes.pop(name) for name in parts[i].writes)
        by_inputs = back(i, (pulls.pop(), outputs))
        accumulate(slopes, moving(parts[i]), by_inputs, call)


def gradients(
    parts: Sequence[Part],
    pulls: list[PyTree],
    slopes: dict[str, PyTree],
    call: Call,
    devices: int | None = 1,
    seen: dict[int, PyTree] | None = None,
) -> list[tuple[PyTree, PyTree]]:
    """Each part's gradients by (params, choice). `seen` gets those by its outputs; the rest as of `reverse`."""
    own: list[Any] = [None] * len(parts)

    def back(i: int, at: PyTree) -> PyTree:
        if seen is not None:
            seen[i] = at[1]
        own[i], by_inputs = call(_backward(parts[i].apply, devices), at)
        return by_inputs

    reverse(parts, pulls, slopes, call, back)
    return own


def accumulate(total: dict[str, PyTree], names: Sequence[str], more: Sequence[PyTree], call: Call) -> None:
    """Adds `more` to the values of these names, or puts them there."""
    for name, value in zip(names, more, strict=True):
        total[name] = call(add, total[name], value) if name in total else value


def images_of(part: Part) -> tuple[int, ...]:
    """Which of a part's inputs are the images: nothing needs a gradient by them."""
    return tuple(i for i, name in enumerate(part.reads) if name == "x")


def moving(part: Part) -> tuple[str, ...]:
    """The values that a part reads, without the images."""
    return tuple(name for name in part.reads if name != "x")


def choices(parts: Sequence[Part]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """choice -> those of the parts; (choice, gradients by those of the parts) -> gradient by choice."""

    def pick(choice: PyTree) -> tuple[PyTree, ...]:
        return tuple(part.pick(choice) for part in parts)

    return jit(pick), jit(lambda choice, gradients: jax.vjp(pick, choice)[1](gradients)[0])


# The programs. They belong to a part's `apply`, not to a pass, so all passes over a network share them.


def separate(inputs: PyTree, images: tuple[int, ...]) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """The inputs that are no images, and the function that puts such among the images again."""
    rest = tuple(value for i, value in enumerate(inputs) if i not in images)

    def together(rest: PyTree) -> PyTree:
        others = iter(rest)
        return tuple(value if i in images else next(others) for i, value in enumerate(inputs))

    return rest, together


@functools.lru_cache(maxsize=KEPT)
def _forward(
    apply: Callable[..., Any], images: tuple[int, ...], bn_momentum: float, devices: int | None
) -> Callable[..., Any]:
    """(variables, choice, key, i, drop_rate, inputs) -> new batch_stats, (outputs, pull)."""

    def forward(
        variables: PyTree, choice: PyTree, key: jax.Array, i: jax.Array, drop_rate: Any, inputs: PyTree
    ) -> tuple[PyTree, PyTree]:
        rate = 0.0 if drop_rate is None else drop_rate
        options = {"key": jax.random.fold_in(key, i), "train": True, "drop_rate": rate, "bn_momentum": bn_momentum}
        rest, together = separate(inputs, images)

        def run(params: PyTree, choice: PyTree, rest: PyTree) -> tuple[PyTree, PyTree]:
            outputs, after = apply({**variables, "params": params}, choice, together(rest), **options)
            return outputs, {name: after[name] for name in after if name == "batch_stats"}

        outputs, pull, after = jax.vjp(run, variables.get("params", {}), choice, rest, has_aux=True)
        return mean(after), (outputs, pull)

    return data_parallel_piece(forward, devices)


@functools.lru_cache(maxsize=KEPT)
def _backward(apply: Callable[..., Any], devices: int | None) -> Callable[..., Any]:
    """((pull, gradients by outputs)) -> gradients by (params, choice), by inputs; `apply` is that of the pull."""

    def backward(own: PyTree) -> tuple[PyTree, PyTree]:
        pull, slopes = own
        by_params, by_choice, by_inputs = pull(slopes)
        return mean((by_params, by_choice)), by_inputs

    return data_parallel_piece(backward, devices)


@functools.lru_cache(maxsize=KEPT)
def _evaluate(apply: Callable[..., Any], devices: int | None) -> Callable[..., Any]:
    """(variables, choice, inputs) -> (), outputs."""

    def evaluate(variables: PyTree, choice: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        return (), apply(variables, choice, inputs)[0]

    return data_parallel_piece(evaluate, devices)


@functools.lru_cache(maxsize=32)
def end(objective: Objective, devices: int | None) -> Callable[..., Any]:
    """((outputs, targets)) -> (loss, metric), gradient by outputs."""

    def run(own: PyTree) -> tuple[PyTree, PyTree]:
        outputs, targets = own
        loss, slope = jax.value_and_grad(objective.loss)(outputs, targets)
        return (mean(loss), objective.finish(total(summed(objective, outputs, targets)))), slope

    return data_parallel_piece(run, devices)


@functools.lru_cache(maxsize=32)
def _summed(objective: Objective, devices: int | None) -> Callable[..., Any]:
    """((outputs, targets, weight)) -> sums over samples and devices of losses, of weights and of the weighed scores."""

    def run(own: PyTree) -> tuple[PyTree, PyTree]:
        outputs, targets, weight = own

        def alone(outputs: PyTree, targets: PyTree) -> jax.Array:
            return objective.loss(*jax.tree.map(lambda leaf: leaf[None], (outputs, targets)))

        def added(one: jax.Array) -> jax.Array:
            counted = weight.reshape(-1, *[1] * (one.ndim - 1))
            return jnp.where(counted > 0, counted * one, 0).sum(0)

        losses = jax.vmap(alone)(outputs, targets)
        return total((added(losses), weight.sum(), jax.tree.map(added, objective.score(outputs, targets)))), ()

    return data_parallel_piece(run, devices)


add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b))
