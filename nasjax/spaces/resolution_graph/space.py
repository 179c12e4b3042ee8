"""Space `resolution_graph`: graphs over resolutions; wiring, operators and optional hyper-parameters are searched.

The idea comes from a blog post on asynchronous evolution of segmentation graphs: networks of MobileNetV2 and residual
blocks between the resolutions of a U-Net, whose wiring grows by small mutations. Its are the operators and the range
of parameters; it gives neither probabilities nor other limits of the graph: these are ours, and settings.

Sampling and mutation use rejection, so both run in numpy on the host, behind `jax.pure_callback`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.resolution_graph import form
from nasjax.spaces.resolution_graph.change import Choices, Mutations, mutant, next_ids, random_graph, renumbered
from nasjax.spaces.resolution_graph.form import DOWN_OPS, MBV2, NODE_OPS, SAME_OPS, UP_OPS, Edge, Graph, Node
from nasjax.spaces.resolution_graph.plan import count_params
from nasjax.types import Array, Key, Site, digest

_TRIES, _MUTATION_TRIES = 1000, 50
# Where random graphs do not fall into the range of parameters: walks by mutation towards it, random graphs of which the
# nearest begins a walk, mutations that come no nearer before it is given up, and how far it may stray meanwhile: before
# some nodes can go an edge must come.
_WALKS, _STARTS, _IDLE, _SLACK = 4, 50, 60, 1.25
_NODE, _EDGE = ("level", "op", "kernel", "expansion"), ("src", "dst", "op")


@dataclass(frozen=True)
class ResolutionGraph:
    """Graphs of at most `max_nodes` nodes and `max_edges` edges on `levels` levels.

    Node slot r of an Arch is the node of rank r in the topological order: slot 0 is the input, the last slot in use
    the output. Edge slots are ordered by destination, then by source. Behind the sites, an Arch holds the ids of nodes
    and edges, -1 where a slot is not in use; they tell which nodes and edges a child shares with its parent, and are no
    part of the architecture. Every Arch is pruned: each node is on a path from the input to the output.

    There is no crossover, and the number of architectures is not known.

    Attributes:
      levels: resolutions; the deepest has 1 / 2^(levels - 1) of the image's sides.
      max_nodes, max_edges: capacity.
      node_ops, down_ops, up_ops: what nodes, and edges to the next deeper and the next higher level, choose from.
      channels: choices for the channels of level 0; level l has 2^l times as many.
      kernels, expansions: choices for MobileNetV2 blocks of nodes.
      learning_rates: choices for the learning rate; () = the architecture has none.
      min_params, max_params: graphs with fewer or more parameters are never drawn; where random ones do not fall into
        that range, they are mutated until they do. `decode` and `validate` take them.
      colours, outputs: channels of images and masks; they count in the parameters.
      extra_nodes, edge_rate: of random graphs, see `random_graph`.
      mutations: how probable each is.
      n_mutations: mutations that make a child.

    Raises:
      ValueError: a setting out of its range, or a range of parameters that none of 1,000 random graphs fell into and
        mutation did not reach.

    Example:
      >>> space = ResolutionGraph()
      >>> arch = space.sample(jax.random.key(0))
      >>> child = space.mutate(jax.random.key(1), arch)
      >>> space.identity(np.asarray(child)) == space.identity(np.asarray(arch))
      False
    """

    levels: int = 5
    max_nodes: int = 60
    max_edges: int = 200
    node_ops: tuple[str, ...] = NODE_OPS
    down_ops: tuple[str, ...] = DOWN_OPS
    up_ops: tuple[str, ...] = UP_OPS
    channels: tuple[int, ...] = (16,)
    kernels: tuple[int, ...] = (3,)
    expansions: tuple[int, ...] = (6,)
    learning_rates: tuple[float, ...] = ()
    min_params: int = 500_000
    max_params: int = 20_000_000
    colours: int = 3
    outputs: int = 1
    extra_nodes: int = 4
    edge_rate: float = 0.1
    mutations: Mutations = field(default_factory=Mutations)
    n_mutations: int = 1

    name = form.NAME

    def __post_init__(self) -> None:
        for name, known in (("node_ops", NODE_OPS), ("down_ops", DOWN_OPS), ("up_ops", UP_OPS)):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) != len(chosen) or set(chosen) - set(known):
                raise ValueError(f"{name} must be distinct, out of {', '.join(known)}; got {chosen}")
        for name in ("channels", "kernels", "expansions"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values) or min(values) < 1:
                raise ValueError(f"{name} must be distinct whole numbers above 0, at least one; got {values}")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd, got {self.kernels}")
        if any(not rate > 0 for rate in self.learning_rates) or len(set(self.learning_rates)) < len(
            self.learning_rates
        ):
            raise ValueError(f"learning_rates must be distinct and above 0, got {self.learning_rates}")
        if min(self.levels, self.max_nodes) < 2 or min(self.max_edges, self.colours, self.outputs) < 1:
            raise ValueError("levels and max_nodes must be at least 2, max_edges, colours and outputs at least 1")
        if self.extra_nodes < 0 or not 0 <= self.edge_rate <= 1 or self.n_mutations < 1:
            raise ValueError("extra_nodes must be 0 or more, edge_rate in [0, 1], n_mutations at least 1")
        if self.min_params > self.max_params:
            raise ValueError(f"min_params {self.min_params} is more than max_params {self.max_params}")
        if self._falls_in_range or self._walked(np.random.default_rng(0)) is not None:
            return
        raise ValueError(
            f"none of {_TRIES:,} random graphs had {self.min_params:,} to {self.max_params:,} parameters within "
            f"{self.max_nodes} nodes and {self.max_edges} edges, and mutations of {_WALKS} do not reach that; widen "
            "min_params..max_params or change channels"
        )

    @cached_property
    def _falls_in_range(self) -> bool:
        """Whether one of 1,000 random graphs has a parameter count in range."""
        return self._random(np.random.default_rng(0), _TRIES) is not None

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Of the whole graph, of every node slot, of every edge slot."""
        ops = (*self.down_ops, *SAME_OPS, *self.up_ops)
        ranks = tuple(range(self.max_nodes))
        whole = [Site("channels", self.channels, "channels", -1)]
        if self.learning_rates:
            whole.append(Site("learning_rate", self.learning_rates, "learning_rate", -1))
        of_node = (tuple(range(self.levels)), self.node_ops, self.kernels, self.expansions)
        nodes = [
            Site(f"node{rank}/{name}", choices, name, rank)
            for rank in ranks
            for name, choices in zip(_NODE, of_node, strict=True)
        ]
        edges = [
            Site(f"edge{number}/{name}", choices, f"edge_{name}", self.max_nodes + number)
            for number in range(self.max_edges)
            for name, choices in zip(_EDGE, (ranks, ranks, ops), strict=True)
        ]
        return (*whole, *nodes, *edges)

    @property
    def arch_size(self) -> int:
        """Sites, and an id for each node and each edge."""
        return self._starts[-1] + self.max_edges

    @cached_property
    def _starts(self) -> tuple[int, int, int, int]:
        """First column of node slots, of edge slots, of node ids, of edge ids."""
        nodes = 2 if self.learning_rates else 1
        edges = nodes + len(_NODE) * self.max_nodes
        ids = edges + len(_EDGE) * self.max_edges
        return nodes, edges, ids, ids + self.max_nodes

    @cached_property
    def _choices(self) -> Choices:
        return Choices(
            self.levels,
            self.max_nodes,
            self.max_edges,
            self.node_ops,
            (*self.down_ops, *SAME_OPS, *self.up_ops),
            self.channels,
            self.kernels,
            self.expansions,
            self.learning_rates,
            self.extra_nodes,
            self.edge_rate,
        )

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def active(self, arch: Array) -> jax.Array:
        """bool[A]: the columns of slots in use; operators but the input's, kernel and expansion only where they act."""
        return self._active(jnp.asarray(arch), jnp)

    def _active(self, arch: Any, xp: Any) -> Any:
        nodes, edges, node_ids, edge_ids = self._starts
        there, linked = arch[node_ids:edge_ids] >= 0, arch[edge_ids:] >= 0
        operated = there & (np.arange(self.max_nodes) > 0)
        op = arch[nodes:edges].reshape(-1, len(_NODE))[:, 1]
        mobile = operated & (op == (self.node_ops.index(MBV2) if MBV2 in self.node_ops else -2))
        slots = xp.stack([there, operated, mobile, mobile], 1).reshape(-1)
        return xp.concatenate([xp.ones(nodes, bool), slots, xp.repeat(linked, len(_EDGE)), there, linked])

    def sample(self, key: Key) -> jax.Array:
        """A random graph with a parameter count in range."""
        return self._on_host(lambda rng: self.arch(self._any(rng)), key)

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """Another graph, one mutation (or `n_mutations`) away, with a parameter count in range.

        A graph that is out of range, not valid, or equal to the parent is drawn again; after 50 tries a random graph is
        taken instead, with none of the parent's ids.
        """

        def change(rng: np.random.Generator, arch: np.ndarray) -> np.ndarray:
            return self.arch(self._mutant(rng, self.graph(arch)))

        return self._on_host(change, key, jnp.asarray(arch, jnp.int32))

    def _on_host(self, draw: Callable[..., np.ndarray], key: Key, *arrays: jax.Array) -> jax.Array:
        words = jax.random.bits(key, (4,), jnp.uint32)
        shape = jax.ShapeDtypeStruct((self.arch_size,), jnp.int32)

        def call(words: Any, *arrays: Any) -> np.ndarray:
            return draw(np.random.default_rng(np.asarray(words)), *map(np.asarray, arrays))

        return jax.pure_callback(call, shape, words, *arrays, vmap_method="sequential")

    # -- host side ---------------------------------------------------------------------------------------------

    def _away(self, graph: Graph) -> int:
        """How many parameters it is from the range; 0 = in it."""
        params = count_params(graph, self.colours, self.outputs)
        return max(self.min_params - params, params - self.max_params, 0)

    def _in_range(self, graph: Graph) -> bool:
        return self._away(graph) == 0

    def _random(self, rng: np.random.Generator, tries: int) -> Graph | None:
        for _ in range(tries):
            graph = random_graph(rng, self._choices)
            if graph is not None and self._in_range(graph):
                return graph
        return None

    def _any(self, rng: np.random.Generator) -> Graph:
        graph = self._random(rng, _TRIES) if self._falls_in_range else None
        while graph is None:  # one was found when the space was made
            graph = self._walked(rng)
        return graph

    def _walked(self, rng: np.random.Generator) -> Graph | None:
        """A random graph, mutated towards the range of parameters: each step keeps what is hardly further away."""
        for _ in range(_WALKS):
            drawn = [graph for _ in range(_STARTS) if (graph := random_graph(rng, self._choices)) is not None]
            if not drawn:
                continue
            away, _, graph = min((self._away(graph), n, graph) for n, graph in enumerate(drawn))
            idle = 0
            while away and idle < _IDLE:
                other, idle = mutant(rng, graph, self._choices, self.mutations), idle + 1
                if other is not None and (near := self._away(other)) <= _SLACK * away:
                    graph = other
                    if near < away:
                        away, idle = near, 0
            if not away:
                return graph
        return None

    def _mutant(self, rng: np.random.Generator, parent: Graph) -> Graph:
        own = self._canonical(parent)
        for _ in range(_MUTATION_TRIES):
            child: Graph | None = parent
            for _ in range(self.n_mutations):
                child = child if child is None else mutant(rng, child, self._choices, self.mutations)
            if child is not None and self._canonical(child) != own and self._in_range(child):
                return child
        return renumbered(self._any(rng), *next_ids(parent))

    def arch(self, graph: Graph) -> np.ndarray:
        """The Arch i32[A] of a valid graph. Raises ValueError: the graph is not one of this space."""
        _, edges, node_ids, edge_ids = self._starts
        if not self._choices.fits(graph):
            raise ValueError(
                f"{len(graph.nodes)} nodes and {len(graph.edges)} edges; this space has at most "
                f"{self.max_nodes} and {self.max_edges}"
            )
        if graph.nodes[0].op is not None or graph.supervised:
            raise ValueError('the input must have "op" null, and only the output a head: this graph is a baseline')
        if (graph.learning_rate is not None) != bool(self.learning_rates):
            raise ValueError('"learning_rate" belongs in the architecture exactly when the space chooses it')
        arch, rank = np.full(self.arch_size, -1, np.int32), graph.ranks()
        genes: list[Any] = [graph.channels, graph.learning_rate] if self.learning_rates else [graph.channels]
        for node in graph.nodes:
            genes += [node.level, node.op, node.kernel, node.expansion]
        arch[: len(genes)] = self._numbers(genes, 0)
        genes = [gene for edge in graph.edges for gene in (rank[edge.src], rank[edge.dst], edge.op)]
        arch[edges : edges + len(genes)] = self._numbers(genes, edges)
        arch[node_ids : node_ids + len(graph.nodes)] = [node.id for node in graph.nodes]
        arch[edge_ids : edge_ids + len(graph.edges)] = [edge.id for edge in graph.edges]
        return arch

    def _numbers(self, values: list[Any], first: int) -> list[int]:
        numbers = []
        for site, value in zip(self.sites[first : first + len(values)], values, strict=True):
            if value is not None and value not in site.choices:
                name = site.name.replace("/", ": ")
                raise ValueError(f"{name} = {value!r} must be one of {', '.join(map(str, site.choices))} in this space")
            numbers.append(-1 if value is None else site.choices.index(value))
        return numbers

    def graph(self, arch: np.ndarray) -> Graph:
        """The graph of an Arch."""
        arch = np.asarray(arch)
        nodes, edges, node_ids, edge_ids = self._starts
        ids, slots = arch[node_ids:edge_ids].tolist(), arch[nodes:edges].reshape(-1, len(_NODE)).tolist()
        links, numbers = arch[edges:node_ids].reshape(-1, len(_EDGE)).tolist(), arch[edge_ids:].tolist()
        ops = (*self.down_ops, *SAME_OPS, *self.up_ops)
        tables = (self.node_ops, self.kernels, self.expansions)
        return Graph(
            tuple(
                Node(i, level, *(None if n < 0 else table[n] for table, n in zip(tables, rest, strict=True)))  # type: ignore[arg-type]
                for i, (level, *rest) in zip(ids, slots, strict=True)
                if i >= 0
            ),
            tuple(
                Edge(i, ids[src], ids[dst], ops[op]) for i, (src, dst, op) in zip(numbers, links, strict=True) if i >= 0
            ),
            self.channels[int(arch[0])],
            self.learning_rates[int(arch[1])] if self.learning_rates else None,
        )

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != (self.arch_size,):
            raise ValueError(f"a {self.name} architecture here has {self.arch_size} entries, got shape {arch.shape}")
        active = self._active(arch, np)
        names = [site.name for site in self.sites]
        names += [f"{kind}{n}/id" for kind, size in self._capacity for n in range(size)]
        limits = [len(site.choices) for site in self.sites] + [2**31] * (self.max_nodes + self.max_edges)
        for name, value, used, limit in zip(names, arch.tolist(), active.tolist(), limits, strict=True):
            if not used and value != -1:
                raise ValueError(f"{name} is not there, so its entry must be -1; got {value}")
            if used and not 0 <= value < limit:
                raise ValueError(f"{name} has no choice number {value}; choose 0..{limit - 1}")
        for start, (kind, size) in zip(self._starts[2:], self._capacity, strict=True):
            if (np.diff(arch[start : start + size] >= 0) & (arch[start + 1 : start + size] >= 0)).any():
                raise ValueError(f"{kind} slots must be in use from the first one on, without a gap")
        graph = self.graph(arch)
        form.check(graph)
        if form.ordered(graph) != graph:
            raise ValueError("edge slots must be ordered by destination, then by source")

    @property
    def _capacity(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return (("node", self.max_nodes), ("edge", self.max_edges))

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as a JSON tree (the form of `--arch`, trials.jsonl and best.json)."""
        self.validate(arch)
        return form.to_tree(self.graph(arch))

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree; nodes and edges on no path from the input to the output are left out.

        Raises:
          ValueError: not such a tree, or not a graph of this space; the message says what to write instead.
        """
        return self.arch(form.from_tree(tree))

    def _canonical(self, graph: Graph) -> np.ndarray:
        """The Arch without ids, as bytes."""
        return self.arch(graph)[: self._starts[2]].tobytes()  # type: ignore[return-value]

    def canonical(self, arch: Array) -> jax.Array:
        """The same graph with ids 0, 1, 2, ... in the order of its slots: i32[A]; traceable."""
        arch, (*_, node_ids, _) = jnp.asarray(arch, jnp.int32), self._starts
        numbers = jnp.concatenate([jnp.arange(self.max_nodes), jnp.arange(self.max_edges)]).astype(jnp.int32)
        return jnp.concatenate([arch[:node_ids], jnp.where(arch[node_ids:] >= 0, numbers, -1)])

    def identity(self, arch: np.ndarray) -> str:
        """Equal exactly for equal architectures, whatever their ids."""
        return digest(np.asarray(arch)[: self._starts[2]])

    def size(self) -> None:
        """Not known."""
        return None
