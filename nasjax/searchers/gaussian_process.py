"""A Gaussian process with fixed shapes: masked rows, a kernel of weighted distances, hyper-parameters by gradients.

Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 5. The kernel is exp(-w . d) with a
weight per block of distances d, plus noise; targets have mean 0 and variance 1 by `scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Hyper(NamedTuple):
    """Hyper-parameters, as logarithms."""

    weights: jax.Array  # f32[B], of the blocks of distances
    noise: jax.Array  # f32[], the variance of the noise


class Posterior(NamedTuple):
    """A Gaussian process conditioned on C rows, of which those with `there` count."""

    whiten: jax.Array  # f32[C, C], the inverse of the kernel matrix's Cholesky factor; 0 for rows that do not count
    values: jax.Array  # f32[C], whiten @ targets


def kernel(hyper: Hyper, distances: Sequence[jax.Array]) -> jax.Array:
    """f32[N, M] from the distances of B blocks, f32[N, M], 0 to 1 each: 1 where all are 0."""
    weights = jnp.exp(hyper.weights)
    return jnp.exp(-sum(weight * distance for weight, distance in zip(weights, distances, strict=True)))


def _whiten(hyper: Hyper, distances: Sequence[jax.Array], there: jax.Array) -> jax.Array:
    """f32[C, C], the inverse of the Cholesky factor of the kernel matrix; 0 in the rows and columns not `there`."""
    both = there[:, None] & there[None]
    matrix = jnp.where(both, kernel(hyper, distances), 0.0)
    matrix += jnp.diag(jnp.where(there, jnp.exp(hyper.noise), 1.0))
    factor = jnp.linalg.cholesky(matrix, symmetrize_input=False)
    # Without these zeros a row that is not there would be the identity's, and take its own kernel from the variance.
    return jax.scipy.linalg.solve_triangular(factor, jnp.diag(jnp.where(there, 1.0, 0.0)), lower=True)


def fit(
    hyper: Hyper,
    prior: Hyper,
    distances: Sequence[jax.Array],
    targets: jax.Array,
    there: jax.Array,
    steps: int,
    rate: float,
) -> Hyper:
    """`steps` of gradient ascent (Adam, `rate`) on the marginal likelihood, with a normal prior of deviation 1.

    Args:
      hyper, prior: where it starts; the prior's means.
      distances: f32[C, C] per block, between the rows.
      targets: f32[C].
      there: bool[C], which rows count.
    """
    import optax

    if not steps:
        return hyper
    adam, values = optax.adam(rate), jnp.where(there, targets, 0.0)

    def gradient(hyper: Hyper) -> Hyper:
        """Of minus the logarithm of likelihood times prior: equation 5.9, which needs no gradient of the factor."""
        whiten = _whiten(hyper, distances, there)
        inverse = whiten.T @ whiten
        pulled = inverse @ values
        slope = 0.5 * (inverse - jnp.outer(pulled, pulled))  # by the entries of the kernel matrix
        noise = jnp.exp(hyper.noise) * jnp.where(there, jnp.diagonal(slope), 0.0).sum()
        slope = slope * kernel(hyper, distances)  # 0 between rows that do not count
        weights = -jnp.exp(hyper.weights) * jnp.stack([(slope * distance).sum() for distance in distances])
        return jax.tree.map(lambda found, now, mean: found + now - mean, Hyper(weights, noise), hyper, prior)

    def step(carry: tuple[Hyper, optax.OptState], _: None) -> tuple[tuple[Hyper, optax.OptState], None]:
        hyper, state = carry
        updates, state = adam.update(gradient(hyper), state)
        return (optax.apply_updates(hyper, updates), state), None  # type: ignore[return-value]

    return jax.lax.scan(step, (hyper, adam.init(hyper)), None, length=steps)[0][0]  # type: ignore[arg-type]


def condition(hyper: Hyper, distances: Sequence[jax.Array], targets: jax.Array, there: jax.Array) -> Posterior:
    """The posterior of rows with distances f32[C, C] per block and targets f32[C]; rows not `there` say nothing."""
    whiten = _whiten(hyper, distances, there)
    return Posterior(whiten, whiten @ jnp.where(there, targets, 0.0))


def pull(posterior: Posterior) -> jax.Array:
    """f32[C]: the mean at a candidate is the product of this and its kernel with the rows."""
    return posterior.values @ posterior.whiten


def scores(fitness: jax.Array, there: jax.Array) -> jax.Array:
    """Targets of fitness f32[C]: the log odds of its rank among those `there`, of mean 0; failures (-inf) are last.

    Ranks do not care how fitness is scaled, and one failure does not widen the range. Ours; Ru et al. 2021 and White et
    al. 2021 standardise the accuracy itself.
    """
    count = jnp.maximum(there.sum(), 1)
    less = ((fitness[None] < fitness[:, None]) & there[None]).sum(1)
    equal = ((fitness[None] == fitness[:, None]) & there[None]).sum(1)
    rank = (less + 0.5 * (equal + 1)) / count  # (0, 1]
    odds = 0.5 * jnp.log(rank / (1 - rank + 1 / count))
    mean = jnp.where(there, odds, 0.0).sum() / count
    return jnp.where(there, odds - mean, 0.0)
