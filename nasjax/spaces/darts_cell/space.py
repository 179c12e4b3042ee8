"""Space `darts_cell`: a normal and a reduction cell, each of four nodes that read two earlier tensors.

Liu et al. 2019, "DARTS: Differentiable Architecture Search" (arXiv:1806.09055), section 2.1 and appendix A.1.1: tensors
0 and 1 are the outputs of the two previous cells; node j in 2..5 is the sum of two operators applied to two different
tensors below j; the cell's output concatenates nodes 2..5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.darts_cell.robust import ROBUST
from nasjax.spaces.one_change import one_change
from nasjax.types import Key, Site, digest

OPERATORS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
KNOWN = (*OPERATORS, "noise")  # the last one is in S4 only (Zela et al. 2020)
CELLS = ("normal", "reduce")
NODES = (2, 3, 4, 5)  # intermediate nodes; node j may read tensors 0..j-1
EDGES = tuple((source, node) for node in NODES for source in range(node))

Pair = tuple[str, int]  # operator, source
_SHAPE = (len(NODES), 2, 2)  # a cell of an Arch by node, pair, (operator, source)
_SOURCES = np.array(NODES, np.int32)  # how many tensors each node may read


class Genotype(NamedTuple):
    """A discrete architecture in its published form: 8 pairs per cell, two for each of nodes 2..5."""

    normal: tuple[Pair, ...]
    reduce: tuple[Pair, ...]

    def of(self, k: int, kind: str) -> tuple[Pair, ...]:
        """The pairs of cell k of a network, which is of this kind."""
        found: tuple[Pair, ...] = getattr(self, kind)
        return found


class OwnCells(NamedTuple):
    """The same where the cells of a network were searched one by one: 8 pairs for each."""

    cells: tuple[tuple[Pair, ...], ...]

    def of(self, k: int, kind: str) -> tuple[Pair, ...]:
        """The pairs of cell k of a network, whatever its kind."""
        return self.cells[k]


@dataclass(frozen=True)
class DartsCell:
    """All pairs of cells. An Arch is int32[32]: per cell, node and pair an operator and its source, all active.

    With `cells`, an Arch has that many cells instead, one for each of a network: int32[16 cells].

    The two sources of a node differ. The order of a node's two pairs has no meaning. An Arch keeps it, because
    published genotypes list the stronger edge first; `canonical` drops it.

    Attributes:
      operators: what an edge chooses from; of KNOWN, without "none".
      none: whether edges of a search network have `none` beside them; no discrete cell keeps it.
      robust: "S1" to "S4" of Zela et al. 2020 in place of both (`spaces.darts_cell.robust`); "" = none of them. S1 has
        operators of its own for every edge of the search network: it is for the methods that search by gradients.
      cells: how many cells a network has that are chosen one by one; 0 = a normal and a reduction cell that all repeat.

    Raises:
      ValueError: an unknown or repeated operator, or one beside a named space.

    Example:
      >>> space = DartsCell()
      >>> space.size() == 1037664180**2
      True
      >>> space.encode(space.sample(jax.random.key(0)))["normal"][:2]  # doctest: +SKIP
      [['sep_conv_5x5', 1], ['skip_connect', 0]]
    """

    operators: tuple[str, ...] = OPERATORS[1:]
    none: bool = True
    robust: Literal["", "S1", "S2", "S3", "S4"] = ""
    cells: int = 0

    name = "darts_cell"

    def __post_init__(self) -> None:
        if self.cells < 0:
            raise ValueError(f"cells must be 0 (a normal and a reduction cell) or more, got {self.cells}")
        if self.robust not in ("", *ROBUST):
            raise ValueError(f"unknown robust {self.robust!r}; choose {', '.join(ROBUST)}")
        if self.robust and (self.operators != OPERATORS[1:] or not self.none):
            raise ValueError(f"robust={self.robust} has its own operators: leave out operators and none")
        if not self.operators or len(set(self.operators)) != len(self.operators):
            raise ValueError(f"operators must be distinct names, at least one; got {self.operators}")
        for operator in self.operators:
            if operator not in KNOWN[1:]:
                raise ValueError(f"operators has no {operator!r}; choose from {', '.join(KNOWN[1:])}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the cells of an Arch, in their order."""
        return tuple(f"cell{k}" for k in range(self.cells)) if self.cells else CELLS

    @property
    def _shape(self) -> tuple[int, ...]:
        return (len(self.names), *_SHAPE)

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The operators that a discrete cell may have."""
        if not self.robust:
            return self.operators
        names = {name for lists in ROBUST[self.robust].values() for names in lists for name in names}
        return tuple(name for name in KNOWN[1:] if name in names)

    @cached_property
    def searched(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """The operators of each edge of a search network, {"normal": 14 tuples, "reduce": 14 tuples}."""
        if self.robust:
            return ROBUST[self.robust]
        names = tuple(name for name in KNOWN if name in self.operators or (name == "none" and self.none))
        return dict.fromkeys(CELLS, (names,) * len(EDGES))

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Two sites per kept edge: its operator and its source. The sources of node j are one group."""
        return tuple(
            site
            for c, cell in enumerate(self.names)
            for n, node in enumerate(NODES)
            for pair in (0, 1)
            for site in (
                Site(f"{cell}/node{node}/operator{pair}", self.choices, "operator", len(NODES) * c + n),
                Site(f"{cell}/node{node}/source{pair}", tuple(range(node)), f"source{node}", len(NODES) * c + n),
            )
        )

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def active(self, arch: jax.Array) -> jax.Array:
        """Every site always counts: bool[A]."""
        return jnp.ones(jnp.shape(arch), bool)

    def sample(self, key: Key) -> jax.Array:
        """A uniformly drawn pair of cells. Raises ValueError for S1."""
        self._uniform()
        key_operator, key_first, key_second = jax.random.split(key, 3)
        operators = jax.random.randint(key_operator, self._shape[:3], 0, len(self.choices), jnp.int32)
        first = jax.random.randint(key_first, self._shape[:2], 0, _SOURCES[None], jnp.int32)
        second = jax.random.randint(key_second, self._shape[:2], 0, _SOURCES[None] - 1, jnp.int32)
        second = second + (second >= first)  # any source but the first
        return jnp.stack([operators, jnp.stack([first, second], -1)], -1).reshape(-1)

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """Changes exactly one operator or one source, all with the same probability.

        The sources of node 2 are always 0 and 1, so they never change. Raises ValueError for S1.
        """
        self._uniform()
        arch = jnp.asarray(arch, jnp.int32)
        choices = np.array([len(site.choices) for site in self.sites], np.int32)
        is_source = np.arange(len(choices)) % 2 == 1
        others = choices - 1 - is_source  # neither the old value nor, for a source, that of the other pair
        mutable = np.flatnonzero(others > 0)
        key_site, key_value = jax.random.split(key)
        site = jnp.asarray(mutable)[jax.random.randint(key_site, (), 0, len(mutable))]
        old = arch[site]
        other = jnp.where(jnp.asarray(is_source)[site], arch[site ^ 2], jnp.int32(max(choices)))
        value = jax.random.randint(key_value, (), 0, jnp.asarray(others)[site], jnp.int32)
        value = value + (value >= jnp.minimum(old, other))
        return arch.at[site].set(value + (value >= jnp.maximum(old, other)))

    def neighbours(self, key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What differs in one operator or source, i32[N, A], and where the sources of each node differ, bool[N]."""
        self._uniform()
        archs, there = one_change(key, arch, self.sites)
        pairs = archs.reshape(-1, *self._shape)
        return archs, there & (pairs[:, :, :, 0, 1] != pairs[:, :, :, 1, 1]).all((1, 2))

    def _uniform(self) -> None:
        if self.robust == "S1":
            raise ValueError(
                "robust=S1 has other operators on every edge: search it by darts or pc_darts, or choose S2, S3 or S4"
            )

    def crossover(self, key: Key, a: jax.Array, b: jax.Array) -> jax.Array:
        """Takes every node, with its two pairs, from one parent or the other."""
        from_a = jax.random.bernoulli(key, shape=self._shape[:2])[:, :, None, None]
        return jnp.where(from_a, jnp.reshape(a, self._shape), jnp.reshape(b, self._shape)).reshape(-1)

    def canonical(self, arch: jax.Array) -> jax.Array:
        """The Arch with the lower source of each node first, the same for equal cells. `identity` is its digest."""
        pairs = jnp.reshape(jnp.asarray(arch, jnp.int32), self._shape)
        swap = (pairs[:, :, 0, 1] > pairs[:, :, 1, 1])[:, :, None, None]
        return jnp.where(swap, pairs[:, :, ::-1], pairs).reshape(-1)

    # -- host side ---------------------------------------------------------------------------------------------

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != (len(self.sites),):
            raise ValueError(f"a darts_cell architecture has {len(self.sites)} entries, got shape {arch.shape}")
        for site, value in zip(self.sites, arch, strict=True):
            if not 0 <= value < len(site.choices):
                raise ValueError(f"{site.name} has no choice number {value}; choose 0..{len(site.choices) - 1}")
        for cell, pairs in zip(self.names, arch.reshape(self._shape), strict=True):
            for node, ((_, first), (_, second)) in zip(NODES, pairs, strict=True):
                if first == second:
                    raise ValueError(f"the two sources of {cell}/node{node} must be different, both are {first}")

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as a JSON tree (the form of `--arch`, trials.jsonl and best.json)."""
        arch = np.asarray(arch)
        self.validate(arch)
        cells = [
            [[self.choices[o], int(s)] for o, s in pairs] for pairs in arch.reshape(len(self.names), -1, 2).tolist()
        ]
        return {"space": self.name, **({"cells": cells} if self.cells else dict(zip(CELLS, cells, strict=True)))}

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree. Raises ValueError that says what to write instead."""
        if not isinstance(tree, Mapping) or tree.get("space") != self.name:
            cells = '"normal": [["sep_conv_3x3", 0], ... 8 pairs], "reduce": [... 8 pairs]'
            raise ValueError(f'a darts_cell architecture is {{"space": "{self.name}", {cells}}}')
        if ("cells" in tree) != bool(self.cells):
            what = f"cells of their own; write space.cells={cells_of(tree)}"
            raise ValueError(f"the architecture has {what if 'cells' in tree else 'no cells; write space.cells=0'}")
        given = tree
        if self.cells:
            if not isinstance(tree["cells"], list) or len(tree["cells"]) != self.cells:
                raise ValueError(f'"cells" must list the {self.cells} cells of this space, 8 pairs each')
            given = {"space": self.name, **dict(zip(self.names, tree["cells"], strict=True))}
            given |= {name: value for name, value in tree.items() if name not in ("space", "cells")}
        if unknown := set(given) - {"space", *self.names}:
            raise ValueError(f"unknown entry {sorted(map(str, unknown))[0]!r} in the architecture")
        arch: list[int] = []
        for cell in self.names:
            pairs = given.get(cell)
            if not isinstance(pairs, list) or len(pairs) != 2 * len(NODES):
                raise ValueError(f'"{cell}" must list {2 * len(NODES)} pairs [operator, source], two per node 2..5')
            for i, pair in enumerate(pairs):
                if not isinstance(pair, list) or len(pair) != 2:
                    raise ValueError(f'"{cell}" pair {i} must be [operator, source], got {pair!r}')
                arch += self._numbers(f'"{cell}" pair {i}', NODES[i // 2], *pair)
        self.validate(np.array(arch))
        return np.array(arch, np.int32)

    def _numbers(self, where: str, node: int, operator: Any, source: Any) -> list[int]:
        if operator not in self.choices:
            raise ValueError(f"{where}: {operator!r} is not an operator here; choose from {', '.join(self.choices)}")
        if type(source) is not int or not 0 <= source < node:
            raise ValueError(f"{where}: the source of node {node} must be a tensor 0..{node - 1}, got {source!r}")
        return [self.choices.index(operator), source]

    def identity(self, arch: np.ndarray) -> str:
        """A string that is the same exactly for equal architectures."""
        return digest(np.asarray(self.canonical(jnp.asarray(arch))))

    def size(self) -> int:
        """Exact number of pairs of cells; the order of a node's two pairs does not count."""
        if self.robust != "S1":
            return math.prod(math.comb(node, 2) * len(self.choices) ** 2 for node in NODES) ** len(self.names)
        return math.prod(math.comb(node, 2) * 2**2 for node in NODES) ** len(self.names)  # two operators on every edge


def genotype(tree: Mapping[str, Any]) -> Genotype | OwnCells:
    """The JSON form as the hashable pairs that networks are built from. Raises ValueError as `DartsCell.decode`."""
    DartsCell(KNOWN[1:], cells=cells_of(tree)).decode(tree)
    of = tree["cells"] if "cells" in tree else [tree[cell] for cell in CELLS]
    cells = tuple(tuple((str(operator), int(source)) for operator, source in pairs) for pairs in of)
    return OwnCells(cells) if "cells" in tree else Genotype(*cells)


def cells_of(tree: Any) -> int:
    """`DartsCell.cells` of the space that holds an architecture given as JSON."""
    listed = tree.get("cells") if isinstance(tree, Mapping) else None
    return len(listed) if isinstance(listed, list) else 0
