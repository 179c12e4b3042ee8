"""Drawings of small complete cells (`tabular_cell`) from their JSON form, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any


def summary(arch: Mapping[str, Any]) -> str:
    """The operations, edge by edge."""
    return "  ".join(arch["ops"])


def draw(arch: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, str]:
    """Nodes from left to right; edge (from, to) in the order 0-1, 0-2, 1-2, 0-3, ...

    Args:
      arch: {"space": "tabular_cell", "ops": ["nor_conv_3x3", ...]}, one operation per edge.
      space: resolved fields of its space; nothing of them is needed.

    Returns:
      Trusted HTML: an SVG, and the caption.

    Raises:
      ValueError: no complete cell has this number of edges.
    """
    ops = [str(op) for op in arch["ops"]]
    nodes = (1 + math.isqrt(1 + 8 * len(ops))) // 2
    edges = [(src, dst) for dst in range(nodes) for src in range(dst)]
    if nodes < 2 or len(edges) != len(ops):
        raise ValueError("not a complete cell")
    gap, middle, radius = 128, 30 + 52 * (nodes - 2), 17
    below = 30 + 52 * max(0, nodes - 3)
    paths, labels = [], []
    for (src, dst), op in zip(edges, ops, strict=True):
        x0, x1, side = 30 + gap * src, 30 + gap * dst, -1 if src % 2 == 0 else 1
        css = ' class="none"' if op == "none" else ""
        if dst == src + 1:
            bend, label_y = f"M{x0 + radius} {middle}H{x1 - radius - 4}", middle - 6
            head = f"M{x1 - radius} {middle}l-6 -3.5v7z"
        else:
            lift = side * 52 * (dst - src - 1)
            bend = f"M{x0} {middle + side * radius}C{x0} {middle + lift * 1.33:.0f} {x1} {middle + lift * 1.33:.0f} "
            bend += f"{x1} {middle + side * (radius + 4)}"
            label_y, head = (
                middle + lift + (16 if side > 0 else -8),
                f"M{x1} {middle + side * radius}l-3.5 {6 * side}h7z",
            )
        paths.append(f'<g{css}><path d="{bend}"/><path class="head" d="{head}"/></g>')
        labels.append(f'<text class="op" x="{(x0 + x1) / 2}" y="{label_y}" text-anchor="middle">{escape(op)}</text>')
    circles = "".join(
        f'<circle class="pill" cx="{30 + gap * n}" cy="{middle}" r="{radius}"/>'
        f'<text x="{30 + gap * n}" y="{middle + 4}" text-anchor="middle">{name}</text>'
        for n, name in enumerate(["in", *map(str, range(1, nodes - 1)), "out"])
    )
    alt = "Cell: " + "; ".join(f"edge {src} to {dst}: {op}" for (src, dst), op in zip(edges, ops, strict=True))
    drawing = (
        f'<svg class="net wide" viewBox="0 0 {60 + gap * (nodes - 1)} {middle + below}" role="img" '
        f'aria-label="{escape(alt)}"><g class="wire">{"".join(paths)}</g>{circles}{"".join(labels)}</svg>'
    )
    return (
        drawing,
        f"The cell: {nodes} nodes, each the sum of its incoming edges; every edge is one operation (none: dashed).",
    )
