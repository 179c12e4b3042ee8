"""Space `cell_tree`: the cell of a recurrent network, a full binary tree over the input and the last hidden state.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", section 3.4. A tree of base number B has B
leaves and 2B - 1 nodes, numbered level by level: leaves 0..B-1, then the nodes above them, the root last. An Arch is
`int32[4B + 2]`: per node its combination and its activation, then those of the cell inject, then the two cell indices.
Every site is always active.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.one_change import one_change
from nasjax.types import Key, Site, digest

COMBINATIONS = ("add", "elem_mult", "max")
ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu", "sin")

Unit = tuple[str, str]  # combination, activation


class Cell(NamedTuple):
    """One architecture in words.

    Leaf k combines W_{2k+1} x_t and W_{2k+2} h_{t-1}, an inner node its two children; each then takes its activation.
    The output of node `inject_at` is combined once more, with c_{t-1}, before its parent reads it. c_t is what node
    `new_from` has *before* its activation, h_t the output of the root.
    """

    nodes: tuple[Unit, ...]  # 2B - 1
    inject: Unit
    new_from: int  # the first cell index
    inject_at: int  # the second cell index

    @property
    def base(self) -> int:
        """B, the number of leaves."""
        return (len(self.nodes) + 1) // 2

    def children(self, node: int) -> tuple[int, int] | None:
        """The two nodes that `node` joins, None for a leaf."""
        return None if node < self.base else (2 * (node - self.base), 2 * (node - self.base) + 1)


@dataclass(frozen=True)
class CellTree:
    """All cells of one base number.

    Attributes:
      base: B, the number of leaves, a power of two; the paper searches B = 8.
      combinations: of `COMBINATIONS`; the paper's control experiment adds "max".
      activations: of `ACTIVATIONS`; the paper's control experiment adds "sin".

    Example:
      >>> f"{CellTree().size():.3g}"
      '6.33e+16'
    """

    base: int = 8
    combinations: tuple[str, ...] = ("add", "elem_mult")
    activations: tuple[str, ...] = ("identity", "tanh", "sigmoid", "relu")

    name = "cell_tree"

    def __post_init__(self) -> None:
        if self.base < 2 or self.base & (self.base - 1):
            raise ValueError(f"base must be a power of two (2, 4, 8, ...), got {self.base}")
        for field, known in (("combinations", COMBINATIONS), ("activations", ACTIVATIONS)):
            values = getattr(self, field)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{field} needs distinct names, at least one, got {values}")
            if unknown := [value for value in values if value not in known]:
                raise ValueError(f"{field} has no {unknown[0]!r}; choose from {', '.join(known)}")

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The decisions in the order in which the controller emits them; column s of an Arch is `sites[s]`."""
        units = [(f"node{k}", k) for k in range(2 * self.base - 1)] + [("inject", -1)]
        sites = []
        for name, layer in units:
            sites.append(Site(f"{name}/combination", self.combinations, "combination", layer))
            sites.append(Site(f"{name}/activation", self.activations, "activation", layer))
        nodes = tuple(range(2 * self.base - 1))
        return (*sites, Site("index/new", nodes, "index_new", -1), Site("index/inject", nodes, "index_inject", -1))

    @cached_property
    def _arity(self) -> np.ndarray:
        return np.array([len(site.choices) for site in self.sites], np.int32)

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def active(self, arch: jax.Array) -> jax.Array:
        """Every site always counts: bool[S]."""
        return jnp.ones(jnp.shape(arch), bool)

    def sample(self, key: Key) -> jax.Array:
        """A uniformly drawn Arch."""
        return jax.random.randint(key, self._arity.shape, 0, self._arity, jnp.int32)

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """Gives one site, chosen uniformly among those that have a choice, another value."""
        arch = jnp.asarray(arch, jnp.int32)
        key_site, key_value = jax.random.split(key)
        site = jax.random.choice(key_site, np.flatnonzero(self._arity > 1))  # never empty: the indices have 3 or more
        arity = jnp.asarray(self._arity)[site]
        step = jax.random.randint(key_value, (), 1, arity, jnp.int32)
        return arch.at[site].set((arch[site] + step) % arity)

    def neighbours(self, key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Every Arch that differs in one site, i32[N, S], and that they all exist, bool[N]."""
        return one_change(key, arch, self.sites)

    def crossover(self, key: Key, a: jax.Array, b: jax.Array) -> jax.Array:
        """Takes every site from one parent or the other."""
        return jnp.where(jax.random.bernoulli(key, shape=a.shape), a, b)

    # -- host side ---------------------------------------------------------------------------------------------

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != self._arity.shape:
            raise ValueError(f"a cell_tree architecture here has {len(self._arity)} entries, got shape {arch.shape}")
        for site, value in zip(self.sites, arch, strict=True):
            if not 0 <= value < len(site.choices):
                raise ValueError(f"{site.name} has no choice number {value}; choose 0..{len(site.choices) - 1}")

    def cell(self, arch: np.ndarray) -> Cell:
        """An Arch in words. Raises ValueError."""
        self.validate(arch)
        values = [site.choices[int(value)] for site, value in zip(self.sites, np.asarray(arch), strict=True)]
        *nodes, inject = zip(values[:-2:2], values[1:-2:2], strict=True)
        return Cell(tuple(nodes), inject, values[-2], values[-1])

    def arch(self, cell: Cell) -> np.ndarray:
        """The Arch of a cell in words. Raises ValueError where the space does not have it."""
        if cell.base != self.base:
            raise ValueError(f"a cell of base {cell.base}; this space has base {self.base}")
        values = [value for unit in (*cell.nodes, cell.inject) for value in unit] + [cell.new_from, cell.inject_at]
        for site, value in zip(self.sites, values, strict=True):
            if value not in site.choices or type(value) is not type(site.choices[0]):
                raise ValueError(f"{site.name} = {value!r} is not in this space; choose from {_span(site.choices)}")
        return np.array([site.choices.index(value) for site, value in zip(self.sites, values, strict=True)], np.int32)

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as a JSON tree (the form of `--arch`, trials.jsonl and best.json)."""
        return to_json(self.cell(arch))

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree. Raises ValueError that says what to write instead."""
        return self.arch(from_json(tree))

    def identity(self, arch: np.ndarray) -> str:
        """Equal exactly for equal architectures."""
        return digest(arch)

    def size(self) -> int:
        """Exact number of architectures; cells that differ by exchanging the children of a node count separately."""
        units = (len(self.combinations) * len(self.activations)) ** (2 * self.base)
        return units * (2 * self.base - 1) ** 2

    def enumerate(self) -> np.ndarray:
        """Every Arch, int32[size, S]; the last site varies fastest. ValueError beyond 10^6 architectures."""
        if self.size() > 1_000_000:
            raise ValueError(f"a space of {self.size()} architectures is too large to enumerate")
        return np.indices(tuple(self._arity), np.int32).reshape(len(self._arity), -1).T.copy()


def widen(space: CellTree, tree: Mapping[str, Any]) -> CellTree:
    """The space with the base number of a JSON architecture, and with those of its functions that are not the paper's.

    Raises:
      ValueError: it is no architecture.
    """
    cell = from_json(tree)
    units = (*cell.nodes, cell.inject)

    def with_(values: tuple[str, ...], used: set[str], known: tuple[str, ...]) -> tuple[str, ...]:
        return values + tuple(value for value in known if value in used and value not in values)

    return replace(
        space,
        base=cell.base,
        combinations=with_(space.combinations, {unit[0] for unit in units}, COMBINATIONS),
        activations=with_(space.activations, {unit[1] for unit in units}, ACTIVATIONS),
    )


def to_json(cell: Cell) -> dict[str, Any]:
    """The JSON form of a cell: `nodes` level by level from the leaves, `indices` = [where c_t is read, inject]."""
    return {
        "space": CellTree.name,
        "nodes": [list(unit) for unit in cell.nodes],
        "inject": list(cell.inject),
        "indices": [cell.new_from, cell.inject_at],
    }


def from_json(tree: Mapping[str, Any]) -> Cell:
    """The cell of a JSON tree, of any base number. Raises ValueError that says what to write instead."""
    if not isinstance(tree, Mapping) or tree.get("space") != CellTree.name:
        raise ValueError(
            'a cell_tree architecture is {"space": "cell_tree", "nodes": [["add", "tanh"], ...], '
            '"inject": ["add", "relu"], "indices": [1, 0]}'
        )
    if unknown := set(tree) - {"space", "nodes", "inject", "indices"}:
        raise ValueError(f"unknown entry {sorted(unknown)[0]!r} in the architecture")
    nodes = tree.get("nodes")
    if not isinstance(nodes, list) or len(nodes) < 3 or (len(nodes) + 1) & len(nodes):
        raise ValueError('"nodes" must list 3, 7, 15, ... pairs, leaves first and the root last')
    units = [_unit(unit, f"node {k}") for k, unit in enumerate(nodes)]
    indices = tree.get("indices")
    if not isinstance(indices, list) or len(indices) != 2 or not all(type(i) is int for i in indices):
        raise ValueError(
            f'"indices" must be two node numbers, [where c_t is read, where c_{{t-1}} enters]: {indices!r}'
        )
    if not all(0 <= i < len(nodes) for i in indices):
        raise ValueError(f'"indices" must lie in 0..{len(nodes) - 1}, got {indices}')
    return Cell(tuple(units), _unit(tree.get("inject"), "inject"), *indices)


def _unit(unit: Any, where: str) -> Unit:
    if not isinstance(unit, list | tuple) or len(unit) != 2:
        raise ValueError(f'{where} must be a pair such as ["add", "tanh"], got {unit!r}')
    for value, known in zip(unit, (COMBINATIONS, ACTIVATIONS), strict=True):
        if value not in known:
            raise ValueError(f"{where}: {value!r} is unknown; choose from {', '.join(known)}")
    return unit[0], unit[1]


def _span(choices: tuple[Any, ...]) -> str:
    return ", ".join(choices) if isinstance(choices[0], str) else f"{choices[0]}..{choices[-1]}"
