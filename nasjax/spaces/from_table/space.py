"""Space `from_table`: the architectures that a file of results has, a site per column of its `ops`.

A file that has every combination of choices makes a lattice, of which each architecture is drawn alike. From a file
with a part of them that part is drawn: a random architecture is one of the file, a mutant one of its neighbours there.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.from_table import file
from nasjax.spaces.site_space import SiteSpace
from nasjax.types import Array, Key, Site

_MOST = 512  # pairs or paths that are compared
_LARGEST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class TableSpace(SiteSpace):
    """What a table is about; made by `table_space`.

    Attributes:
      site_names: names of the decisions.
      ops: what each of them chooses from.
      edges: nodes (from, to) of each, where the decisions are edges of a graph; () = they are not.
      part: the file, where it has a part of all combinations only; "" = it has them all.
    """

    site_names: tuple[str, ...] = ()
    ops: tuple[tuple[str, ...], ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    part: str = ""

    name = "from_table"
    _when = ()

    def __post_init__(self) -> None:
        if len(self.site_names) != len(self.ops) or (self.edges and len(self.edges) != len(self.ops)):
            raise ValueError(
                f"site_names, ops and edges must be as many, got {len(self.site_names)}, {len(self.ops)} and "
                f"{len(self.edges)}"
            )

    @cached_property
    def sites(self) -> tuple[Site, ...]:  # type: ignore[override]
        """One decision per column; those with the same choices share a policy's head."""
        kinds = list(dict.fromkeys(self.ops))
        return tuple(
            Site(name, ops, f"ops{kinds.index(ops)}", s)
            for s, (name, ops) in enumerate(zip(self.site_names, self.ops, strict=True))
        )

    @cached_property
    def groups(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """What a surrogate compares architectures by: sites, pairs of sites, and the paths through a graph's edges.

        The paths are those of White et al. 2021 (BANANAS), section 3, each in its place: from the nodes that no edge
        leads to, to the nodes that none leaves. More than 512 pairs or paths are left out.
        """
        columns = range(len(self.ops))
        blocks: list[list[tuple[int, ...]]] = [[(s,) for s in columns], list(itertools.combinations(columns, 2))]
        blocks.append(list(itertools.islice(self._paths(), _MOST + 1)))
        return tuple(
            tuple(group for group in block if self._counts_of(group) <= _LARGEST)
            for n, block in enumerate(blocks)
            if block and (n == 0 or len(block) <= _MOST)
        )

    def _paths(self) -> Iterator[tuple[int, ...]]:
        """The columns of every path, the shorter ones first."""
        first, last = ({edge[end] for edge in self.edges} for end in (0, 1))
        ways: list[tuple[int, ...]] = [(s,) for s, edge in enumerate(self.edges) if edge[0] not in last]
        while ways and len(ways) <= _MOST:
            nodes = [[self.edges[s][1] for s in way] for way in ways]
            ways = [way for _, way in sorted(zip(nodes, ways, strict=True))]
            yield from (way for way in ways if self.edges[way[-1]][1] not in first)
            ways = [(*way, s) for way in ways for s, edge in enumerate(self.edges) if edge[0] == self.edges[way[-1]][1]]

    def _counts_of(self, group: tuple[int, ...]) -> int:
        return math.prod(len(self.ops[s]) + 1 for s in group)

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def index(self, arch: Array) -> Array:
        """The row of an Arch i32[S] in `enumerate()`, the last site fastest: i32[...] for i32[..., S].

        -1 where it is none of the space's. NumPy's for NumPy's, so that whole files need no program.
        """
        xp: Any = np if isinstance(arch, np.ndarray) else jnp
        arch = xp.asarray(arch, np.int32)
        counts = np.array([len(ops) for ops in self.ops], np.int32)
        there = ((arch >= 0) & (arch < np.broadcast_to(counts, arch.shape))).all(-1)
        if not self.part:
            weights = np.array([math.prod(counts[s + 1 :].tolist()) for s in range(len(counts))], np.int32)
            return xp.where(there, arch @ weights, -1)
        row = xp.zeros(arch.shape[:-1], np.int32)
        for s, keys in enumerate(self._prefixes):
            key = row * counts[s] + arch[..., s]
            row = xp.minimum(xp.searchsorted(keys, key), len(keys) - 1).astype(np.int32)
            there = there & (xp.asarray(keys)[row] == key)
        return xp.where(there, row, -1)

    def sample(self, key: Key, depth: jax.Array | int | None = None) -> jax.Array:
        """A uniformly drawn Arch; no site is a depth."""
        if not self.part:
            return super().sample(key)
        return jnp.asarray(self._rows)[jax.random.randint(key, (), 0, len(self._rows))]

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """Gives one site another choice. Of a part of the lattice: a neighbour that is there, else any architecture."""
        if not self.part:
            return super().mutate(key, arch)
        steps = [(s, step) for s, ops in enumerate(self.ops) for step in range(1, len(ops))]
        if not steps:
            return jnp.asarray(arch, jnp.int32)
        site, step = np.array(steps, np.int32).T
        counts = np.array([len(ops) for ops in self.ops], np.int32)
        moved = np.where(np.arange(len(counts)) == site[:, None], step[:, None], 0)
        near = (jnp.asarray(arch, jnp.int32)[None] + moved) % counts[None]
        key_near, key_far = jax.random.split(key)
        there = self.index(near) >= 0
        chosen = near[jax.random.categorical(key_near, jnp.where(there, 0.0, -jnp.inf))]
        return jnp.where(there.any(), chosen, self.sample(key_far))

    def mutate_genes(self, key: Key, arch: jax.Array, rate: float | jax.Array) -> jax.Array:
        """Draws every site anew with probability `rate`; of a part of the lattice as `mutate` where it lacks that."""
        key_genes, key_other = jax.random.split(key)
        return self._held(super().mutate_genes(key_genes, arch, rate), key_other, arch)

    def crossover(self, key: Key, a: jax.Array, b: jax.Array) -> jax.Array:
        """Takes every site from one parent or the other; of a part of the lattice as `mutate` where it lacks that."""
        key_sites, key_other = jax.random.split(key)
        return self._held(super().crossover(key_sites, a, b), key_other, a)

    def _held(self, child: jax.Array, key: Key, parent: jax.Array) -> jax.Array:
        return jnp.where(self.index(child) >= 0, child, self.mutate(key, parent)) if self.part else child

    # -- host side ---------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Exact number of architectures."""
        return len(self._rows) if self.part else math.prod(map(len, self.ops))

    def enumerate(self) -> np.ndarray:
        """Every Arch, int32[size, S], in the order of `index`. ValueError beyond 10^6 architectures."""
        if self.part:
            return self._rows.copy()
        if self.size() > 1_000_000:
            raise ValueError(f"a space of {self.size()} architectures is too large to enumerate")
        return np.indices([len(ops) for ops in self.ops], np.int32).reshape(len(self.ops), -1).T.copy()

    @cached_property
    def _rows(self) -> np.ndarray:
        """Of a part of the lattice: its architectures in order, i32[N, S]."""
        return file.sorted_rows(self.part)

    @cached_property
    def _prefixes(self) -> list[np.ndarray]:
        """Of a part of the lattice, per site: the sorted numbers i32[.] of all beginnings up to it.

        The number of a beginning is that of the one without its last site, times the site's choices, plus its choice;
        it is found by a binary search, and its place is its number for the next site. Whole ones are numbered by row.
        """
        archs, found = self._rows, []
        row = np.zeros(len(archs), np.int64)
        for s, ops in enumerate(self.ops):
            keys, row = np.unique(row * len(ops) + archs[:, s], return_inverse=True)
            if keys[-1] > _LARGEST:
                raise ValueError(f"{self.part} holds too many architectures ({len(archs)}) for 32-bit numbers")
            found.append(keys.astype(np.int32))
        return found


def table_space(path: str | os.PathLike[str]) -> TableSpace:
    """The space of a table's architectures.

    Raises ValueError where it is no table with `ops` and `op_names` that fit, or has an architecture twice.
    """
    columns = file.read(path)
    found = file.sites(path, columns)
    archs = file.rows(columns)
    if len(twice := file.repeated(archs)):
        first = [found.ops[s][op] for s, op in enumerate(twice[0])]
        raise ValueError(f"{path}: {len(twice)} architectures are repeated, the first is {first}")
    whole = len(archs) == math.prod(map(len, found.ops))
    return TableSpace(found.names, found.ops, found.edges, "" if whole else os.fspath(path))
