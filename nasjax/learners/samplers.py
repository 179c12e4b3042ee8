"""Which paths a step of a supernet trains: samplers key -> archs i32[P, S], traceable.

SPOS: Guo et al. 2020 (arXiv:1904.00420), section 3.1, and its code. FairNAS: Chu et al. 2021 (arXiv:1907.01845).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nasjax.spaces.choice_chain import ChoiceChain
from nasjax.types import Array, Key

Sampler = Callable[[Key], jax.Array]


def uniform(space: ChoiceChain) -> Sampler:
    """One path, every layer's operator drawn uniformly and independently."""
    return lambda key: space.sample(key)[None]


def macs_bins(
    space: ChoiceChain, macs: Callable[[jax.Array], jax.Array], edges: Sequence[int], tries: int = 500
) -> Sampler:
    """One path out of a bin of multiply-adds, the bin drawn uniformly: what SPOS's release does instead of `uniform`.

    Args:
      space: of the paths.
      macs: arch -> multiply-adds.
      edges: of the bins, ascending; bin i is edges[i] <= macs < edges[i + 1]. The release has 290e6, 300e6, ..., 360e6.
      tries: draws after which any path will do.

    Raises:
      ValueError: fewer than two edges, or edges out of order.
    """
    if len(edges) < 2 or list(edges) != sorted(set(edges)):
        raise ValueError(f"edges must be at least two ascending numbers of multiply-adds, got {tuple(edges)}")
    limits = jnp.asarray(edges, jnp.int32)

    def sample(key: Key) -> jax.Array:
        key_bin, key_path = jax.random.split(key)
        lowest = jax.random.randint(key_bin, (), 0, len(edges) - 1)

        def outside(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
            count, arch = carry
            cost = macs(arch)
            return (count < tries) & ((cost < limits[lowest]) | (cost >= limits[lowest + 1]))

        def again(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            count, _ = carry
            return count + 1, space.sample(jax.random.fold_in(key_path, count))

        return jax.lax.while_loop(outside, again, (jnp.int32(1), space.sample(jax.random.fold_in(key_path, 0))))[1][
            None
        ]

    return sample


def strict_fairness(space: ChoiceChain) -> Sampler:
    """m paths that together use every operator of every layer exactly once (FairNAS, algorithm 1).

    Raises:
      ValueError: layers with different numbers of choices (identity), or channel search.
    """
    if space.choose_identity or space.channel_factors:
        raise ValueError(
            "strict fairness needs layers with the same operators: choose_identity=false and no channel_factors"
        )
    m, layers = len(space.operators), [layer for layer in range(space.layers) if layer not in space.removed]

    def sample(key: Key) -> jax.Array:
        orders = jax.vmap(lambda k: jax.random.permutation(k, m))(jax.random.split(key, len(layers)))
        archs = jnp.full((m, space.layers), -1, jnp.int32)
        return archs.at[:, jnp.asarray(layers)].set(orders.T.astype(jnp.int32))

    return sample


def fixed(arch: Array) -> Sampler:
    """Always the same path: the supernet's program then trains this path alone."""
    return lambda key: jnp.asarray(arch, jnp.int32)[None]
