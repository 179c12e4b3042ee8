"""Random graphs over resolutions, and mutations of a graph.

The probabilities and limits are ours. The blog post on asynchronous evolution of segmentation graphs says only that
changes are small and that additions are more probable than removals, so that networks grow.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from nasjax.spaces.resolution_graph.form import MBV2, Edge, Graph, Node, operators, ordered, pruned

T = TypeVar("T")


@dataclass(frozen=True)
class Mutations:
    """How probable each mutation is; the values need not sum to 1.

    `change_hparam` changes kernel, expansion, channels or learning rate. Where the space fixes all of these, its share
    goes to `add_edge` and `remove_edge`, 2 to 1.

    Attributes:
      add_edge, add_node, remove_edge, remove_node: an edge or a node comes or goes.
      change_node_op, change_edge_op: another operator.
      change_hparam: another number of a node, see above.
    """

    add_edge: float = 0.25
    add_node: float = 0.20
    change_node_op: float = 0.15
    change_edge_op: float = 0.15
    change_hparam: float = 0.10
    remove_edge: float = 0.10
    remove_node: float = 0.05

    def __post_init__(self) -> None:
        shares = dataclasses.astuple(self)
        if min(shares) < 0 or not sum(shares) > 0:
            raise ValueError(f"probabilities of mutations must be 0 or more, and not all 0; got {self}")


@dataclass(frozen=True)
class Choices:
    """The choices of operators, and the limits of a graph's size."""

    levels: int
    max_nodes: int
    max_edges: int
    node_ops: tuple[str, ...]
    edge_ops: tuple[str, ...]
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    learning_rates: tuple[float, ...]
    extra_nodes: int
    edge_rate: float

    def node(self, rng: np.random.Generator, node_id: int, level: int, op: str | None = None) -> Node:
        """A node with the operator `op`, or any; its kernel and expansion are drawn."""
        op = _pick(rng, self.node_ops) if op is None else op
        kernel, expansion = _pick(rng, self.kernels), _pick(rng, self.expansions)
        return Node(node_id, level, op, kernel, expansion) if op == MBV2 else Node(node_id, level, op)

    def operators(self, src_level: int, dst_level: int) -> tuple[str, ...]:
        """The operators that an edge between two levels may have here."""
        return tuple(op for op in operators(src_level, dst_level) if op in self.edge_ops)

    def fits(self, graph: Graph) -> bool:
        """Whether the graph is within the limits."""
        return len(graph.nodes) <= self.max_nodes and len(graph.edges) <= self.max_edges


def random_graph(rng: np.random.Generator, choices: Choices) -> Graph | None:
    """A backbone down and up again, extra nodes and extra edges; pruned. None if it is too large.

    The backbone goes down to level D in {2, ..., levels - 1} (1 where there are two levels). Up to `extra_nodes` more
    get a random level, a random place in the order, and an edge in and an edge out where any is possible. Every other
    possible edge is added with probability `edge_rate`. Operators are uniform.
    """
    deepest = choices.levels - 1
    depth = int(rng.integers(min(2, deepest), deepest + 1))
    levels = [*range(depth + 1), *reversed(range(depth))]
    backbone = list(range(len(levels)))  # ranks, moved by insertions
    extras: list[int] = []
    for _ in range(int(rng.integers(choices.extra_nodes + 1))):
        rank = int(rng.integers(1, len(levels)))
        levels.insert(rank, int(rng.integers(choices.levels)))
        backbone, extras = ([r + (r >= rank) for r in ranks] for ranks in (backbone, extras))
        extras.append(rank)
    n = len(levels)
    possible = [[i < j and bool(choices.operators(levels[i], levels[j])) for j in range(n)] for i in range(n)]
    pairs = set(itertools.pairwise(backbone))
    for rank in extras:
        if sources := [i for i in range(rank) if possible[i][rank]]:
            pairs.add((_pick(rng, sources), rank))
        if readers := [j for j in range(rank + 1, n) if possible[rank][j]]:
            pairs.add((rank, _pick(rng, readers)))
    draws = rng.random((n, n))
    pairs |= {(i, j) for i in range(n) for j in range(n) if possible[i][j] and draws[i, j] < choices.edge_rate}
    nodes = (Node(0, 0, None), *(choices.node(rng, rank, levels[rank]) for rank in range(1, n)))
    edges = tuple(
        Edge(number, i, j, _pick(rng, choices.operators(levels[i], levels[j])))
        for number, (i, j) in enumerate(sorted(pairs))
    )
    rate = _pick(rng, choices.learning_rates) if choices.learning_rates else None
    graph = pruned(Graph(nodes, edges, _pick(rng, choices.channels), rate))
    return graph if graph is not None and choices.fits(graph) else None


def mutant(rng: np.random.Generator, graph: Graph, choices: Choices, rates: Mutations) -> Graph | None:
    """The graph after one mutation, pruned. None: the mutation is not possible here, or leaves no valid graph.

    New nodes and edges have ids above all of the parent's: those with the same id are the same.
    """
    shares = dataclasses.asdict(rates)
    if not tunable(choices):
        spare = shares.pop("change_hparam")
        shares["add_edge"] += spare * 2 / 3
        shares["remove_edge"] += spare / 3
    names, weights = list(shares), np.array(list(shares.values()))
    if not weights.sum() > 0:
        return None
    change = _CHANGES[names[int(rng.choice(len(names), p=weights / weights.sum()))]]
    changed = change(rng, graph, choices)
    changed = None if changed is None else pruned(changed)
    return changed if changed is not None and choices.fits(changed) else None


def tunable(choices: Choices) -> list[str]:
    """The hyper-parameters that the search chooses."""
    return [name for name in ("kernels", "expansions", "channels", "learning_rates") if len(getattr(choices, name)) > 1]


def renumbered(graph: Graph, first_node: int, first_edge: int) -> Graph:
    """The graph with all ids moved up, so that nothing in it has an id of an earlier graph."""
    return graph._replace(
        nodes=tuple(node._replace(id=node.id + first_node) for node in graph.nodes),
        edges=tuple(Edge(e.id + first_edge, e.src + first_node, e.dst + first_node, e.op) for e in graph.edges),
    )


def next_ids(graph: Graph) -> tuple[int, int]:
    """The first ids of nodes and of edges that are not in use."""
    return 1 + max(node.id for node in graph.nodes), 1 + max(edge.id for edge in graph.edges)


def _add_edge(rng: np.random.Generator, graph: Graph, choices: Choices) -> Graph | None:
    there = {(edge.src, edge.dst) for edge in graph.edges}
    absent = [
        (a, b)
        for i, a in enumerate(graph.nodes)
        for b in graph.nodes[i + 1 :]
        if (a.id, b.id) not in there and choices.operators(a.level, b.level)
    ]
    if not absent:
        return None
    a, b = _pick(rng, absent)
    edge = Edge(next_ids(graph)[1], a.id, b.id, _pick(rng, choices.operators(a.level, b.level)))
    return ordered(graph._replace(edges=(*graph.edges, edge)))


def _add_node(rng: np.random.Generator, graph: Graph, choices: Choices) -> Graph | None:
    """Adds a node beside an edge, between its ends; the edge stays."""
    edge, rank = _pick(rng, graph.edges), graph.ranks()
    above, below = (graph.nodes[rank[node]].level for node in (edge.src, edge.dst))
    levels = [
        level for level in range(choices.levels) if choices.operators(above, level) and choices.operators(level, below)
    ]
    if not levels:
        return None
    level, (node_id, edge_id) = _pick(rng, levels), next_ids(graph)
    place = (rank[edge.src] + rank[edge.dst] + 1) // 2
    nodes = (*graph.nodes[:place], choices.node(rng, node_id, level), *graph.nodes[place:])
    new = (
        Edge(edge_id, edge.src, node_id, _pick(rng, choices.operators(above, level))),
        Edge(edge_id + 1, node_id, edge.dst, _pick(rng, choices.operators(level, below))),
    )
    return ordered(graph._replace(nodes=nodes, edges=(*graph.edges, *new)))


def _change_node_op(rng: np.random.Generator, graph: Graph, choices: Choices) -> Graph | None:
    rank = int(rng.integers(1, len(graph.nodes)))
    old = graph.nodes[rank]
    others = [op for op in choices.node_ops if op != old.op]
    if not others:
        return None
    return _with_node(graph, rank, choices.node(rng, old.id, old.level, _pick(rng, others)))


def _change_edge_op(rng: np.random.Generator, graph: Graph, choices: Choices) -> Graph | None:
    level = {node.id: node.level for node in graph.nodes}
    others = [
        (i, [op for op in choices.operators(level[edge.src], level[edge.dst]) if op != edge.op])
        for i, edge in enumerate(graph.edges)
    ]
    others = [(i, ops) for i, ops in others if ops]
    if not others:
        return None
    i, ops = _pick(rng, others)
    edges = (*graph.edges[:i], graph.edges[i]._replace(op=_pick(rng, ops)), *graph.edges[i + 1 :])
    return graph._replace(edges=edges)


def _change_hparam(rng: np.random.Generator, graph: Graph, choices: Choices) -> Graph | None:
    name = _pick(rng, tunable(choices))

    def other(old: Any) -> Any:
        return _pick(rng, [value for value in getattr(choices, name) if value != old])

    if name == "channels":
        return graph._replace(channels=int(other(graph.channels)))
    if name == "learning_rates":
        return graph._replace(learning_rate=float(other(graph.learning_rate)))
    ranks = [rank for rank, node in enumerate(graph.nodes) if node.op == MBV2]
    if not ranks:
        return None
    rank = _pick(rng, ranks)
    old = graph.nodes[rank]
    if name == "kernels":
        return _with_node(graph, rank, old._replace(kernel=int(other(old.kernel))))
    return _with_node(graph, rank, old._replace(expansion=int(other(old.expansion))))


def _remove_edge(rng: np.random.Generator, graph: Graph, choices: Choices) -> Graph:
    i = int(rng.integers(len(graph.edges)))
    return graph._replace(edges=graph.edges[:i] + graph.edges[i + 1 :])


def _remove_node(rng: np.random.Generator, graph: Graph, choices: Choices) -> Graph | None:
    if len(graph.nodes) < 3:
        return None
    gone = graph.nodes[int(rng.integers(1, len(graph.nodes) - 1))].id
    return graph._replace(
        nodes=tuple(node for node in graph.nodes if node.id != gone),
        edges=tuple(edge for edge in graph.edges if gone not in (edge.src, edge.dst)),
    )


_CHANGES: dict[str, Callable[[np.random.Generator, Graph, Choices], Graph | None]] = {
    "add_edge": _add_edge,
    "add_node": _add_node,
    "change_node_op": _change_node_op,
    "change_edge_op": _change_edge_op,
    "change_hparam": _change_hparam,
    "remove_edge": _remove_edge,
    "remove_node": _remove_node,
}


def _with_node(graph: Graph, rank: int, node: Node) -> Graph:
    return graph._replace(nodes=(*graph.nodes[:rank], node, *graph.nodes[rank + 1 :]))


def _pick(rng: np.random.Generator, of: Sequence[T]) -> T:
    return of[int(rng.integers(len(of)))]
