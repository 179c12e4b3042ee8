"""Drawings of cells (`darts_cell`) from their JSON form, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_NODES = (2, 3, 4, 5)
_LEFT, _GAP, _HEAD, _ROW, _PILL = 42, 100, 52, 27, 26  # pixels
_WIDTH = 2 * _LEFT + 5 * _GAP
_TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}
_SHORT = {"max_pool_3x3": "max", "avg_pool_3x3": "avg", "skip_connect": "skip"}


def draw(arch: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, str]:
    """The normal and the reduction cell, and the sentence that explains both.

    Args:
      arch: {"space": "darts_cell", "normal": [["sep_conv_3x3", 0], ...8], "reduce": [...]}; or
        with "cells", a list of every cell of a network, in place of both.
      space: resolved fields of its space; nothing of them is needed.

    Returns:
      Trusted HTML: two SVGs, and the caption.

    Raises:
      ValueError: not 8 pairs per cell, or a source that is no earlier tensor.
    """
    drawing = "".join(_cell(title, pairs) for title, pairs in _titled(arch))
    return drawing, (
        "Read downwards: every column is a tensor, every arrow an operator, applied to the column at its dot and "
        "added to the node where it ends (skip connections in colour). Columns 0 and 1 are the outputs of the two "
        "previous cells; what the reduction cell reads of them is halved in height and width."
    )


def summary(arch: Mapping[str, Any]) -> str:
    """Both cells in one line: sep3 0 sep3 1 | ... for operators and their sources, node by node."""
    return " // ".join(
        " | ".join(" ".join(f"{_short(op)} {source}" for op, source in pairs[i : i + 2]) for i in range(0, 8, 2))
        for _, pairs in _titled(arch)
    )


def _titled(arch: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, int]]]]:
    """The cells with their titles; every cell of a network where they differ, of which two reduce."""
    if "cells" not in arch:
        return [(title, _pairs(arch[cell])) for cell, title in _TITLES.items()]
    count = len(arch["cells"])
    reducing = (count // 3, 2 * count // 3)
    titles = [f"Cell {k}{', reduction' if k in reducing else ''}" for k in range(count)]
    return [(title, _pairs(pairs)) for title, pairs in zip(titles, arch["cells"], strict=True)]


def _short(operator: str) -> str:
    return _SHORT.get(operator) or operator[:3] + operator[-1]


def _pairs(pairs: Sequence[Any]) -> list[tuple[str, int]]:
    found = [(str(operator), int(source)) for operator, source in pairs]
    if len(found) != 2 * len(_NODES) or any(not 0 <= s < _NODES[i // 2] for i, (_, s) in enumerate(found)):
        raise ValueError("not a cell of four nodes that read two earlier tensors each")
    return found


def _x(tensor: int) -> int:
    return _LEFT + _GAP * tensor


def _y(pair: int) -> int:
    return _HEAD + _ROW * pair + 8 * (pair // 2)  # the two rows of a node stand together


def _cell(title: str, pairs: Sequence[tuple[str, int]]) -> str:
    """A column per tensor that begins where its node is complete, an arrow per operator, the output at the bottom."""
    bottom = _y(len(pairs)) + 4
    rails, arrows, labels, nodes = [], [], [], []
    for tensor in range(6):
        read = [_y(i) for i, (_, source) in enumerate(pairs) if source == tensor]
        last = bottom if tensor in _NODES else max(read, default=_PILL)
        begin = _PILL if tensor < 2 else _middle(tensor)
        rails.append(f'<path d="M{_x(tensor)} {begin}V{last}"/>')
    for i, (operator, source) in enumerate(pairs):
        node, y = _NODES[i // 2], _y(i)
        stop = _x(node) - 13
        css = "skip" if operator == "skip_connect" else "wire"
        arrows.append(
            f'<g class="{css}"><path d="M{_x(source)} {y}H{stop - 3}"/>'
            f'<circle class="head" cx="{_x(source)}" cy="{y}" r="2.5"/>'
            f'<path class="head" d="M{stop} {y}l-6 -3.5v7z"/></g>'
        )
        middle = (_x(node - 1) + stop) / 2
        labels.append(f'<text class="op" x="{middle:.0f}" y="{y - 5}" text-anchor="middle">{escape(operator)}</text>')
    for node in _NODES:
        nodes.append(_pill(_x(node), _middle(node), 24, _ROW + 24, str(node)))
    names = ("cell k−2", "cell k−1")
    inputs = "".join(_pill(_x(n), _PILL // 2 + 1, 74, _PILL, f"{n}: {name}") for n, name in enumerate(names))
    output = _pill((_x(2) + _x(5)) // 2, bottom + _PILL // 2, 3 * _GAP + 48, _PILL, "2, 3, 4, 5 concatenated: output")
    alt = f"{title}: " + "; ".join(
        f"node {node}: " + " and ".join(f"{op} of {s}" for op, s in pairs[2 * n : 2 * n + 2])
        for n, node in enumerate(_NODES)
    )
    heading = f'<text class="strong" x="{_WIDTH}" y="{_PILL - 8}" text-anchor="end">{title}</text>'
    return (
        f'<svg class="net wide" viewBox="0 0 {_WIDTH} {bottom + _PILL + 14}" role="img" aria-label="{escape(alt)}">'
        f'{heading}<g class="wire">{"".join(rails)}</g>{"".join(arrows + nodes)}{inputs}{output}{"".join(labels)}</svg>'
    )


def _middle(node: int) -> int:
    return (_y(2 * node - 4) + _y(2 * node - 3)) // 2


def _pill(x: int, y: int, width: int, height: int, text: str) -> str:
    box = f'x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="{min(width, height) // 2}"'
    return f'<rect class="pill" {box}/><text x="{x}" y="{y + 4}" text-anchor="middle">{escape(text)}</text>'
