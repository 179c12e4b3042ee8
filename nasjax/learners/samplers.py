"""Which paths a step of a supernet trains: samplers key -> archs i32[P, S], traceable.

SPOS: Guo et al. 2020 (arXiv:1904.00420), section 3.1, and its code. FairNAS: Chu et al. 2021 (arXiv:1907.01845).
BigNAS: Yu et al. 2020 (arXiv:2003.11142), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Array, Key, Space

Sampler = Callable[[Key], jax.Array]
MOST_PATHS = 36  # whose gradients one update adds up, under strict fairness


def uniform(space: Space) -> Sampler:
    """One path, every site drawn as the space samples: uniformly and independently."""
    return lambda key: space.sample(key)[None]


def macs_bins(space: Space, macs: Callable[[jax.Array], jax.Array], edges: Sequence[int], tries: int = 500) -> Sampler:
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


def strict_fairness(space: Space) -> Sampler:
    """P paths that together use all choices of every site equally often (FairNAS, algorithm 1).

    Where all sites have m choices, P = m and each comes once, which is the paper's rule. Where their numbers differ, as
    those of depths and heads do, or some sites count only in deep paths, the choices of a site come equally often among
    the paths in which it counts; that is our reading, since the paper has one number of operators. P is `strict_paths`.

    Raises:
      ValueError: see `strict_paths`.
    """
    return _balanced(space, strict_paths(space))


def strict_paths(space: Space) -> int:
    """The least number of paths that can be strictly fair.

    Raises:
      ValueError: layers that may be identity, channel search, or more paths than one update should add up.
    """
    if getattr(space, "choose_identity", False) or getattr(space, "channel_factors", ()):
        raise ValueError(
            "strict fairness needs layers with the same operators: choose_identity=false and no channel_factors"
        )
    columns = _columns(space)
    counts = [len(space.sites[column].choices) for column in columns]
    least = math.lcm(*counts)
    for paths in range(least, MOST_PATHS + 1, least):
        archs = np.asarray(_balanced(space, paths)(jax.random.key(0)))
        found = [np.bincount(archs[archs[:, c] >= 0, c], minlength=n) for c, n in zip(columns, counts, strict=True)]
        if all(len(set(times.tolist())) == 1 for times in found):
            return paths
    raise ValueError(
        f"strict fairness over sites of {', '.join(map(str, sorted(set(counts))))} choices takes more than "
        f"{MOST_PATHS} paths a step; give the sites numbers of choices that divide each other, or set "
        "supernet.sampler=uniform"
    )


def _columns(space: Space) -> list[int]:
    """The sites that count in some path."""
    removed = getattr(space, "removed", ())
    return [column for column, site in enumerate(space.sites) if site.layer not in removed]


def _balanced(space: Space, paths: int) -> Sampler:
    """Paths in which the choices of a site come as equally often as `paths` allows, wherever the site counts.

    Whether a site counts may depend on sites that always count (a depth), not on others.
    """
    columns = _columns(space)
    counts = jnp.array([len(space.sites[column].choices) for column in columns], jnp.int32)[:, None]

    def sample(key: Key) -> jax.Array:
        orders = jax.vmap(lambda k: jax.random.permutation(k, paths))(jax.random.split(key, len(columns)))

        def archs(counted: jax.Array) -> jax.Array:
            """By a path's place in the order of those that count, bool[C, P]."""
            before = (orders[:, None, :] < orders[:, :, None]) & counted[:, None, :]
            chosen = jnp.where(counted, before.sum(-1, dtype=jnp.int32) % counts, -1)
            return jnp.full((paths, len(space.sites)), -1, jnp.int32).at[:, jnp.array(columns)].set(chosen.T)

        always = archs(jnp.ones(orders.shape, bool))
        return archs(jax.vmap(space.active)(always)[:, jnp.array(columns)].T)

    return sample


def sandwich(space: Space, ends: Array, random: int = 2) -> Sampler:
    """The largest path, the smallest one, and some drawn as the space samples, in this order (BigNAS, section 3.1).

    Args:
      space: of the paths.
      ends: i32[2, S], the largest and the smallest path.
      random: paths beside them.

    Raises:
      ValueError: a negative number of paths.
    """
    if random < 0:
        raise ValueError(f"random is a number of paths beside the largest and the smallest, not negative; got {random}")
    always = jnp.asarray(ends, jnp.int32)

    def sample(key: Key) -> jax.Array:
        return jnp.concatenate([always, jax.vmap(space.sample)(jax.random.split(key, random))]) if random else always

    return sample


def fixed(arch: Array) -> Sampler:
    """Always the same path: the supernet's program then trains this path alone."""
    return lambda key: jnp.asarray(arch, jnp.int32)[None]
