"""Sampling, mutation and crossover of any space whose sites are drawn uniformly, each on its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nasjax.spaces.one_change import one_change
from nasjax.types import Key, Site


class UniformSites:
    """The functions that follow from `sites` and `active`. Whether a site counts may depend on earlier sites only.

    Every function is traceable and works on one Arch i32[S].
    """

    sites: Any  # tuple[Site, ...]; a space may compute it

    def active(self, arch: jax.Array) -> jax.Array:
        """bool[S]: which sites count. Here all do."""
        return jnp.ones(len(self.sites), bool)

    def _conditional(self) -> bool:
        """Whether some sites do not always count."""
        return type(self).active is not UniformSites.active

    def sample(self, key: Key, depth: jax.Array | int | None = None) -> jax.Array:
        """Every site drawn uniformly and independently; `depth` fixes the site of group "depth", where there is one."""
        drawn = self._drawn(key)
        column = next((i for i, site in enumerate(self.sites) if site.group == "depth"), None)
        if depth is not None and column is not None:
            choices = jnp.array(self.sites[column].choices)
            drawn = drawn.at[column].set(jnp.abs(choices - depth).argmin().astype(jnp.int32))
        return self._repaired(drawn, drawn)

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """Gives one active site, drawn uniformly, another choice; sites that become active are drawn."""
        key_site, key_step, key_spare = jax.random.split(key, 3)
        arch, counts = jnp.asarray(arch, jnp.int32), self._counts()
        site = jax.random.categorical(key_site, jnp.where(self.active(arch) & (counts > 1), 0.0, -jnp.inf))
        step = jax.random.randint(key_step, (), 1, jnp.maximum(counts[site], 2), jnp.int32)
        return self._repaired(arch.at[site].set((arch[site] + step) % counts[site]), self._drawn(key_spare))

    def neighbours(self, key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What differs in one site, i32[N, S], and which of it there is, bool[N]; new sites are drawn."""
        repair = (lambda key, arch: self._repaired(arch, self._drawn(key))) if self._conditional() else None
        return one_change(key, arch, self.sites, repair)

    def mutate_genes(self, key: Key, arch: jax.Array, rate: float | jax.Array) -> jax.Array:
        """Draws every active site anew with probability `rate`; the old value may come again, as in SPOS's release."""
        key_which, key_value = jax.random.split(key)
        fresh = self._drawn(key_value)
        return self._repaired(jnp.where(jax.random.bernoulli(key_which, rate, fresh.shape), fresh, arch), fresh)

    def crossover(self, key: Key, a: jax.Array, b: jax.Array) -> jax.Array:
        """Takes every site from one parent or the other."""
        child = jnp.where(jax.random.bernoulli(key, shape=jnp.shape(a)), a, b)
        return self._repaired(child, jnp.maximum(a, b))

    def _counts(self) -> jax.Array:
        sites: tuple[Site, ...] = self.sites
        return jnp.array([len(site.choices) for site in sites], jnp.int32)

    def _drawn(self, key: Key) -> jax.Array:
        """A value for every site, active or not."""
        counts = self._counts()
        return jax.random.randint(key, counts.shape, 0, counts, jnp.int32)

    def _repaired(self, arch: jax.Array, spare: jax.Array) -> jax.Array:
        """-1 exactly where a site is inactive; `spare` [S] replaces the -1 of sites that have become active.

        A site that becomes inactive may deactivate later ones, and so on: at most one round per site.
        """
        if not self._conditional():
            return arch
        spare = jnp.maximum(spare, 0)

        def again(_: int, arch: jax.Array) -> jax.Array:
            return jnp.where(self.active(arch), jnp.where(arch < 0, spare, arch), -1)

        return jax.lax.fori_loop(0, len(self.sites), again, jnp.asarray(arch, jnp.int32))
