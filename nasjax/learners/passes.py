"""The two programs of a shared network: a pass with gradients, a pass that validates. Each is compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.learners.descent import inner
from nasjax.train import losses
from nasjax.train.parallel import data_parallel, mean
from nasjax.types import Network, PyTree


class Pass(NamedTuple):
    """What a forward and backward pass over a batch gives, averaged over devices."""

    loss: jax.Array  # f32, mean cross-entropy in nats
    accuracy: jax.Array  # f32, fraction
    params: PyTree  # d loss / d params
    choice: PyTree  # d loss / d choice, the mixing weights
    batch_stats: PyTree  # running statistics after the pass


def gradient_pass(network: Network, devices: int | None = None) -> Callable[..., Pass]:
    """pass(params, batch_stats, choice, key, drop_rate, (x, y)) -> Pass; drop_rate None leaves dropout out.

    The same program serves the architecture's pass and the weights': it gives both gradients, because compiling
    a network of 8 cells twice takes longer than computing the unused half.
    """

    def program(
        params: PyTree, batch_stats: PyTree, choice: PyTree, key: jax.Array, drop_rate: Any, batch: PyTree
    ) -> Pass:
        loss_of = _loss(network, batch_stats, key, drop_rate, batch)
        (loss, (accuracy, after)), (by_params, by_choice) = jax.value_and_grad(loss_of, (0, 1), has_aux=True)(
            params, choice
        )
        return mean(Pass(loss, accuracy, by_params, by_choice, after))

    return data_parallel(program, devices)


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


def validation(network: Network, devices: int | None = None) -> Callable[..., tuple[float, float]]:
    """validate(params, batch_stats, choice, batches) -> (loss in nats, accuracy), means over all samples; on the host.

    Without batches both are NaN. Batches of another size compile again.
    """

    def program(params: PyTree, batch_stats: PyTree, choice: PyTree, batch: PyTree) -> tuple[jax.Array, jax.Array]:
        x, y = batch
        logits, _ = network.apply({"params": params, "batch_stats": batch_stats}, choice, x)
        return mean((losses.cross_entropy(logits, y), losses.hits(logits, y).mean()))

    compiled = data_parallel(program, devices)

    def validate(params: PyTree, batch_stats: PyTree, choice: PyTree, batches: Iterable[PyTree]) -> tuple[float, float]:
        sizes, scores = [], []
        for batch in batches:
            sizes.append(len(batch[1]))
            scores.append(compiled(params, batch_stats, choice, batch))
        if not sizes:
            return float("nan"), float("nan")
        loss, accuracy = np.average(np.asarray(jax.device_get(scores), np.float64), axis=0, weights=sizes)
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
