"""Graphs over resolutions as data: nodes on levels and edges between them, their JSON form, and what makes them valid.

Level l has maps of 1 / 2^l of the image's sides and 2^l times `channels` channels. Edges lead one level down, one level
up or along a level, from earlier to later nodes. The choices are those of the blog post on asynchronous evolution of
segmentation graphs that gave the idea; levels, ranks and identifiers are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

NAME = "resolution_graph"
MBV2, RESNET, VGG = "mbv2", "resnet", "vgg"
NODE_OPS = (MBV2, RESNET)  # that a search chooses from; VGG, which concatenates its inputs, is that of the baselines
MAXPOOL, MBV2_S2, UPSAMPLE, TRANSCONV, IDENTITY = "maxpool", "mbv2_s2", "upsample", "transconv", "identity"
DOWN_OPS, SAME_OPS, UP_OPS = (MAXPOOL, MBV2_S2), (IDENTITY,), (UPSAMPLE, TRANSCONV)
KERNEL, EXPANSION = 3, 6  # of MobileNetV2 blocks that do not say otherwise

_NODE_KEYS = ("id", "level", "order", "op", "kernel", "expansion")
_EDGE_KEYS = ("id", "src", "dst", "op")


class Node(NamedTuple):
    """A place where edges meet, and an operator behind it."""

    id: int
    level: int
    op: str | None  # None = the input's stem
    kernel: int | None = None  # of MBV2 only
    expansion: int | None = None  # of MBV2 only


class Edge(NamedTuple):
    """From a node to a later one; `src` and `dst` are their ids."""

    id: int
    src: int
    dst: int
    op: str


class Graph(NamedTuple):
    """A graph from its input, the first node, to its output, the last one."""

    nodes: tuple[Node, ...]  # in topological order
    edges: tuple[Edge, ...]  # ordered by destination, then by source
    channels: int = 16  # at level 0
    learning_rate: float | None = None
    supervised: tuple[int, ...] = ()  # ids of nodes, besides the output, with a head of their own

    @property
    def depth(self) -> int:
        """The deepest level."""
        return max(node.level for node in self.nodes)

    def ranks(self) -> dict[int, int]:
        """Position of every node id in the topological order."""
        return {node.id: rank for rank, node in enumerate(self.nodes)}

    def sources(self) -> dict[int, list[Edge]]:
        """The edges into every node id."""
        into: dict[int, list[Edge]] = {node.id: [] for node in self.nodes}
        for edge in self.edges:
            into[edge.dst].append(edge)
        return into


def operators(src_level: int, dst_level: int) -> tuple[str, ...]:
    """The operators that an edge between two levels may have; () = no edge."""
    return {1: DOWN_OPS, 0: SAME_OPS, -1: UP_OPS}.get(dst_level - src_level, ())


def ordered(graph: Graph) -> Graph:
    """The graph with its edges in their order."""
    rank = graph.ranks()
    return graph._replace(edges=tuple(sorted(graph.edges, key=lambda e: (rank[e.dst], rank[e.src]))))


def pruned(graph: Graph) -> Graph | None:
    """The nodes and edges on a path from the input to the output; None where there is no such path."""
    ahead, back = {graph.nodes[0].id}, {graph.nodes[-1].id}
    edges = ordered(graph).edges
    for edge in edges:  # an edge comes after all edges into its source
        if edge.src in ahead:
            ahead.add(edge.dst)
    for edge in reversed(edges):
        if edge.dst in back:
            back.add(edge.src)
    kept = ahead & back
    if graph.nodes[0].id not in kept or len(kept) < 2:
        return None
    return graph._replace(
        nodes=tuple(node for node in graph.nodes if node.id in kept),
        edges=tuple(edge for edge in edges if edge.src in kept and edge.dst in kept),
        supervised=tuple(node for node in graph.supervised if node in kept),
    )


def check(graph: Graph) -> None:
    """Raises ValueError for a graph without a network: edges must lead forwards, nodes be used, operators fit."""
    rank = graph.ranks()
    if len(graph.nodes) < 2 or len(rank) < len(graph.nodes):
        raise ValueError("a graph needs an input and an output, and every node an id of its own")
    if len({edge.id for edge in graph.edges}) < len(graph.edges):
        raise ValueError("every edge must have an id of its own")
    if graph.nodes[0].level or graph.nodes[-1].level:
        raise ValueError("the first node is the input and the last one the output: both must be on level 0")
    level = {}
    for position, node in enumerate(graph.nodes):
        level[node.id] = node.level
        possible = (None, VGG) if position == 0 else (*NODE_OPS, VGG)
        if node.op not in possible:
            names = ", ".join(map(str, possible))
            raise ValueError(f"node {node.id}: op {node.op!r} is not possible there; choose from {names}")
        if node.level < 0 or min(node.id, graph.channels - 1) < 0:
            raise ValueError("levels and ids must be 0 or more, channels at least 1")
        if node.op == MBV2 and not (_positive(node.kernel) and _positive(node.expansion) and node.kernel % 2):  # type: ignore[operator]
            raise ValueError(f"node {node.id}: mbv2 needs an odd kernel and an expansion, whole numbers above 0")
    pairs = set()
    for edge in graph.edges:
        if edge.src not in rank or edge.dst not in rank or edge.id < 0:
            raise ValueError(f"edge {edge.id}: src and dst must be ids of nodes, and its own id 0 or more")
        if rank[edge.src] >= rank[edge.dst] or (edge.src, edge.dst) in pairs:
            raise ValueError(
                f"edge {edge.id}: edges must lead to a node of higher order, at most one between two nodes"
            )
        pairs.add((edge.src, edge.dst))
        if edge.op not in (allowed := operators(level[edge.src], level[edge.dst])):
            names = ", ".join(allowed) or "none: the levels of src and dst must differ by 1 at most"
            raise ValueError(f"edge {edge.id}: op {edge.op!r} is not possible there; choose from {names}")
    for node_id in graph.supervised:
        if level.get(node_id) != 0 or node_id == graph.nodes[-1].id:
            raise ValueError(f'"supervised" must list nodes of level 0 other than the output, got {node_id}')
    if (live := pruned(graph)) is None or len(live.nodes) < len(graph.nodes):
        raise ValueError("every node must be on a path from the input to the output")


def to_tree(graph: Graph) -> dict[str, Any]:
    """The JSON form; `kernel` and `expansion` are null where the operator has none."""
    nodes = [
        dict(zip(_NODE_KEYS, (node.id, node.level, rank, *node[2:]), strict=True))
        for rank, node in enumerate(graph.nodes)
    ]
    edges = [edge._asdict() for edge in graph.edges]
    tree: dict[str, Any] = {"space": NAME, "nodes": nodes, "edges": edges, "channels": graph.channels}
    tree |= {} if graph.learning_rate is None else {"learning_rate": graph.learning_rate}
    return tree | ({"supervised": list(graph.supervised)} if graph.supervised else {})


def from_tree(tree: Mapping[str, Any]) -> Graph:
    """The graph of a JSON tree, without nodes and edges on no path from its input to its output.

    `order` is any rank; the lowest is the input's, the highest the output's. `kernel` and `expansion` may be left out,
    and are ignored where the operator is no MobileNetV2 block.

    Raises:
      ValueError: not such a tree, or not a valid graph.
    """
    if not isinstance(tree, Mapping) or tree.get("space") != NAME:
        raise ValueError(f'a {NAME} architecture is {{"space": "{NAME}", "nodes": [...], "edges": [...]}}')
    if unknown := set(tree) - {"space", "nodes", "edges", "channels", "learning_rate", "supervised"}:
        raise ValueError(f"unknown entry {sorted(map(str, unknown))[0]!r} in the architecture")
    rows = _rows(tree, "nodes", _NODE_KEYS, ("kernel", "expansion"))
    if len({row["order"] for row in rows}) < len(rows):
        raise ValueError('every node must have an "order" of its own: its rank')
    channels, rate, supervised = tree.get("channels", 16), tree.get("learning_rate"), tree.get("supervised", [])
    if not _positive(channels):
        raise ValueError(f'"channels" must be a whole number above 0, got {channels!r}')
    if rate is not None and (type(rate) not in (int, float) or not rate > 0):
        raise ValueError(f'"learning_rate" must be a number above 0, got {rate!r}')
    if not isinstance(supervised, list) or any(type(node) is not int for node in supervised):
        raise ValueError(f'"supervised" must list ids of nodes, got {supervised!r}')
    nodes = tuple(_node(row) for row in sorted(rows, key=lambda row: row["order"]))
    edges = tuple(Edge(*(row[key] for key in _EDGE_KEYS)) for row in _rows(tree, "edges", _EDGE_KEYS))
    graph = Graph(nodes, edges, channels, None if rate is None else float(rate), tuple(supervised))
    ranks = graph.ranks()
    if len(nodes) < 2 or any(edge.src not in ranks or edge.dst not in ranks for edge in edges):
        raise ValueError('a graph must have two nodes or more, and "src" and "dst" of its edges must be ids of nodes')
    forwards = all(ranks[edge.src] < ranks[edge.dst] for edge in edges)
    if forwards and (live := pruned(graph)) is None:
        raise ValueError("the edges must lead from the node of lowest order, the input, to that of highest, the output")
    graph = live if forwards and live is not None else graph
    check(graph)
    return ordered(graph)


def _node(row: Mapping[str, Any]) -> Node:
    if row["op"] != MBV2:
        return Node(row["id"], row["level"], row["op"])
    kernel, expansion = row.get("kernel"), row.get("expansion")
    return Node(
        row["id"],
        row["level"],
        MBV2,
        KERNEL if kernel is None else kernel,
        EXPANSION if expansion is None else expansion,
    )


def _rows(
    tree: Mapping[str, Any], name: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    rows = tree.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f'"{name}" must list objects with {", ".join(keys)}')
    for row in rows:
        if unknown := set(row) - set(keys):
            raise ValueError(f"unknown entry {sorted(map(str, unknown))[0]!r} in {name}")
        for key in keys:
            whole = type(row.get(key)) is int
            if not (whole or key == "op" or (key in optional and row.get(key) is None)):
                raise ValueError(f'"{key}" of {name} must be a whole number, got {row.get(key)!r}')
    return [dict(row) for row in rows]


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0
