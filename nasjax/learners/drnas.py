"""DrNAS: mixing weights drawn from Dirichlet distributions, which are learnt; stages drop operators and widen the rest.

Chen et al. 2021, "DrNAS: Dirichlet Neural Architecture Search" (arXiv:2006.10355), sections 2.2 (distributions) and 2.3
(stages); details follow the authors' code (docs/methods/drnas.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.architecture_gradient import ArchitectureGradient, first_order
from nasjax.learners.bilevel import BilevelState, Relaxation, bilevel
from nasjax.learners.darts import softmax_relaxation
from nasjax.learners.descent import Adam, cosine
from nasjax.spaces.darts_cell.derivation import DARTS_EDGES, Edges, Names, every_edge
from nasjax.spaces.darts_cell.space import OPERATORS
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.sgd import Sgd
from nasjax.types import Key, Learner, Network, PyTree, Stages

DROPPED = -1e4  # alpha of a dropped operator: its concentration is 0, and no training gets it back


def drnas(
    networks: Sequence[Network],
    *,
    operators: Sequence[int] = (7, 4),
    epochs: int = 25,
    frozen_epochs: int = 10,
    sgd: Sgd | None = None,
    adam: Adam | None = None,
    architecture_gradient: ArchitectureGradient = first_order,
    names: Mapping[str, Names] | None = None,
    edges: Edges = DARTS_EDGES,
    objective: Objective = CLASSIFICATION,
    accumulate: int = 1,
    devices: int | None = None,
) -> Stages:
    """The stages of DrNAS, CIFAR-10 settings. Weights, alpha and both optimisers' states go on from stage to stage.

    What keeps a concentration near 1 (section 2.2, the l2 regulariser) is Adam's weight decay of alpha. Dropped
    operators have weight 0, but the network computes them: a stage costs what its K costs.

    Args:
      networks: of each stage, the same but for the share of channels that goes through the operators: what grows from
        one to the next starts as copies (`widened`). Their choice is {cell: f32[E, O]}.
      operators: how many each edge has in each stage.
      epochs, frozen_epochs: of each stage; the learning rate's cosine spans all. `bilevel` explains the rest.
      names: the operators of each edge of the networks; None = those of `darts_cell` but `none`, as the authors have.
      edges: of its cells.

    Returns:
      Stages; the facts of every stage are the operators of the networks. Those that a stage has dropped have
      `probabilities` of 0.

    Raises:
      ValueError: the stages do not fit together.
    """
    names = names or every_edge(OPERATORS[1:])
    most = len(next(iter(names.values()))[0])
    if len(networks) != len(operators):
        raise ValueError(f"give every stage a network and operators; got {len(networks)} and {tuple(operators)}")
    if operators[0] != most or list(operators) != sorted(operators, reverse=True) or operators[-1] < 2:
        raise ValueError(f"operators must fall from the space's {most} to at least 2, got {tuple(operators)}")
    sgd = sgd or Sgd(learning_rate=0.1, final_rate=0.0)

    listed = {cell: [list(of) for of in names[cell]] for cell in names}

    def learner(i: int, facts: Any) -> Learner:
        return bilevel(
            networks[i],
            dirichlet_relaxation(most, edges),
            epochs=epochs,
            frozen_epochs=frozen_epochs,
            sgd=sgd,
            adam=adam or Adam(learning_rate=6e-4),
            architecture_gradient=architecture_gradient,
            rate=lambda epoch: cosine(sgd, i * epochs + epoch, len(networks) * epochs),
            objective=objective,
            accumulate=accumulate,
            devices=devices,
        )

    def carry(i: int, facts: Any, previous: BilevelState, state: BilevelState) -> BilevelState:
        left = {cell: likeliest(p, operators[i]) for cell, p in probabilities(previous).items()}
        alpha = {cell: jnp.where(left[cell], values, DROPPED) for cell, values in previous.alpha.items()}
        return state._replace(
            params=widened(previous.params, state.params),
            momentum=widened(previous.momentum, state.momentum),
            batch_stats=_of_same_shape(previous.batch_stats, state.batch_stats),
            alpha=alpha,
            adam=previous.adam,
        )

    return Stages(lambda i, previous, state: listed if i < len(networks) else None, learner, carry)


def dirichlet_relaxation(operators: int, edges: Edges = DARTS_EDGES) -> Relaxation:
    """alpha as in DARTS; the mixing weights of an edge are drawn from Dirichlet(`concentration`(alpha)).

    Their gradient is the implicit one of gamma variates. Without a key they are the distribution's mean.
    """

    def choice(alpha: PyTree, key: Key | None, epoch: Any) -> PyTree:
        if key is None:
            return {cell: mean(values) for cell, values in alpha.items()}
        keys = dict(zip(sorted(alpha), jax.random.split(key, len(alpha)), strict=True))
        return {cell: _drawn(values, keys[cell]) for cell, values in alpha.items()}

    return Relaxation(softmax_relaxation(operators, edges).init, choice)


def concentration(alpha: jax.Array) -> jax.Array:
    """elu(alpha) + 1: 1 where alpha is 0, and 0 for a dropped operator."""
    return jnp.where(alpha > 0, alpha + 1, jnp.exp(jnp.minimum(alpha, 0)))


def mean(alpha: jax.Array) -> jax.Array:
    """The mean of each edge's distribution, f32[E, O]."""
    beta = concentration(alpha)
    return beta / beta.sum(-1, keepdims=True)


def _drawn(alpha: jax.Array, key: Key) -> jax.Array:
    """A Dirichlet variate is gamma variates over their sum; without some of them it is one of the others' alone."""
    beta = concentration(alpha)
    logs = jax.random.loggamma(key, jnp.where(beta > 0, beta, 1))
    return jax.nn.softmax(jnp.where(beta > 0, logs, -jnp.inf))


def widened(before: PyTree, like: PyTree) -> PyTree:
    """Weights in the shapes of `like`: an axis that grew repeats its first entries, so that new channels are copies."""

    def leaf(old: Any, new: Any) -> jax.Array:
        for axis, size in enumerate(new.shape):
            if size != old.shape[axis]:
                old = np.take(np.asarray(old), np.arange(size) % old.shape[axis], axis)
        return jnp.asarray(old)

    return jax.tree.map(leaf, before, like)


def _of_same_shape(before: PyTree, like: PyTree) -> PyTree:
    """Running statistics of what grew begin anew: nothing but validation reads them, and they settle in an epoch."""
    return jax.tree.map(lambda old, new: old if old.shape == new.shape else new, before, like)


def likeliest(p: np.ndarray, count: int) -> np.ndarray:
    """bool[E, O]: the `count` operators of each edge with the largest p. Ties drop the lower index."""
    found = np.zeros(p.shape, bool)
    np.put_along_axis(found, np.argsort(p, axis=1, kind="stable")[:, p.shape[1] - count :], True, axis=1)
    return found


def probabilities(state: BilevelState) -> dict[str, np.ndarray]:
    """The distributions' means, {cell: f32[E, O]}, on the host: what cells are derived from, and the histories show."""
    return {cell: np.asarray(mean(values)) for cell, values in state.alpha.items()}
