"""Drawings of graphs over resolutions (`resolution_graph`) from their JSON form, as inline SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

_LEFT, _COLUMN, _R = 86, 24, 7  # pixels: labels, between columns, a node's radius
_ROW, _DENSE, _MANY = 84, 112, 60  # pixels between levels, for this many edges or more
_LEGEND, _WIDTH, _BROAD = 22, 520, 640  # pixels: a line of the legend, the least width, from where on it is broad
_WAYS = {1: "down", 0: "same", -1: "up"}
_LEARNT = {"mbv2_s2", "transconv"}  # operators of edges with weights: dashed
_NODES = {"mbv2": "MobileNetV2 block", "resnet": "residual block", "vgg": "two 3×3 convolutions", None: "stem"}
_EDGES = {
    "maxpool": "down: 2×2 max pooling",
    "mbv2_s2": "down: MobileNetV2 block, stride 2",
    "identity": "same level: as it is",
    "upsample": "up: bilinear",
    "transconv": "up: transposed convolution",
}
# The indicators of published networks, to set the best of a search beside.
REFERENCES: Mapping[str, Mapping[str, float]] = {
    "UNet": {
        "nodes": 9, "edges": 12, "down_edges": 4, "same_edges": 4, "up_edges": 4,
        "bottlenecks": 0, "elongation": 0.73157
    },
    "UNet++": {
        "nodes": 15, "edges": 34, "down_edges": 4, "same_edges": 20, "up_edges": 10,
        "bottlenecks": 0, "elongation": 0.74111
    },
}  # fmt: skip


class _Node(NamedTuple):
    column: int
    level: int
    op: str | None
    told: str


def draw(arch: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, str]:
    """Levels from top to bottom, nodes from left to right in topological order, edges in the colour of their way.

    Args:
      arch: {"space": "resolution_graph", "nodes": [...], "edges": [...], "channels": 16}.
      space: resolved fields of its space; nothing of them is needed.

    Returns:
      Trusted HTML: an SVG, and the caption.

    Raises:
      ValueError: an edge to an earlier node, or over more than one level.
    """
    nodes, edges = _layout(arch)
    depth, columns = max(n.level for n in nodes.values()), 1 + max(n.column for n in nodes.values())
    row = _DENSE if len(edges) > _MANY else _ROW
    top = row / 2 + 4
    step = max(_COLUMN, (_WIDTH - _LEFT - 30) / columns)
    width = round(_LEFT + step * columns + 10)
    places = {i: (_LEFT + step * (n.column + 0.5), top + row * n.level) for i, n in nodes.items()}
    ways: dict[str, list[str]] = {"same": [], "down": [], "up": []}
    for number, (src, dst, op) in enumerate(edges):
        learnt = ' class="learnt"' if op in _LEARNT else ""
        path = _path(places[src], places[dst], number, row)
        ways[_WAYS[nodes[dst].level - nodes[src].level]].append(f'<path{learnt} d="{path}"/>')
    wires = "".join(f'<g class="{way}">{"".join(paths)}</g>' for way, paths in ways.items())
    order = list(nodes)
    heads = set(arch.get("supervised") or [])
    marks = []
    for i, node in nodes.items():
        css = "first" if i == order[0] else "last" if i == order[-1] else "inner"
        ring = _mark(*places[i], None, "ring", "a head of its own") if i in heads else ""
        marks.append(ring + _mark(*places[i], node.op, css, f"node {i}: {node.told}"))
    channels = int(arch.get("channels", 16))
    labels = "".join(
        f'<text class="strong" x="0" y="{top + row * level - 2:.0f}">{_side(level)}</text>'
        f'<text x="0" y="{top + row * level + 13:.0f}">{channels << level} channels</text>'
        for level in range(depth + 1)
    )
    below = round(top + row * depth + 34)
    legend, lines = _legend(nodes, edges, width, below, bool(heads))
    told = " and ".join(f"{len(ways[way])} {way}" for way in ("down", "up"))
    alt = f"Graph of {len(nodes)} nodes and {len(edges)} edges on {depth + 1} levels: {told}, {len(ways['same'])} along"
    caption = (
        f"{len(nodes)} nodes and {len(edges)} edges ({len(ways['down'])} down in blue, {len(ways['up'])} up in red, "
        f"{len(ways['same'])} along a level in gray), all from left to right. A row is a level: its share of the "
        "image's sides, and its channels. Input blue, output red."
    )
    caption += f" Learning rate {arch['learning_rate']}." if "learning_rate" in arch else ""
    size = f'viewBox="0 0 {width} {below + _LEGEND * lines}"'
    css = "net wide broad" if width > _BROAD else "net wide"
    return (
        f'<svg class="{css}" {size} role="img" aria-label="{escape(alt)}">{wires}{"".join(marks)}{labels}{legend}</svg>'
    ), caption


def summary(arch: Mapping[str, Any]) -> str:
    """9 nodes, 12 edges (4 down, 4 up, 4 along); mbv2 5, resnet 3; 16 channels."""
    nodes, edges = _layout(arch)
    ways = Counter(_WAYS[nodes[dst].level - nodes[src].level] for src, dst, _ in edges)
    ops = Counter(node.op for node in nodes.values() if node.op)
    told = f"{len(nodes)} nodes, {len(edges)} edges ({ways['down']} down, {ways['up']} up, {ways['same']} along); "
    return told + ", ".join(f"{op} {n}" for op, n in sorted(ops.items())) + f"; {arch.get('channels', 16)} channels"


def difference(parent: Mapping[str, Any], child: Mapping[str, Any]) -> list[str]:
    """The changes of a mutation, by the ids that both graphs share: "+ node 7 (level 2, mbv2)", "− edge 3 → 5"."""
    told = []
    for kind, label in (("nodes", _node_label), ("edges", _edge_label)):
        old, new = ({row["id"]: row for row in tree[kind]} for tree in (parent, child))
        told += [f"+ {kind[:-1]} {label(row)}" for i, row in new.items() if i not in old]
        told += [f"− {kind[:-1]} {label(row)}" for i, row in old.items() if i not in new]
        told += [
            f"{kind[:-1]} {label(row)}: {key} {old[i].get(key)} → {row[key]}"
            for i, row in new.items()
            for key in row
            if i in old and key not in ("id", "order") and old[i].get(key) != row[key]
        ]
    rest = [key for key in ("channels", "learning_rate") if parent.get(key) != child.get(key)]
    return told + [f"{key.replace('_', ' ')} {parent.get(key)} → {child.get(key)}" for key in rest]


def _node_label(row: Mapping[str, Any]) -> str:
    return f"{row['id']} (level {row['level']}, {row['op']})"


def _edge_label(row: Mapping[str, Any]) -> str:
    return f"{row['src']} → {row['dst']} ({row['op']})"


def _layout(arch: Mapping[str, Any]) -> tuple[dict[int, _Node], list[tuple[int, int, str]]]:
    """Nodes by id in topological order, and (source, destination, operator).

    A node's column is the first to the right of everything that it reads and of the earlier nodes of its level.
    """
    rows = sorted(arch["nodes"], key=lambda row: int(row["order"]))
    edges = [(int(edge["src"]), int(edge["dst"]), str(edge["op"])) for edge in arch["edges"]]
    into: dict[int, list[int]] = {int(row["id"]): [] for row in rows}
    for src, dst, _ in edges:
        into[dst].append(src)
    nodes: dict[int, _Node] = {}
    last: dict[int, int] = {}
    for row in rows:
        i, level, op = int(row["id"]), int(row["level"]), row["op"]
        if any(src not in nodes or abs(nodes[src].level - level) > 1 for src in into[i]) or not 0 <= level < 16:
            raise ValueError("an edge leads to a later node, one level down or up at most")
        column = 1 + max([nodes[src].column for src in into[i]] + [last.get(level, -1)])
        last[level] = column
        told = _NODES.get(op, str(op))
        if row.get("kernel") is not None:
            told += f", kernel {row['kernel']}, expansion {row.get('expansion')}"
        nodes[i] = _Node(column, level, op if op is None else str(op), told)
    if len(nodes) < 2 or len(nodes) < len(rows):
        raise ValueError("a graph has an input and an output, and every node an id of its own")
    return nodes, edges


def _path(start: tuple[float, float], stop: tuple[float, float], number: int, row: float) -> str:
    """Along a level an arc above what lies between; between levels a curve that soon leaves its level."""
    (x0, y0), (x1, y1) = start, stop
    far = (x1 - x0) / _COLUMN
    if y0 == y1:
        lift = min(8 + 2 * far, 0.42 * row)
        return f"M{x0:.0f} {y0:.0f}Q{(x0 + x1) / 2:.0f} {y0 - 2 * lift:.0f} {x1:.0f} {y1:.0f}"
    middle = (y0 + y1) / 2 + (y1 - y0) * (0.3 * ((number * 0.618) % 1) - 0.15)  # no two edges on one another
    bend = min(0.18 * (x1 - x0), 40)
    return f"M{x0:.0f} {y0:.0f}C{x0 + bend:.0f} {middle:.0f} {x1 - bend:.0f} {middle:.0f} {x1:.0f} {y1:.0f}"


def _mark(x: float, y: float, op: str | None, css: str, told: str) -> str:
    """Circle: MobileNetV2 block or stem; square: residual block; diamond: two convolutions."""
    title = f"<title>{escape(told)}</title>"
    if css == "ring":
        return f'<circle class="ring" cx="{x:.1f}" cy="{y}" r="{_R + 4}">{title}</circle>'
    if op == "resnet":
        at, side = f'x="{x - _R + 0.5:.1f}" y="{y - _R + 0.5}"', 2 * _R - 1
        return f'<rect class="node {css}" {at} width="{side}" height="{side}">{title}</rect>'
    if op == "vgg":
        r = _R + 1.5
        return f'<path class="node {css}" d="M{x:.1f} {y - r}l{r} {r}l{-r} {r}l{-r} {-r}z">{title}</path>'
    return f'<circle class="node {css}" cx="{x:.1f}" cy="{y}" r="{_R if op else _R - 1.5}">{title}</circle>'


def _legend(
    nodes: Mapping[int, _Node], edges: Sequence[tuple[int, int, str]], width: int, y: int, heads: bool
) -> tuple[str, int]:
    """The legend of the shapes and dashes that occur, and its number of lines."""
    ways = {op: _WAYS[nodes[dst].level - nodes[src].level] for src, dst, op in edges}
    ops = dict.fromkeys(node.op for node in nodes.values())
    items = [(_mark(10, 0, op, "inner", ""), _NODES.get(op, str(op))) for op in ops if op is not None]
    items += [(_mark(10, 0, None, "ring", ""), "has a head of its own")] if heads else []
    for op in [*(op for op in _EDGES if op in ways), *(op for op in ways if op not in _EDGES)]:
        learnt = ' class="learnt"' if op in _LEARNT else ""
        items.append((f'<g class="{ways[op]}"><path{learnt} d="M0 0H20"/></g>', _EDGES.get(op, op)))
    parts, x, line = [], 0.0, 0
    for symbol, text in items:
        room = 28 + 6.4 * len(text) + 18
        if x and x + room > width:
            x, line = 0.0, line + 1
        at = f"translate({x:.0f} {y + _LEGEND * line})"
        parts.append(f'<g class="key" transform="{at}">{symbol}<text x="28" y="4">{escape(text)}</text></g>')
        x += room
    return "".join(parts), line + 1


def _side(level: int) -> str:
    return "full size" if level == 0 else f"1/{1 << level}"
