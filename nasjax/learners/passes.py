"""Passes over a shared network: one with gradients, one that validates; their programs are compiled once.

A network with `parts` is run part by part from the host: equal parts share a program, so a network of 17 cells compiles
about as fast as one of 6. Any other network is a single part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.descent import inner
from nasjax.nets.parts import part_of, through, whole, with_part
from nasjax.train import losses
from nasjax.train.parallel import data_parallel, data_parallel_piece, mean, split
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
    parts = network.parts or (whole(network),)
    pick, unpick = _choices(parts)

    def run(params: PyTree, batch_stats: PyTree, choice: PyTree, key: jax.Array, drop_rate: Any, batch: PyTree) -> Pass:
        images, labels = split(batch, devices)
        variables = {"params": params, "batch_stats": batch_stats}
        own_choices, pulls, after = pick(choice), [], {"batch_stats": batch_stats}

        def forward(i: int, part: Part, inputs: PyTree) -> PyTree:
            nonlocal after
            program, own = _forward(part.apply, devices), part_of(variables, part)
            new, (outputs, pull) = program(own, own_choices[i], key, np.int32(i), drop_rate, inputs)
            after = with_part(after, part, new)
            pulls.append(pull)
            return outputs

        logits = through(parts, forward, images)
        (loss, accuracy), slope = _end(devices)((logits, labels))
        gradients: PyTree = {"params": {}}
        by_choice, slopes = [], {"y": slope}
        for part in reversed(parts):
            slopes_out = tuple(slopes.pop(name) for name in part.writes)
            (by_params, one), slopes_in = _backward(devices)((pulls.pop(), slopes_out))
            gradients = with_part(gradients, part, {"params": by_params} if by_params else {})
            by_choice.append(one)
            for name, slope in zip(part.reads, slopes_in, strict=True):
                slopes[name] = _add(slopes[name], slope) if name in slopes else slope
        by_choice = unpick(choice, tuple(reversed(by_choice)))
        return Pass(loss, accuracy, gradients["params"], by_choice, after["batch_stats"])

    return run


def mixed_product(network: Network, devices: int | None = None) -> Callable[..., PyTree]:
    """product(params, batch_stats, choice, key, drop_rate, v, (x, y)) -> d <d loss / d params, v> / d choice.

    Reverse mode over reverse mode: the hand-written convolutions have no forward-mode derivative.
    """

    def program(
        params: PyTree, batch_stats: PyTree, choice: PyTree, key: jax.Array, drop_rate: Any, v: PyTree, batch: PyTree
    ) -> PyTree:
        loss_of = _loss(network, batch_stats, key, drop_rate, batch)

        def slope(choice: PyTree) -> jax.Array:
            return inner(jax.grad(loss_of, has_aux=True)(params, choice)[0], v)

        return mean(jax.grad(slope)(choice))

    return data_parallel(program, devices)


def validation(
    network: Network, devices: int | None = None, *, batch_statistics: bool = False
) -> Callable[..., tuple[float, float]]:
    """validate(params, batch_stats, choice, batches) -> (loss in nats, accuracy), means over all samples; on the host.

    Batch norm uses the running statistics, or each batch's own: then the programs are those of `gradient_pass`. Without
    batches both figures are NaN. Batches of another size compile again.
    """
    parts = network.parts or (whole(network),)
    pick, _ = _choices(parts)

    def scores(variables: PyTree, choice: PyTree, batch: PyTree) -> tuple[jax.Array, jax.Array]:
        images, labels = split(batch, devices)
        own_choices = pick(choice)

        def forward(i: int, part: Part, inputs: PyTree) -> PyTree:
            own = part_of(variables, part)
            if not batch_statistics:
                return _evaluate(part.apply, devices)(own, own_choices[i], inputs)[1]
            key = jax.random.key(0)  # nothing is drawn: no dropout
            return _forward(part.apply, devices)(own, own_choices[i], key, np.int32(i), None, inputs)[1][0]

        return _end(devices)((through(parts, forward, images), labels))[0]

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


def _loss(network: Network, batch_stats: PyTree, key: jax.Array, drop_rate: Any, batch: PyTree) -> Callable[..., Any]:
    x, y = batch

    def loss_of(params: PyTree, choice: PyTree) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
        variables = {"params": params, "batch_stats": batch_stats}
        rate = 0.0 if drop_rate is None else drop_rate
        logits, after = network.apply(variables, choice, x, key=key, train=True, drop_rate=rate)
        return losses.cross_entropy(logits, y), (losses.hits(logits, y).mean(), after["batch_stats"])

    return loss_of


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


@functools.lru_cache(maxsize=8)
def _backward(devices: int | None) -> Callable[..., Any]:
    """((pull, gradients by outputs)) -> gradients by (params, choice), by inputs."""

    def backward(own: PyTree) -> tuple[PyTree, PyTree]:
        pull, slopes = own
        by_params, by_choice, by_inputs = pull(slopes)
        return mean((by_params, by_choice)), by_inputs

    return data_parallel_piece(backward, devices)


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


_add = jax.jit(jnp.add)
