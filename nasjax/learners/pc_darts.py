"""PC-DARTS: partial channels, and a softmax over each node's incoming edges.

Xu et al. 2020, "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search" (arXiv:1907.05737),
sections 3.2 and 3.3. The network implements partial channels (`nets.darts_cell.mixed(partial=4)`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.architecture_gradient import ArchitectureGradient, first_order
from nasjax.learners.bilevel import BilevelState, Relaxation, bilevel
from nasjax.learners.darts import SPREAD, softmax_relaxation
from nasjax.learners.descent import Adam
from nasjax.spaces.darts_cell.derivation import DARTS_EDGES, Edges, Names, architecture, every_edge, kept_pairs
from nasjax.spaces.darts_cell.space import EDGES, OPERATORS
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.sgd import Sgd
from nasjax.types import Key, Learner, Network, PyTree

_BETA = "_edges"  # ends the names of beta in alpha and in the network's choice


def pc_darts(
    network: Network,
    *,
    epochs: int = 50,
    frozen_epochs: int = 15,
    sgd: Sgd | None = None,
    adam: Adam | None = None,
    architecture_gradient: ArchitectureGradient = first_order,
    operators: int = len(OPERATORS),
    edges: Edges = DARTS_EDGES,
    objective: Objective = CLASSIFICATION,
    accumulate: int = 1,
    devices: int | None = None,
) -> Learner:
    """The learner of PC-DARTS, CIFAR-10 settings (batch 256). See `bilevel` for the arguments.

    Args:
      network: `nets.darts_cell.mixed(partial=4)`; it takes edge weights.
      operators: how many each edge of the network has.
      edges: of its cells.
    """
    return bilevel(
        network,
        edge_relaxation(operators, edges),
        epochs=epochs,
        frozen_epochs=frozen_epochs,
        sgd=sgd or Sgd(learning_rate=0.1, final_rate=0.0),
        adam=adam or Adam(learning_rate=6e-4),
        architecture_gradient=architecture_gradient,
        objective=objective,
        accumulate=accumulate,
        devices=devices,
    )


def edge_relaxation(operators: int, edges: Edges = DARTS_EDGES) -> Relaxation:
    """DARTS's relaxation and beta [E] per cell type ("normal_edges", ...): softmax over the edges into a node."""
    inner = softmax_relaxation(operators, edges)

    def init(key: Key) -> PyTree:
        key_alpha, *keys = jax.random.split(key, 1 + len(edges))
        beta = {c + _BETA: SPREAD * jax.random.normal(k, (len(edges[c]),)) for c, k in zip(edges, keys, strict=True)}
        return inner.init(key_alpha) | beta

    def choice(alpha: PyTree, key: Key | None, epoch: Any) -> PyTree:
        beta = {cell + _BETA: edge_softmax(alpha[cell + _BETA], of) for cell, of in edges.items()}
        return inner.choice({cell: alpha[cell] for cell in edges}, key, epoch) | beta

    return Relaxation(init, choice)


def edge_softmax(beta: jax.Array, edges: Sequence[tuple[int, int]] = EDGES) -> jax.Array:
    """Softmax within the groups of edges that enter one node, as they follow each other: f32[E] -> f32[E]."""
    groups = [len(list(group)) for _, group in itertools.groupby(edges, key=lambda pair: pair[1])]
    parts = jnp.split(beta, np.cumsum(groups)[:-1])
    return jnp.concatenate([jax.nn.softmax(part) for part in parts])


def probabilities(state: BilevelState, edges: Edges = DARTS_EDGES) -> dict[str, np.ndarray]:
    """Softmax of alpha [E, O] and of beta [E], entries as in alpha, on the host; for the report's histories."""
    choice = edge_relaxation(0, edges).choice(state.alpha, None, state.epoch)
    return {name: np.asarray(weights) for name, weights in choice.items()}


def scores(state: BilevelState, edges: Edges = DARTS_EDGES) -> dict[str, np.ndarray]:
    """What a cell is derived from: softmax(alpha) * softmax(beta), f32[E, O] per cell type."""
    p = probabilities(state, edges)
    return {cell: p[cell] * p[cell + _BETA][:, None] for cell in edges}


def derive(state: BilevelState, names: Mapping[str, Names] | None = None) -> dict[str, Any]:
    """The discrete architecture, as JSON: DARTS's rule on the scores. `names` as in `darts`."""
    names = names or every_edge()
    return architecture({cell: kept_pairs(s, names[cell]) for cell, s in scores(state).items()}, names)
