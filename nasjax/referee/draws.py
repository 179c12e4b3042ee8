"""What the referee draws: one number decides every seed, every run that is told, and every relabelling.

All come by SHA-256 from the comparison's number and the name of what is drawn. Nobody who proposes architectures knows
the number before the comparison begins, so that no seed can be chosen for its luck.
"""

from __future__ import annotations

import hashlib
import secrets

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Site


def secret() -> int:
    """A fresh number of 128 bits, from the operating system."""
    return secrets.randbits(128)


def drawn(master: int, *what: object) -> int:
    """The number of 32 bits that belongs to a name.

    Example:
      >>> drawn(1, "digits", 0, "search") == drawn(1, "digits", 0, "search") != drawn(2, "digits", 0, "search")
      True
    """
    name = "/".join(map(str, (master, *what)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def seeds(master: int, problem: str, count: int, what: str) -> list[int]:
    """The seeds of a problem for one purpose: the same for every searcher, so that results are paired."""
    return [drawn(master, problem, n, what) for n in range(count)]


def told_run(seed: jax.Array, there: jax.Array) -> jax.Array:
    """Which of its runs, those that are `there` bool[R, K], is told of every architecture: i32[R]; traceable.

    An architecture that is asked again has the same run, so that asking again tells nothing new.
    """
    return jnp.where(there, jax.random.uniform(jax.random.key(seed), there.shape), -1.0).argmax(1).astype(jnp.int32)


def relabelled(seed: int, sites: tuple[Site, ...]) -> list[np.ndarray]:
    """For every site a random order of its choices: entry k is the choice that a proposer knows as number k."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(len(site.choices)) for site in sites]
