"""Passes over a shared network: one with gradients, one that validates; their programs are compiled once.

A network with `parts` is run part by part from the host: equal parts share a program, so a network of 17 cells compiles
about as fast as one of 6. Any other network is a single part.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.descent import inner
from nasjax.nets.parts import part_of, through, whole, with_part
from nasjax.train import losses
from nasjax.train.parallel import data_parallel_piece, device_count, mean, split
from nasjax.types import Network, Part, PyTree


class Pass(NamedTuple):
    """What a forward and backward pass over a batch gives, averaged over devices."""

    loss: jax.Array  # f32, mean cross-entropy in nats
    accuracy: jax.Array  # f32, fraction
    params: PyTree  # d loss / d params
    choice: PyTree  # d loss / d choice, the mixing weights
    batch_stats: PyTree  # running statistics after the pass


def gradient_pass(network: Network, devices: int | None = None) -> Callable[..., Pass]:
    """pass(params, batch_stats, choice, key, drop_rate, (x, y)) -> Pass; drop_rate None leaves dropout out.

    The same programs serve the architecture's pass and the weights': they give both gradients, because compiling
    a network of 8 cells twice takes longer than computing the unused half.
    """
    parts, execute = network.parts or (whole(network),), _execution(network, devices)
    pick, unpick = _choices(parts)

    def run(params: PyTree, batch_stats: PyTree, choice: PyTree, key: jax.Array, drop_rate: Any, batch: PyTree) -> Pass:
        images, labels = split(batch, devices)
        variables, choices = {"params": params, "batch_stats": batch_stats}, pick(choice)

        def walk(call: Call) -> tuple[PyTree, list[PyTree], PyTree]:
            logits, pulls, after = _record(parts, variables, choices, key, drop_rate, images, devices, call)
            scores, slope = call(_end(devices), (logits, labels))
            return scores, _reverse(parts, pulls, {"y": slope}, devices, call), after

        (loss, accuracy), own, after = execute(walk)
        gradients: PyTree = {"params": {}}
        for part, (by_params, _) in zip(parts, own, strict=True):
            gradients = with_part(gradients, part, {"params": by_params} if by_params else {})
        by_choice = unpick(choice, tuple(one for _, one in own))
        return Pass(loss, accuracy, gradients["params"], by_choice, after["batch_stats"])

    return run


def mixed_product(network: Network, devices: int | None = None) -> Callable[..., PyTree]:
    """product(params, batch_stats, choice, key, drop_rate, v, (x, y)) -> d <d loss / d params, v> / d choice.

    This is reverse mode over reverse mode, because the hand-written convolutions have no forward-mode derivative. The
    backward pass of a backward pass runs forward through the parts. A slope is the gradient by a value; the gradient by
    that slope is the change of the value along v.
    """
    parts, execute = network.parts or (whole(network),), _execution(network, devices)
    pick, unpick = _choices(parts)

    def run(
        params: PyTree, batch_stats: PyTree, choice: PyTree, key: jax.Array, drop_rate: Any, v: PyTree, batch: PyTree
    ) -> PyTree:
        images, labels = split(batch, devices)
        variables, choices = {"params": params, "batch_stats": batch_stats}, pick(choice)

        def walk(call: Call) -> tuple[list[PyTree], list[PyTree]]:
            inputs: list[PyTree] = []
            slopes: list[PyTree] = []
            logits, pulls, _ = _record(parts, variables, choices, key, drop_rate, images, devices, call, inputs)
            slope = call(_end(devices), (logits, labels))[1]
            _reverse(parts, list(pulls), {"y": slope}, devices, call, slopes)
            slopes.reverse()
            changes: dict[str, PyTree] = {"x": images * 0}
            again: dict[str, PyTree] = {}
            direct = []
            for i, part in enumerate(parts):
                own, along = part_of(variables, part), part_of({"params": v}, part).get("params", {})
                local = (inputs[i], slopes[i], tuple(changes[name] for name in part.reads))
                second = (own, choices[i], key, np.int32(i), drop_rate, along, local)
                one, (by_inputs, by_slopes) = call(_second(part.apply, devices), *second)
                direct.append(one)
                _accumulate(again, part.reads, by_inputs, call)
                changes |= zip(part.writes, by_slopes, strict=True)
            again["y"] = call(_end_second(devices), (logits, labels, changes["y"]))[1]
            return direct, _reverse(parts, pulls, again, devices, call)

        direct, indirect = execute(walk)
        return unpick(choice, tuple(_add(a, b) for a, (_, b) in zip(direct, indirect, strict=True)))

    return run


def validation(
    network: Network, devices: int | None = None, *, batch_statistics: bool = False
) -> Callable[..., tuple[float, float]]:
    """validate(params, batch_stats, choice, batches) -> (loss in nats, accuracy), means over all samples; on the host.

    Batch norm uses the running statistics, or each batch's own: then the programs are those of `gradient_pass`. Without
    batches both figures are NaN. Batches of another size compile again.
    """
    parts, execute = network.parts or (whole(network),), _execution(network, devices)
    pick, _ = _choices(parts)

    def scores(variables: PyTree, choice: PyTree, batch: PyTree) -> tuple[jax.Array, jax.Array]:
        images, labels = split(batch, devices)
        choices = pick(choice)

        def walk(call: Call) -> PyTree:
            def forward(i: int, part: Part, inputs: PyTree) -> PyTree:
                own = part_of(variables, part)
                if not batch_statistics:
                    return call(_evaluate(part.apply, devices), own, choices[i], inputs)[1]
                key = jax.random.key(0)  # nothing is drawn: no dropout
                return call(_forward(part.apply, devices), own, choices[i], key, np.int32(i), None, inputs)[1][0]

            return call(_end(devices), (through(parts, forward, images), labels))[0]

        return execute(walk)

    def validate(params: PyTree, batch_stats: PyTree, choice: PyTree, batches: Iterable[PyTree]) -> tuple[float, float]:
        variables = {"params": params, "batch_stats": batch_stats}
        sizes, found = [], []
        for batch in batches:
            sizes.append(len(batch[1]))
            found.append(scores(variables, choice, batch))
        if not sizes:
            return float("nan"), float("nan")
        loss, accuracy = np.average(np.asarray(jax.device_get(found), np.float64), axis=0, weights=sizes)
        return float(loss), float(accuracy)

    return validate


# A walk through the parts is told how to call a program: to run it, or to compile it ahead of time.
Call = Callable[..., PyTree]  # call(program, *arguments) -> what the program returns, or its shapes


def _now(program: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    return program(*arguments)


def _execution(network: Network, devices: int | None) -> Callable[[Callable[[Call], Any]], Any]:
    """execute(walk) -> walk(_now); the first time the programs of several parts are compiled before any runs.

    Raises:
      ValueError: there are fewer devices.
    """
    # A single program gains nothing from compiling ahead, and programs of pmap compile when they are first called.
    ready = device_count(devices) > 1 or not network.parts

    def execute(walk: Callable[[Call], Any]) -> Any:
        nonlocal ready
        if not ready:
            _compile(walk)
            ready = True
        return walk(_now)

    return execute


def _compile(walk: Callable[[Call], Any]) -> None:
    """Compiles the programs that walk(call) calls, several at a time, while the next ones are traced."""
    begun, compiled = set(), []
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def ahead(program: Any, *arguments: PyTree) -> PyTree:
            leaves, form = jax.tree.flatten(arguments)
            what = (program, form, tuple((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves))
            if what not in begun:
                begun.add(what)
                compiled.append(pool.submit(program.lower(*arguments).compile))
            return jax.eval_shape(program, *arguments)

        walk(ahead)
        for one in compiled:
            one.result()


def _record(
    parts: tuple[Part, ...],
    variables: PyTree,
    choices: tuple[PyTree, ...],
    key: jax.Array,
    drop_rate: Any,
    images: PyTree,
    devices: int | None,
    call: Call,
    seen: list[PyTree] | None = None,
) -> tuple[PyTree, list[PyTree], PyTree]:
    """Runs the parts forward in training mode: (logits, each part's pull, variables with new statistics).

    Appends the inputs of each part to `seen`.
    """
    pulls, after = [], variables

    def forward(i: int, part: Part, inputs: PyTree) -> PyTree:
        nonlocal after
        arguments = (part_of(variables, part), choices[i], key, np.int32(i), drop_rate, inputs)
        new, (outputs, pull) = call(_forward(part.apply, devices), *arguments)
        after = with_part(after, part, new)
        if seen is not None:
            seen.append(inputs)
        pulls.append(pull)
        return outputs

    return through(parts, forward, images), pulls, after


def _reverse(
    parts: tuple[Part, ...],
    pulls: list[PyTree],
    slopes: dict[str, PyTree],
    devices: int | None,
    call: Call,
    seen: list[PyTree] | None = None,
) -> list[PyTree]:
    """Each part's gradients by (params, choice), in the order of the parts.

    Appends the gradients by each part's outputs to `seen`, the last part first. Empties `pulls` and `slopes`, so that
    their memory is freed.
    """
    own = []
    for part in reversed(parts):
        outputs = tuple(slopes.pop(name) for name in part.writes)
        if seen is not None:
            seen.append(outputs)
        one, by_inputs = call(_backward(part.apply, devices), (pulls.pop(), outputs))
        own.append(one)
        _accumulate(slopes, part.reads, by_inputs, call)
    return own[::-1]


def _accumulate(total: dict[str, PyTree], names: tuple[str, ...], more: tuple[PyTree, ...], call: Call) -> None:
    for name, value in zip(names, more, strict=True):
        total[name] = call(_add, total[name], value) if name in total else value


# The programs. They belong to a part's `apply`, not to a pass, so all passes over a network share them.


@functools.lru_cache(maxsize=256)
def _forward(apply: Callable[..., Any], devices: int | None) -> Callable[..., Any]:
    """(variables, choice, key, i, drop_rate, inputs) -> new batch_stats, (outputs, pull)."""

    def forward(
        variables: PyTree, choice: PyTree, key: jax.Array, i: jax.Array, drop_rate: Any, inputs: PyTree
    ) -> tuple[PyTree, PyTree]:
        own, rate = jax.random.fold_in(key, i), 0.0 if drop_rate is None else drop_rate

        def run(params: PyTree, choice: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
            outputs, after = apply({**variables, "params": params}, choice, inputs, key=own, train=True, drop_rate=rate)
            return outputs, {name: after[name] for name in after if name == "batch_stats"}

        outputs, pull, after = jax.vjp(run, variables.get("params", {}), choice, inputs, has_aux=True)
        return mean(after), (outputs, pull)

    return data_parallel_piece(forward, devices)


@functools.lru_cache(maxsize=256)
def _backward(apply: Callable[..., Any], devices: int | None) -> Callable[..., Any]:
    """((pull, gradients by outputs)) -> gradients by (params, choice), by inputs; `apply` is that of the pull."""

    def backward(own: PyTree) -> tuple[PyTree, PyTree]:
        pull, slopes = own
        by_params, by_choice, by_inputs = pull(slopes)
        return mean((by_params, by_choice)), by_inputs

    return data_parallel_piece(backward, devices)


@functools.lru_cache(maxsize=256)
def _second(apply: Callable[..., Any], devices: int | None) -> Callable[..., Any]:
    """The gradient of <gradient by params, v> + <gradient by inputs, changes of inputs> of a part's backward pass.

    (variables, choice, key, i, drop_rate, v, (inputs, slopes, changes)) -> by choice, by (inputs, slopes)
    """

    def second(
        variables: PyTree, choice: PyTree, key: jax.Array, i: jax.Array, drop_rate: Any, v: PyTree, local: PyTree
    ) -> tuple[PyTree, PyTree]:
        *at, changes = local
        own, rate = jax.random.fold_in(key, i), 0.0 if drop_rate is None else drop_rate
        params = variables.get("params", {})

        def way_back(choice: PyTree, inputs: PyTree, slopes: PyTree) -> jax.Array:
            def run(params: PyTree, inputs: PyTree) -> PyTree:
                variables_of = {**variables, "params": params}
                return apply(variables_of, choice, inputs, key=own, train=True, drop_rate=rate)[0]

            by_params, by_inputs = jax.vjp(run, params, inputs)[1](slopes)
            return inner((by_params, by_inputs), (v, changes))

        by_choice, by_inputs, by_slopes = jax.grad(way_back, (0, 1, 2))(choice, *at)
        return mean(by_choice), (by_inputs, by_slopes)

    return data_parallel_piece(second, devices)


@functools.lru_cache(maxsize=8)
def _end_second(devices: int | None) -> Callable[..., Any]:
    """((logits, labels, change of logits)) -> (), gradient by logits of <the loss's gradient, change>."""

    def end(own: PyTree) -> tuple[PyTree, PyTree]:
        logits, labels, change = own
        slope = jax.grad(losses.cross_entropy)
        return (), jax.grad(lambda logits: inner(slope(logits, labels), change))(logits)

    return data_parallel_piece(end, devices)


@functools.lru_cache(maxsize=256)
def _evaluate(apply: Callable[..., Any], devices: int | None) -> Callable[..., Any]:
    """(variables, choice, inputs) -> (), outputs."""

    def evaluate(variables: PyTree, choice: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        return (), apply(variables, choice, inputs)[0]

    return data_parallel_piece(evaluate, devices)


@functools.lru_cache(maxsize=8)
def _end(devices: int | None) -> Callable[..., Any]:
    """((logits, labels)) -> (loss, accuracy), gradient by logits."""

    def end(own: PyTree) -> tuple[PyTree, PyTree]:
        logits, labels = own
        loss, slope = jax.value_and_grad(losses.cross_entropy)(logits, labels)
        return mean((loss, losses.hits(logits, labels).mean())), slope

    return data_parallel_piece(end, devices)


def _choices(parts: tuple[Part, ...]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """choice -> those of the parts; (choice, gradients by those of the parts) -> gradient by choice."""

    def pick(choice: PyTree) -> tuple[PyTree, ...]:
        return tuple(part.pick(choice) for part in parts)

    return jax.jit(pick), jax.jit(lambda choice, gradients: jax.vjp(pick, choice)[1](gradients)[0])


_add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b))
