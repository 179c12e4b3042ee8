"""How differently an untrained network treats the images of a batch, from the gradients of its outputs by them.

Mellor et al. 2020, "Neural Architecture Search without Training", first version (arXiv:2006.04647v1), section 3;
`jacob_cov` of Abdelfattah et al. 2021 (arXiv:2101.08134).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.scores.backward import by_images, require_numbers
from nasjax.types import Network, PyTree

_K = 1e-5  # of their code


def jacob_cov(network: Network, variables: PyTree, choice: Any, x: PyTree) -> float:
    """-sum(log(e + k) + 1 / (e + k)) over the eigenvalues e of the correlations of the images' gradients; k = 1e-5.

    An image's gradient is that of the sum of all outputs, with batch norms that use the statistics of the batch.

    Args:
      network, variables, choice: an untrained network.
      x: [N, H, W, C] as it receives images, no two equal; their papers take N = 128 and 64.

    Returns:
      At most -N, larger where the gradients are less alike; -inf where an image has no effect on the outputs.

    Raises:
      ValueError: fewer than two images, or the network reads words or carries a state.
    """
    require_numbers(network, x, "jacob_cov")
    slopes = by_images(network, variables, choice, x, lambda y: jax.tree.map(jnp.ones_like, y))
    rows = [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(slopes)]
    return of_gradients(np.concatenate(rows, 1))


def of_gradients(rows: np.ndarray) -> float:
    """`jacob_cov` of the images' gradients [N, D]. Raises ValueError for fewer than two."""
    if len(rows) < 2:
        raise ValueError(f"jacob_cov compares images: it needs two or more, better 64; got {len(rows)}")
    apart = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(apart, axis=1, keepdims=True)
    if not (norms > 0).all():
        return float("-inf")
    apart = apart / norms
    values = np.maximum(np.linalg.eigvalsh(apart @ apart.T), 0) + _K
    return float(-(np.log(values) + 1 / values).sum())
