"""Recurrent cells (`cell_tree`) from their JSON form: as inline SVG, like figure 8 of Zoph & Le 2017; as equations."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_PITCH, _BOX, _HIGH, _BAND, _FOOT = 72, 58, 36, 62, 58  # pixels: between leaves, a node, above a node, below leaves
_PILL, _TOP, _WIDTH = 32, 34, 520  # pixels: width of a state, room above the root's band, the least width
_SIGNS = {"add": "+", "elem_mult": "×", "max": "max"}
_BROAD = 640
_OPERATORS = {"add": "+", "elem_mult": "*"}


def draw(arch: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, str]:
    """The tree from its leaves, at the bottom, to h_t at the top, with where the cell state enters and is read.

    Args:
      arch: {"space": "cell_tree", "nodes": [["add", "tanh"], ...], "inject": ["add", "relu"], "indices": [1, 0]}.
      space: resolved fields of its space; nothing of them is needed.

    Returns:
      Trusted HTML: an SVG and the equations; and the caption.

    Raises:
      ValueError: no full binary tree, or an index of no node.
    """
    units, inject, new_from, inject_at = _cell(arch)
    leaves = (len(units) + 1) // 2
    depth = leaves.bit_length() - 1
    width = max(_WIDTH, _PITCH * leaves + 48)
    left = (width - _PITCH * leaves) / 2
    places: list[tuple[float, float]] = []
    for node in range(len(units)):
        if node < leaves:
            places.append((left + _PITCH * (node + 0.5), _TOP + _BAND + depth * (_HIGH + _BAND)))
        else:
            (a, y), (b, _) = places[2 * (node - leaves)], places[2 * (node - leaves) + 1]
            places.append(((a + b) / 2, y - _HIGH - _BAND))
    wires, boxes = [], []
    for node, ((x, y), unit) in enumerate(zip(places, units, strict=True)):
        if node < leaves:
            for side, name in ((-1, "x"), (1, "h")):
                at = x + 15 * side
                wires.append(f'<path d="M{at} {y + _HIGH + 22}V{y + _HIGH}"/>')
                boxes.append(_state(at, y + _HIGH + 32, 26, name, "t" if side < 0 else "t−1"))
        if node < len(units) - 1:
            parent = places[leaves + node // 2]
            wires.append(f'<path d="M{x} {y}V{y - _BAND + 10}H{parent[0] + (-8, 8)[node % 2]}V{parent[1] + _HIGH}"/>')
        else:
            wires.append(f'<path d="M{x} {y}V{_TOP - 8}"/>')
            boxes.append(_state(x, _TOP - 18, _PILL + 8, "h", "t"))
        if node == new_from:
            wires.append(f'<path class="state" d="M{x - 20} {y}V{y - 6}"/>')
            boxes.append(_state(x - 22, y - 16, _PILL - 2, "c", "t", "state"))
        if node == inject_at:
            wires.append(f'<path class="state" d="M{x + 34} {y - 38}H{x + 30}"/>')
            boxes.append(_box(x, y - 50, 68, 24, [f"{_sign(inject[0])} {inject[1]}"], "inject"))
            boxes.append(_state(x + 52, y - 38, _PILL, "c", "t−1", "state"))
        css = "read" if node == new_from else "box"
        boxes.append(_box(x, y, _BOX, _HIGH, [_sign(unit[0]), unit[1]], css))
    high = _TOP + _BAND + depth * (_HIGH + _BAND) + _HIGH + _FOOT
    alt = f"Cell of {leaves} leaves: " + "; ".join(f"node {n}: {' '.join(unit)}" for n, unit in enumerate(units))
    alt += f"; c of the last step enters after node {inject_at}: {' '.join(inject)}; c is node {new_from}"
    caption = (
        f"A tree of {leaves} leaves, read upwards. A leaf combines the input x and the last hidden state h, each "
        "multiplied by a matrix of its own; a node combines its two children (+ adds, × multiplies element by "
        "element), then applies the activation below the sign. The last cell state enters at the dashed box; the new "
        "one is what the outlined node has before its activation. Below, the same as equations: h' and c' are the new "
        "states, W1 and W2 the matrices of the first leaf."
    )
    css = "net wide broad" if width > _BROAD else "net wide"
    size = f'viewBox="0 0 {width} {high}"'
    return (
        f'<div><svg class="{css}" {size} role="img" aria-label="{escape(alt)}"><g class="wire">{"".join(wires)}</g>'
        f"{''.join(boxes)}</svg><pre>{escape(chr(10).join(equations(arch)))}</pre></div>"
    ), caption


def equations(arch: Mapping[str, Any]) -> list[str]:
    """The cell's equations, one a line, in the order in which they can be computed. Zoph & Le 2017, section 3.4.

    x is the input, h and c are the last step's states, h' and c' the new ones, "*" multiplies element by element.
    a5 is the output of node 5, b5 the same after c has been injected. W1, W2, ... are the matrices of the leaves.

    Example:
      >>> nodes = [["add", "tanh"], ["elem_mult", "relu"], ["elem_mult", "sigmoid"]]
      >>> print("\\n".join(equations({"nodes": nodes, "inject": ["add", "relu"], "indices": [1, 0]})))
      a0 = tanh(W1 x + W2 h)
      b0 = relu(a0 + c)
      c' = (W3 x) * (W4 h)
      a1 = relu(c')
      h' = sigmoid(b0 * a1)
    """
    units, inject, new_from, inject_at = _cell(arch)
    leaves, root = (len(units) + 1) // 2, len(units) - 1
    lines: list[str] = []
    names: list[str] = []
    for node, (combination, activation) in enumerate(units):
        if node < leaves:
            pre = _combined(combination, f"W{2 * node + 1} x", f"W{2 * node + 2} h")
        else:
            pre = _combined(combination, names[2 * (node - leaves)], names[2 * (node - leaves) + 1])
        if node == new_from:
            lines.append(f"c' = {pre}")
            pre = "c'"
            if activation == "identity" and node not in (root, inject_at):
                names.append(pre)
                continue
        injected = node == inject_at
        name = "h'" if node == root and not injected else f"a{node}"
        lines.append(f"{name} = {_activated(activation, pre)}")
        if injected:
            before, name = name, "h'" if node == root else f"b{node}"
            lines.append(f"{name} = {_activated(inject[1], _combined(inject[0], before, 'c'))}")
        names.append(name)
    return lines


def _combined(combination: str, a: str, b: str) -> str:
    if combination == "max":
        return f"max({a}, {b})"
    if combination == "elem_mult":
        a, b = (f"({term})" if " " in term else term for term in (a, b))
    return f"{a} {_OPERATORS[combination]} {b}"


def _activated(activation: str, pre: str) -> str:
    return pre if activation == "identity" else f"{activation}({pre})"


def summary(arch: Mapping[str, Any]) -> str:
    """+tanh ×relu ×sigmoid; c after 0: +relu; c from 1. A reference is its name."""
    if "reference" in arch:
        return str(arch["reference"])
    units, inject, new_from, inject_at = _cell(arch)
    told = " ".join(_sign(combination) + activation for combination, activation in units)
    return f"{told}; c after {inject_at}: {_sign(inject[0])}{inject[1]}; c from {new_from}"


def _cell(arch: Mapping[str, Any]) -> tuple[list[tuple[str, str]], tuple[str, str], int, int]:
    """Nodes, inject, and the two indices: what c_t is read from, where c_{t-1} enters."""
    units = [(str(combination), str(activation)) for combination, activation in arch["nodes"]]
    combination, activation = arch["inject"]
    new_from, inject_at = (int(index) for index in arch["indices"])
    if len(units) < 3 or (len(units) + 1) & len(units) or not all(0 <= i < len(units) for i in (new_from, inject_at)):
        raise ValueError("not a full binary tree with two of its nodes")
    return units, (str(combination), str(activation)), new_from, inject_at


def _sign(combination: str) -> str:
    return _SIGNS.get(combination, combination)


def _box(x: float, y: float, wide: float, high: float, lines: list[str], css: str) -> str:
    place = f'x="{x - wide / 2}" y="{y}" width="{wide}" height="{high}" rx="6"'
    first = y + high / 2 + 4 - 7.5 * (len(lines) - 1)
    texts = "".join(
        f'<text class="op" x="{x}" y="{first + 15 * n}" text-anchor="middle">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    return f'<rect class="back" {place}/><rect class="{css}" {place} fill-opacity="0.14"/>{texts}'


def _state(x: float, y: float, wide: float, name: str, step: str, css: str = "pill") -> str:
    """A state with its step below the line."""
    box = f'x="{x - wide / 2}" y="{y - 10}" width="{wide}" height="20" rx="10"'
    text = f'{name}<tspan font-size="8" dy="3">{step}</tspan>'
    return f'<rect class="{css}" {box}/><text class="op" x="{x}" y="{y + 3}" text-anchor="middle">{text}</text>'
