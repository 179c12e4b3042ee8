"""The architectures that differ from one in a single decision, for spaces whose decisions are free of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Key, Site

Repair = Callable[[Key, jax.Array], jax.Array]  # sets what has become inactive to -1, draws what has become active


def one_change(
    key: Key, arch: jax.Array, sites: Sequence[Site], repair: Repair | None = None
) -> tuple[jax.Array, jax.Array]:
    """Every other choice of every active site, one at a time; traceable.

    Args:
      key: of what `repair` draws.
      arch: i32[S], -1 where a site is inactive.
      sites: S of them.
      repair: None = all sites always count.

    Returns:
      i32[N, S] and bool[N], which of them there are: those of an inactive site are not. N = all other choices together.
    """
    counts = np.array([len(site.choices) for site in sites], np.int32)
    site = np.repeat(np.arange(len(counts)), counts - 1)
    step = np.concatenate([np.arange(1, count, dtype=np.int32) for count in counts])
    arch = jnp.asarray(arch, jnp.int32)
    value = (arch[site] + step) % counts[site]
    archs = jnp.repeat(arch[None], len(site), 0).at[np.arange(len(site)), site].set(value)
    if repair is not None and len(site):
        archs = jax.vmap(repair)(jax.random.split(key, len(site)), archs)
    return archs, arch[site] >= 0
