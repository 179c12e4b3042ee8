"""GDAS: one operator per edge, drawn anew in every pass; the gradient goes through a softmax that gets sharper.

Dong & Yang 2019, "Searching for a Robust Neural Architecture in Four GPU Hours" (arXiv:1910.04465), section 3.2; the
course of the temperature is that of the authors' code (docs/methods/gdas.md).
"""

from __future__ import annotations

from typing import Any

import jax

from nasjax.learners.architecture_gradient import ArchitectureGradient, first_order
from nasjax.learners.bilevel import Relaxation, bilevel
from nasjax.learners.darts import softmax_relaxation
from nasjax.learners.descent import Adam
from nasjax.spaces.darts_cell.derivation import DARTS_EDGES, Edges
from nasjax.spaces.darts_cell.space import OPERATORS
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.sgd import Sgd
from nasjax.types import Key, Learner, Network, PyTree

TAU = (10.0, 0.1)  # temperature in the first and in the last epoch


def gdas(
    network: Network,
    *,
    epochs: int = 250,
    tau: tuple[float, float] = TAU,
    sgd: Sgd | None = None,
    adam: Adam | None = None,
    architecture_gradient: ArchitectureGradient = first_order,
    operators: int = len(OPERATORS),
    edges: Edges = DARTS_EDGES,
    objective: Objective = CLASSIFICATION,
    accumulate: int = 1,
    devices: int | None = None,
) -> Learner:
    """The learner of GDAS, settings of the authors' code for cells on CIFAR-10. See `bilevel` for the arguments.

    The network computes every operator and weighs it by 0 or 1, so that a pass costs what one of DARTS does; the
    authors' computes what was drawn.

    Args:
      network: any whose choice is {cell: f32[E, O]}.
      tau: temperature of the softmax in the first and the last epoch; linear between them.
      operators: how many each edge of the network has.
      edges: of its cells.
    """
    return bilevel(
        network,
        gumbel_relaxation(operators, edges, epochs=epochs, tau=tau),
        epochs=epochs,
        sgd=sgd or Sgd(weight_decay=5e-4),
        adam=adam,
        architecture_gradient=architecture_gradient,
        objective=objective,
        accumulate=accumulate,
        devices=devices,
    )


def gumbel_relaxation(
    operators: int, edges: Edges = DARTS_EDGES, *, epochs: int = 250, tau: tuple[float, float] = TAU
) -> Relaxation:
    """alpha as in DARTS; the mixing weights are 1 for an operator drawn from its softmax, 0 for the others.

    Equations 3 to 5. Only the weight of what was drawn has a gradient, as only that operator is computed there: that
    of softmax((log p + Gumbel noise) / tau) at its place. Without a key the likeliest operator is taken.

    Raises:
      ValueError: temperatures that are not positive or that rise.
    """
    if len(tau) != 2 or not tau[0] >= tau[1] > 0:
        raise ValueError(f"tau must fall from a positive number to another, got {tau}; write tau=10,0.1")
    first, last = tau

    def choice(alpha: PyTree, key: Key | None, epoch: Any) -> PyTree:
        if key is None:
            return {cell: _largest(values) for cell, values in alpha.items()}
        now = first - (first - last) * epoch / max(epochs - 1, 1)
        keys = dict(zip(sorted(alpha), jax.random.split(key, len(alpha)), strict=True))
        return {cell: _drawn(values, keys[cell], now) for cell, values in alpha.items()}

    return Relaxation(softmax_relaxation(operators, edges).init, choice)


def _largest(values: jax.Array) -> jax.Array:
    return jax.nn.one_hot(values.argmax(-1), values.shape[-1], dtype=values.dtype)


def _drawn(alpha: jax.Array, key: Key, tau: Any) -> jax.Array:
    """One row of 0 and 1 per edge, f32[E, O]."""
    noisy = jax.nn.log_softmax(alpha) + jax.random.gumbel(key, alpha.shape, alpha.dtype)
    soft = jax.nn.softmax(noisy / tau)
    return _largest(noisy) * (1 + (soft - jax.lax.stop_gradient(soft)))
