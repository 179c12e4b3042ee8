"""Scores from the gradients of the loss by the weights of an untrained network.

`grad_norm` and `snip` as of Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS" (arXiv:2101.08134),
section 3.2 and its code; SNIP is Lee et al. 2019 (arXiv:1810.02340). ZiCo is Li et al. 2023 (arXiv:2301.11300),
equation 10 and its code. Batch norms use the statistics of the batch. The weights are those of layers, without scales,
shifts and biases.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from nasjax.evaluators.scores.backward import by_weights, layers, require_numbers
from nasjax.train.losses import cross_entropy
from nasjax.types import Network, PyTree

Loss = Callable[[PyTree, PyTree], jax.Array]  # outputs, targets -> f32[], the mean over the batch


def grad_norm(
    network: Network, variables: PyTree, choice: Any, x: PyTree, y: PyTree, loss: Loss = cross_entropy
) -> float:
    """The sum over layers of the Euclidean norm of the gradient by their weights.

    Args:
      network, variables, choice: an untrained network.
      x, y: one batch as it receives it, [N, H, W, C], and its targets.
      loss: of outputs and targets, in nats for the default, the cross-entropy of logits [N, classes] and i32[N].

    Returns:
      0 or more, in units of the loss per unit of a weight.

    Raises:
      ValueError: the network reads words or carries a state.
    """
    return norms(weight_gradients(network, variables, choice, x, y, loss, "grad_norm"))


def snip(network: Network, variables: PyTree, choice: Any, x: PyTree, y: PyTree, loss: Loss = cross_entropy) -> float:
    """The sum of |w * dL/dw| over the weights of all layers, in units of the loss. The rest as of `grad_norm`."""
    found = weight_gradients(network, variables, choice, x, y, loss, "snip")
    return saliencies(layers(variables["params"]), found)


def zico(
    network: Network,
    variables: PyTree,
    choice: Any,
    x: PyTree,
    y: PyTree,
    loss: Loss = cross_entropy,
    batches: int = 2,
) -> float:
    """The sum over layers of log(sum of mean |g| / deviation of g), over the gradients g of several batches.

    Args:
      network, variables, choice, loss: as of `grad_norm`.
      x, y: images and targets, which are cut into the batches.
      batches: their number; theirs is 2.

    Returns:
      A number without unit. Weights with the same gradient in all batches are left out.

    Raises:
      ValueError: fewer than two batches, or fewer images than two for each; the network reads words or carries a state.
    """
    size = len(jax.tree.leaves(x)[0]) // max(batches, 1)
    if batches < 2 or size < 2:
        raise ValueError(f"zico needs two batches or more of two images or more, got {batches} of {size}")
    found = []
    for n in range(batches):
        one_x, one_y = jax.tree.map(lambda leaf, n=n: leaf[n * size : (n + 1) * size], (x, y))
        found.append(weight_gradients(network, variables, choice, one_x, one_y, loss, "zico"))
    return consistencies(found)


def weight_gradients(
    network: Network, variables: PyTree, choice: Any, x: PyTree, y: PyTree, loss: Loss, score: str
) -> list[np.ndarray]:
    """The gradients of the loss by the weights of every layer; `score` is what they are for. Errors as `grad_norm`."""
    require_numbers(network, x, score)
    found = by_weights(network, variables, choice, x, lambda outputs: _slope(loss)(outputs, y))
    return [np.asarray(leaf) for leaf in layers(found)]


def norms(gradients: Sequence[np.ndarray]) -> float:
    """`grad_norm` of a gradient."""
    return float(sum(np.linalg.norm(one.astype(np.float64)) for one in gradients))


def saliencies(weights: Sequence[Any], gradients: Sequence[np.ndarray]) -> float:
    """`snip` of weights and a gradient."""
    pairs = zip(weights, gradients, strict=True)
    return float(sum(np.abs(np.asarray(w, np.float64) * g).sum() for w, g in pairs))


def consistencies(gradients: Sequence[Sequence[np.ndarray]]) -> float:
    """`zico` of the gradients of several batches."""
    total = 0.0
    for one in zip(*gradients, strict=True):
        layer = np.stack(one).astype(np.float64)
        deviation, size = layer.std(0), np.abs(layer).mean(0)
        moves = deviation > 0
        if (ratio := (size[moves] / deviation[moves]).sum()) > 0:
            total += float(np.log(ratio))
    return total


@functools.lru_cache(maxsize=8)
def _slope(loss: Loss) -> Callable[[PyTree, PyTree], PyTree]:
    """The gradient of a loss by the outputs."""
    return jax.jit(jax.grad(loss))
