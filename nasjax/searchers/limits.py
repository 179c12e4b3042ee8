"""A space whose draws and mutants keep to a limit: what is beyond is drawn again, or mutated until it is within."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.types import Key, Space

TRIES, STEPS = 50, 400  # draws, and then mutations towards the limit
_Carry = tuple[Any, jax.Array, jax.Array, jax.Array]  # of the loop: number, where it is, the nearest, its excess
SLACK = 1.25  # a way down may begin upwards, as when an edge must come before a node can go


class Limited:
    """A space of which `sample` and `mutate` give what keeps to a limit, as far as they find it; else as the space.

    A draw that keeps to it is the space's own. After `TRIES` that do not, the one nearest to the limit is mutated up to
    `STEPS` times; a mutant takes its parent's place unless it takes more than `SLACK` times what the nearest so far
    does. What is returned then, the nearest, may still be beyond. Both are traceable.

    Args:
      space: where to draw.
      excess: Arch -> f32[], how many times the limit it takes; up to 1 is within. Traceable.

    Example:
      >>> space = Limited(ResolutionGraph(), lambda arch: macs(arch) / 300e6)
    """

    def __init__(self, space: Space, excess: Callable[[jax.Array], jax.Array]) -> None:
        self._space, self._excess = space, excess

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def sample(self, key: Key) -> jax.Array:
        """A random Arch."""
        return self._drawn(key, self._space.sample)

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """A mutant of an Arch."""
        return self._drawn(key, lambda key: self._space.mutate(key, arch))

    def _drawn(self, key: Key, draw: Callable[[Key], jax.Array]) -> jax.Array:
        first = jnp.asarray(draw(key), jnp.int32)

        def beyond(carry: _Carry) -> jax.Array:
            n, _, _, over = carry
            return (n < TRIES + STEPS) & ~(over <= 1)

        def again(carry: _Carry) -> _Carry:
            n, now, nearest, over = carry
            key_now = jax.random.fold_in(key, n)
            arch = jax.lax.cond(n < TRIES, draw, lambda key: self._space.mutate(key, now), key_now)
            found = self._excess(arch)
            nearer, goes_on = found < over, (n >= TRIES) & (found <= SLACK * over)
            now = jnp.where(nearer | goes_on, arch, now)
            return n + 1, now, jnp.where(nearer, arch, nearest), jnp.where(nearer, found, over)

        return jax.lax.while_loop(beyond, again, (jnp.int32(1), first, first, self._excess(first)))[2]
