"""What a surrogate compares two architectures by.

A feature is a whole number, and two architectures agree in it where their numbers are equal. Features come in blocks
(single decisions, pairs of decisions, paths), each with a weight of its own in the surrogate. A space may say itself
which decisions belong together, by `groups`; else that follows from its sites.

White et al. 2021, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search"
(arXiv:1910.11858), section 3: an architecture is encoded by its paths. Single decisions, and pairs of them, beside the
paths are our choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Site, Space

Features = Callable[[jax.Array], tuple[jax.Array, ...]]  # Arch -> whole numbers [T] per block, traceable
_MOST_PAIRS = 512


def features(space: Space) -> Features:
    """Blocks of features of an Arch: the space's own `groups`, else its sites and the pairs of sites within a layer.

    Inactive sites have a value of their own (-1), so agreement in depth counts.
    """
    if hasattr(space, "groups"):
        return blocks(space.sites, space.groups)
    by_layer: dict[int, list[int]] = {}
    for column, site in enumerate(space.sites):
        by_layer.setdefault(site.layer, []).append(column)
    pairs = [pair for columns in by_layer.values() for pair in itertools.combinations(columns, 2)]
    singles = [(column,) for column in range(len(space.sites))]
    return blocks(space.sites, [singles, *([pairs] if 0 < len(pairs) <= _MOST_PAIRS else [])])


def blocks(sites: Sequence[Site], groups: Sequence[Sequence[tuple[int, ...]]]) -> Features:
    """Features of groups of sites: those of a group agree where all of its sites agree.

    Args:
      sites: of the space; column s of an Arch is sites[s].
      groups: per block its groups, each the columns of the sites in it.

    Returns:
      The features, each block in the smallest type that holds its numbers: bytes are compared several at a time.
    """
    counts = np.array([len(site.choices) + 1 for site in sites], np.int64)  # -1 is a value, too
    for group in itertools.chain(*groups):
        if counts[list(group)].prod() > np.iinfo(np.int32).max:
            raise ValueError(f"the sites {group} have too many values together for one feature")
    kinds = [np.min_scalar_type(max(counts[list(group)].prod() for group in block)) for block in groups]

    def of(arch: jax.Array) -> tuple[jax.Array, ...]:
        values = jnp.asarray(arch, jnp.int32) + 1
        numbers = [jnp.stack([_number(values, counts, group) for group in block]) for block in groups]
        return tuple(block.astype(kind) for block, kind in zip(numbers, kinds, strict=True))

    return of


def _number(values: jax.Array, counts: np.ndarray, group: tuple[int, ...]) -> jax.Array:
    """One number for the values of several sites, mixed radix."""
    number = values[group[0]]
    for column in group[1:]:
        number = number * int(counts[column]) + values[column]
    return number
