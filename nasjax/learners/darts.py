"""DARTS: a softmax over the operators of each edge.

Liu et al. 2019, "DARTS: Differentiable Architecture Search" (arXiv:1806.09055), sections 2.2 to 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nasjax.learners.architecture_gradient import ArchitectureGradient, first_order
from nasjax.learners.bilevel import BilevelState, Relaxation, bilevel
from nasjax.learners.descent import Adam
from nasjax.spaces.darts_cell.derivation import DARTS_EDGES, Edges, Names, architecture, every_edge, kept_pairs
from nasjax.spaces.darts_cell.space import OPERATORS
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.sgd import Sgd
from nasjax.types import Key, Learner, Network, PyTree

SPREAD = 1e-3  # standard deviation of the initial architecture parameters


def darts(
    network: Network,
    *,
    epochs: int = 50,
    sgd: Sgd | None = None,
    adam: Adam | None = None,
    architecture_gradient: ArchitectureGradient = first_order,
    operators: int = len(OPERATORS),
    edges: Edges = DARTS_EDGES,
    objective: Objective = CLASSIFICATION,
    accumulate: int = 1,
    devices: int | None = None,
) -> Learner:
    """The learner of DARTS, CIFAR-10 settings. See `bilevel` for the arguments.

    Args:
      network: `nets.darts_cell.mixed`, or any whose choice is {cell: f32[E, O]}.
      operators: how many each edge of the network has.
      edges: of its cells.

    Example:
      >>> learner = darts(darts_search(), architecture_gradient=second_order_difference)
      >>> state = learner.init(key, batch)
      >>> state, metrics = learner.step(key, state, batch)
      >>> derive(state)["normal"][:2]
      [["sep_conv_3x3", 1], ["sep_conv_3x3", 0]]
    """
    return bilevel(
        network,
        softmax_relaxation(operators, edges),
        epochs=epochs,
        sgd=sgd,
        adam=adam,
        architecture_gradient=architecture_gradient,
        objective=objective,
        accumulate=accumulate,
        devices=devices,
    )


def softmax_relaxation(operators: int, edges: Edges = DARTS_EDGES) -> Relaxation:
    """alpha [E, operators] per cell type, shared by the cells of the type; the mixing weights are its softmax."""

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, len(edges))
        return {c: SPREAD * jax.random.normal(k, (len(edges[c]), operators)) for c, k in zip(edges, keys, strict=True)}

    return Relaxation(init, lambda alpha, key, epoch: jax.tree.map(jax.nn.softmax, alpha))


def probabilities(state: BilevelState) -> dict[str, np.ndarray]:
    """softmax(alpha), {"normal": f32[14, O], "reduce": f32[14, O]}, on the host; for the report's histories."""
    return {cell: np.asarray(jax.nn.softmax(values)) for cell, values in state.alpha.items()}


def derive(state: BilevelState, names: Mapping[str, Names] | None = None) -> dict[str, Any]:
    """The discrete architecture (section 2.4), as JSON; `names` are the operators of the edges, None = all."""
    names = names or every_edge()
    return architecture({cell: kept_pairs(p, names[cell]) for cell, p in probabilities(state).items()}, names)
