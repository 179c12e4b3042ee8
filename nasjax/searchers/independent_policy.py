"""The independent policy: one softmax of free logits per site, no autoregression.

The policy of NAS-Bench-201's own REINFORCE baseline (Dong & Yang 2020, section 4).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.searchers.policy import IMPOSSIBLE, Policy, blank_arch
from nasjax.types import Key, PyTree, Space


def independent_policy(space: Space) -> Policy:
    """A table of logits [S, most choices], all zero at first, so that sampling starts uniform."""
    sites = space.sites
    arity = np.array([1 if site.group == "depth" else len(site.choices) for site in sites])  # a given site: P = 1
    possible = np.arange(arity.max())[None, :] < arity[:, None]

    def init(key: Key) -> PyTree:
        return {"logits": jnp.zeros(possible.shape)}

    def log_probs(params: PyTree) -> jax.Array:  # [S, A]
        return jax.nn.log_softmax(jnp.where(possible, params["logits"], IMPOSSIBLE))

    def sample(key: Key, params: PyTree, depth: jax.Array) -> jax.Array:
        draws = jax.random.categorical(key, log_probs(params)).astype(jnp.int32)
        given = blank_arch(space, depth)
        arch = jnp.where(given >= 0, given, draws)
        return jnp.where(space.active(arch), arch, -1)

    def log_prob(params: PyTree, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        logp = log_probs(params)
        active = space.active(arch)
        chosen = jnp.minimum(jnp.maximum(arch, 0), arity - 1)
        taken = jnp.take_along_axis(logp, chosen[:, None], 1)[:, 0]
        entropy = -(jnp.exp(logp) * logp).sum(1)
        return jnp.where(active, taken, 0.0).sum(), jnp.where(active, entropy, 0.0).sum()

    return Policy(init, sample, log_prob)
