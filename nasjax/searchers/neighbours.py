"""The neighbours of an architecture: those that differ in one decision."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nasjax.types import Key, Space

Neighbours = Callable[[Key, jax.Array], tuple[jax.Array, jax.Array]]
_MUTANTS = 64


def neighbours(space: Space) -> Neighbours:
    """key, Arch -> i32[N, A] neighbours in an order that the key draws, and bool[N], which of them there are.

    They are the space's own `neighbours`, where it has that function. Of other spaces they are draws of its mutation:
    as many as its sites have other choices, at most 64; some may be equal. Traceable.
    """
    own: Neighbours | None = getattr(space, "neighbours", None)
    number = min(_MUTANTS, max(1, sum(len(site.choices) - 1 for site in space.sites)))

    def mutants(key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(space.mutate, (0, None))(jax.random.split(key, number), arch), jnp.ones(number, bool)

    def of(key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_new, key_order = jax.random.split(key)
        archs, there = (own or mutants)(key_new, arch)
        if not len(archs):  # a space of one architecture
            archs, there = arch[None], jnp.zeros(1, bool)
        order = jax.random.permutation(key_order, len(archs))
        return archs[order], there[order]

    return of
