"""PC-DARTS: partial channels, and a softmax over each node's incoming edges.

Xu et al. 2020, "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search" (arXiv:1907.05737),
sections 3.2 and 3.3. The network implements partial channels (`nets.darts_search(partial=4)`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.architecture_gradient import ArchitectureGradient, first_order
from nasjax.learners.bilevel import BilevelState, Relaxation, bilevel
from nasjax.learners.darts import SPREAD, softmax_relaxation
from nasjax.learners.derivation import Names, architecture, every_edge, kept_pairs
from nasjax.learners.descent import Adam, Sgd
from nasjax.spaces.darts_cell import CELLS, EDGES, NODES, OPERATORS
from nasjax.types import Key, Learner, Network, PyTree

EDGE_WEIGHTS = tuple(f"{cell}_edges" for cell in CELLS)  # their entries in alpha and in the network's choice


def pc_darts(
    network: Network,
    *,
    epochs: int = 50,
    frozen_epochs: int = 15,
    sgd: Sgd | None = None,
    adam: Adam | None = None,
    architecture_gradient: ArchitectureGradient = first_order,
    operators: int = len(OPERATORS),
    devices: int | None = None,
) -> Learner:
    """The learner of PC-DARTS, CIFAR-10 settings (batch 256). See `bilevel` for the arguments.

    Args:
      network: `nets.darts_search(partial=4)`; it takes edge weights.
      operators: how many each edge of the network has.
    """
    return bilevel(
        network,
        edge_relaxation(operators),
        epochs=epochs,
        frozen_epochs=frozen_epochs,
        sgd=sgd or Sgd(rate=0.1, final_rate=0.0),
        adam=adam or Adam(rate=6e-4),
        architecture_gradient=architecture_gradient,
        devices=devices,
    )


def edge_relaxation(operators: int) -> Relaxation:
    """DARTS's relaxation and beta [14] per cell type ("normal_edges", "reduce_edges"): softmax over a node's edges."""
    inner = softmax_relaxation(operators)

    def init(key: Key) -> PyTree:
        key_alpha, *keys = jax.random.split(key, 1 + len(CELLS))
        edges = {name: SPREAD * jax.random.normal(k, (len(EDGES),)) for name, k in zip(EDGE_WEIGHTS, keys, strict=True)}
        return inner.init(key_alpha) | edges

    def choice(alpha: PyTree) -> PyTree:
        return inner.choice({cell: alpha[cell] for cell in CELLS}) | {e: edge_softmax(alpha[e]) for e in EDGE_WEIGHTS}

    return Relaxation(init, choice)


def edge_softmax(beta: jax.Array) -> jax.Array:
    """Softmax within the groups of 2, 3, 4 and 5 edges that enter one node: f32[14] -> f32[14]."""
    groups = [[e for e, (_, to) in enumerate(EDGES) if to == node] for node in NODES]
    return jnp.concatenate([jax.nn.softmax(beta[edges[0] : edges[-1] + 1]) for edges in groups])


def probabilities(state: BilevelState) -> dict[str, np.ndarray]:
    """Softmax of alpha [14, O] and of beta [14], entries as in alpha, on the host; for the report's histories."""
    choice = edge_relaxation(0).choice(state.alpha)
    return {name: np.asarray(weights) for name, weights in choice.items()}


def derive(state: BilevelState, names: Mapping[str, Names] | None = None) -> dict[str, Any]:
    """The discrete architecture, as JSON: DARTS's rule on softmax(alpha) * softmax(beta). `names` as in `darts`."""
    p, names = probabilities(state), names or every_edge()
    scores = {cell: p[cell] * p[edges][:, None] for cell, edges in zip(CELLS, EDGE_WEIGHTS, strict=True)}
    return architecture({cell: kept_pairs(s, names[cell]) for cell, s in scores.items()}, names)
