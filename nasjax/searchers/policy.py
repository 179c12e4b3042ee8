"""The `Policy` protocol: a trainable distribution over the architectures of a space."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Key, PyTree, Space

IMPOSSIBLE = -1e9  # logit of a choice that a site does not have; finite, so that p log p is 0

DepthSchedule = Callable[[jax.Array], jax.Array]  # trial number i32[] -> depth i32[] (a value, not an index)


class Policy(NamedTuple):
    """Built from a space's static sites; every function is jit- and vmap-able.

    Only active sites count. Whether a site is active may depend on the depth and on earlier sites, not on later ones.
    The depth site is given, never emitted.

    init(key) -> params
    sample(key, params, depth) -> Arch i32[S]        depth i32[]: the value of the depth site (ignored if there is none)
    log_prob(params, arch) -> (log P(arch | depth), sum of the entropies of the steps that emit it), in nats
    """

    init: Callable[[Key], PyTree]
    sample: Callable[[Key, PyTree, jax.Array], jax.Array]
    log_prob: Callable[[PyTree, jax.Array], tuple[jax.Array, jax.Array]]


def depth_column(space: Space) -> int | None:
    """Column of the site of group "depth", None if the space has none."""
    return next((s for s, site in enumerate(space.sites) if site.group == "depth"), None)


def blank_arch(space: Space, depth: jax.Array | int) -> jax.Array:
    """i32[S]: an Arch with all sites open (-1) except the depth, which takes the choice nearest to `depth`."""
    arch = jnp.full(len(space.sites), -1, jnp.int32)
    column = depth_column(space)
    if column is None:
        return arch
    return arch.at[column].set(jnp.argmin(jnp.abs(np.array(space.sites[column].choices) - depth)).astype(jnp.int32))


def depth_schedule(*, first: int = 6, step: int = 2, every: int = 1600, maximum: int = 20) -> DepthSchedule:
    """Depth as a function of the architectures sampled so far: first + step * floor(n / every), at most `maximum`.

    Zoph & Le 2017, section 4.1; the defaults are the CIFAR-10 run, whose 12,800 samples reach depth 20.

    Example:
      >>> int(depth_schedule()(12_799))
      20
    """
    if first < 1 or every < 1 or maximum < first:
        raise ValueError(f"need first >= 1, every >= 1, maximum >= first; got {first}, {every}, {maximum}")
    return lambda trial: jnp.clip(first + step * (jnp.asarray(trial) // every), 1, maximum)
