"""Space `tabular_cell`: a cell whose edges each choose one operation, small enough that a table holds every result.

Dong & Yang 2020, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", section 2.1: 4 nodes,
6 edges, 5 operations, 15,625 cells. An Arch is `int32[edges]`; column e is the operation of edge e, and every site is
always active. The number of edges and the operations are fields, so that tables of other benchmarks fit.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.one_change import one_change
from nasjax.types import Key, Site, digest

NAS_BENCH_201_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


@dataclass(frozen=True)
class TabularCell:
    """A lattice of `len(ops) ** edges` cells.

    Attributes:
      edges: decisions. In a cell of n nodes they are the n (n - 1) / 2 pairs (from, to), ordered by `to`, then `from`:
        0-1, 0-2, 1-2, 0-3, 1-3, 2-3 for the 4 nodes of NAS-Bench-201.
      ops: names of the operations that an edge chooses from.

    Example:
      >>> space = TabularCell()
      >>> space.size()
      15625
      >>> arch = space.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|")
      >>> [int(op) for op in arch]
      [3, 0, 1, 0, 0, 1]
    """

    edges: int = 6
    ops: tuple[str, ...] = NAS_BENCH_201_OPS

    name = "tabular_cell"
    # As a chain of choices, which one-shot methods search: every edge is a layer, and each has the same operators.
    removed: ClassVar[tuple[int, ...]] = ()
    choose_identity: ClassVar[bool] = False
    channel_factors: ClassVar[tuple[float, ...]] = ()

    def __post_init__(self) -> None:
        if self.edges < 1 or not self.ops:
            raise ValueError(f"edges and ops must be at least one, got {self.edges} and {self.ops}")
        if len(set(self.ops)) != len(self.ops):
            raise ValueError(f"ops must be distinct, got {self.ops}")
        if self.size() > np.iinfo(np.int32).max:
            raise ValueError(f"{len(self.ops)}^{self.edges} cells are too many for a table (at most 2^31 - 1)")

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """One decision per edge; column e of an Arch is `sites[e]`."""
        return tuple(Site(f"edge{e}", self.ops, "op", e) for e in range(self.edges))

    @property
    def layers(self) -> int:
        """Edges."""
        return self.edges

    @property
    def operators(self) -> tuple[str, ...]:
        """Operations."""
        return self.ops

    @cached_property
    def groups(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """What a surrogate compares cells by: edges, pairs of edges, and the paths from the first node to the last.

        The paths are those of White et al. 2021 (BANANAS), section 3, each in its place. A number of edges that is no
        complete cell has none.
        """
        edges = range(self.edges)
        blocks = [tuple((e,) for e in edges), tuple(itertools.combinations(edges, 2))]
        if self.edges in (nodes * (nodes - 1) // 2 for nodes in range(3, self.edges + 2)):
            column = {(start, end): end * (end - 1) // 2 + start for end in range(self.nodes) for start in range(end)}
            inner = range(1, self.nodes - 1)
            ways = (way for count in range(self.nodes - 1) for way in itertools.combinations(inner, count))
            stops = ((0, *way, self.nodes - 1) for way in ways)
            blocks.append(tuple(tuple(column[step] for step in itertools.pairwise(stop)) for stop in stops))
        return tuple(block for block in blocks if block)

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def path(self, arch: jax.Array) -> jax.Array:
        """The operator of every layer: the Arch itself."""
        return arch

    def active(self, arch: jax.Array) -> jax.Array:
        """Every edge always counts: bool[edges]."""
        return jnp.ones(jnp.shape(arch), bool)

    def index(self, arch: jax.Array) -> jax.Array:
        """The row of `arch` in `enumerate()`: i32[...] for i32[..., edges]; the last edge varies fastest."""
        weights = np.array([len(self.ops) ** e for e in reversed(range(self.edges))], np.int32)
        return jnp.asarray(arch, jnp.int32) @ weights

    def sample(self, key: Key) -> jax.Array:
        """A uniformly drawn Arch."""
        return jax.random.randint(key, (self.edges,), 0, len(self.ops), jnp.int32)

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """Gives one edge, chosen uniformly, another operation."""
        arch = jnp.asarray(arch, jnp.int32)
        if len(self.ops) == 1:
            return arch
        key_edge, key_op = jax.random.split(key)
        edge = jax.random.randint(key_edge, (), 0, self.edges)
        step = jax.random.randint(key_op, (), 1, len(self.ops), jnp.int32)
        return arch.at[edge].set((arch[edge] + step) % len(self.ops))

    def neighbours(self, key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Every Arch that differs in one site, i32[N, S], and that they all exist, bool[N]."""
        return one_change(key, arch, self.sites)

    def crossover(self, key: Key, a: jax.Array, b: jax.Array) -> jax.Array:
        """Takes every edge from one parent or the other."""
        return jnp.where(jax.random.bernoulli(key, shape=(self.edges,)), a, b)

    # -- host side ---------------------------------------------------------------------------------------------

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != (self.edges,):
            raise ValueError(f"a tabular_cell architecture here has {self.edges} entries, got shape {arch.shape}")
        for e, op in enumerate(arch):
            if not 0 <= op < len(self.ops):
                raise ValueError(f"edge{e} has no operation number {op}; choose 0..{len(self.ops) - 1}")

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as a JSON tree (the form of `--arch`, trials.jsonl and best.json)."""
        self.validate(arch)
        return {"space": self.name, "ops": [self.ops[int(op)] for op in arch]}

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree. Raises ValueError that says what to write instead."""
        if not isinstance(tree, Mapping) or tree.get("space") != self.name:
            raise ValueError(f'a tabular_cell architecture is {{"space": "{self.name}", "ops": [{self.edges} names]}}')
        if unknown := set(tree) - {"space", "ops"}:
            raise ValueError(f"unknown entry {sorted(unknown)[0]!r} in the architecture")
        ops = tree.get("ops")
        if not isinstance(ops, list) or len(ops) != self.edges:
            raise ValueError(f'"ops" must list {self.edges} operations, one per edge; got {ops!r}')
        return self._numbers(ops)

    def format(self, arch: np.ndarray) -> str:
        """The benchmark's own string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|` for 6 edges."""
        self.validate(arch)
        names = iter(self.ops[int(op)] for op in arch)
        return "+".join("|" + "|".join(f"{next(names)}~{j}" for j in range(to)) + "|" for to in range(1, self.nodes))

    def parse(self, text: str) -> np.ndarray:
        """The Arch of the benchmark's own string. Raises ValueError that shows the expected form."""
        pattern = r"\+".join("".join(rf"\|([^|~]+)~{j}" for j in range(to)) + r"\|" for to in range(1, self.nodes))
        if not (match := re.fullmatch(pattern, text)):
            example = self.format(np.zeros(self.edges, np.int32))
            raise ValueError(f"{text!r} is not an architecture string; write it like {example}")
        return self._numbers(list(match.groups()))

    def _numbers(self, names: list[Any]) -> np.ndarray:
        for e, op in enumerate(names):
            if op not in self.ops:
                raise ValueError(f"edge{e}: {op!r} is not an operation here; choose from {', '.join(self.ops)}")
        return np.array([self.ops.index(op) for op in names], np.int32)

    @cached_property
    def nodes(self) -> int:
        """Of the complete cell that has this many edges. Raises ValueError where there is none."""
        nodes = (1 + math.isqrt(1 + 8 * self.edges)) // 2
        if nodes * (nodes - 1) // 2 != self.edges:
            raise ValueError(
                f"only a complete cell (1, 3, 6, 10, ... edges) has a string form and networks, not {self.edges} edges"
            )
        return nodes

    def identity(self, arch: np.ndarray) -> str:
        """A string that is the same exactly for equal architectures."""
        return digest(arch)

    def size(self) -> int:
        """Exact number of architectures; cells that compute the same (through a none edge, say) count separately."""
        return len(self.ops) ** self.edges

    def enumerate(self) -> np.ndarray:
        """Every Arch, int32[size, edges], in the order of `index`. ValueError beyond 10^6 architectures."""
        if self.size() > 1_000_000:
            raise ValueError(f"a space of {self.size()} architectures is too large to enumerate")
        return np.indices((len(self.ops),) * self.edges, np.int32).reshape(self.edges, -1).T.copy()
