"""Drawings of chains of convolutions (`conv_chain`) from their JSON form, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_ROW, _BOX, _HIGH, _LEFT, _WIDTH = 46, 190, 32, 74, 384  # pixels
_MIDDLE, _EDGE = _LEFT + _BOX // 2, _LEFT + _BOX


def summary(arch: Mapping[str, Any]) -> str:
    """Layer by layer: 7×5·36←0,1 for a 7x5 convolution with 36 filters that reads layers 0 and 1."""
    return "  ".join(_short_layer(layer) for layer in arch["layers"])


def draw(arch: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, str]:
    """Image, layers (or blocks) and classifier downwards; all other connections on the left.

    Args:
      arch: {"space": "conv_chain", "layers": [{"filter_height": 3, "filter_width": 5, ...}, ...]}.
      space: resolved fields of its space (pool_after, pool_skips).

    Returns:
      Trusted HTML: an SVG, and the caption.

    Raises:
      ValueError: a layer reads itself or a later one.
    """
    layers, per = arch["layers"], int(arch.get("block_layers", 1))
    pools = {int(block) for block in space.get("pool_after") or ()}
    reads = [sorted({int(j) for j in layer.get("inputs") or []}) for layer in layers]
    if not layers or any(not 0 <= j < i for i, inputs in enumerate(reads) for j in inputs):
        raise ValueError("a layer reads no later layer")
    most = max((int(layer.get("num_filters", 0)) for layer in layers), default=0) or 1
    loose = set(range(len(layers))) - {j for inputs in reads for j in inputs}  # what no layer reads: to the classifier

    tops, boxes, y = [], [_pill(0, "image")], 0
    for i, layer in enumerate(layers):
        y += _ROW
        tops.append(y)
        boxes.append(_layer_box(y, layer, per, int(layer.get("num_filters", 0)) / most))
        if i in pools:
            y += _ROW
            boxes.append(_pill(y, "2×2 max-pool"))
    y += _ROW
    boxes.append(_pill(y, "average, classifier"))

    wires, skips = [], []
    for i, inputs in enumerate(reads):
        for j in inputs:
            if j == i - 1:
                wires.append(_down(tops[j] + _HIGH, tops[i]))
            else:
                skips.append(_arc(tops[j], tops[i], (i - j) / len(layers), 1))
        if not inputs:
            wires.append(_down(_HIGH, tops[i]) if i == 0 else _arc(0, tops[i], i / len(layers), -1))
    for j in loose:
        far = (len(layers) - j) / len(layers)
        wires.append(_down(tops[j] + _HIGH, y) if j == len(layers) - 1 else _arc(tops[j], y, far, -1))
    boxed = f"{len(layers)} blocks of {per} layers" if per > 1 else f"{len(layers)} layers"
    unit = "block" if per > 1 else "layer"
    alt = f"Network of {boxed}: " + "; ".join(
        f"{unit} {i}: {_layer_name(layer)}"
        + (f", {layer['num_filters']} filters" if "num_filters" in layer else "")
        + f", reads {', '.join(map(str, inputs)) or 'the image'}"
        for i, (layer, inputs) in enumerate(zip(layers, reads, strict=True))
    )
    pooled = " An arc past a max-pool is pooled, too." if pools and space.get("pool_skips", True) else ""
    rate = f" Learning rate {arch['learning_rate']}." if "learning_rate" in arch else ""
    caption = (
        f"{boxed}, read downwards: kernel height×width (outlined to scale) and filters (darker = more). "
        "Arcs on the right are anchor skips; those on the left carry the image, and outputs that no layer reads."
        f"{pooled}{rate}"
    )
    groups = f'<g class="wire">{"".join(wires)}</g><g class="skip">{"".join(skips)}</g>{"".join(boxes)}'
    size = f'viewBox="0 -2 {_WIDTH} {y + _HIGH + 4}"'
    return f'<svg class="net" {size} role="img" aria-label="{escape(alt)}">{groups}</svg>', caption


def _layer_box(y: int, layer: Mapping[str, Any], per: int, share: float) -> str:
    high, wide = int(layer.get("filter_height", 0)), int(layer.get("filter_width", 0))
    glyph = ""
    if high and wide:
        h, w = min(2.6 * high, _HIGH - 6), min(2.6 * wide, _HIGH - 6)
        at = f'x="{_LEFT + 20 - w / 2:.1f}" y="{y + (_HIGH - h) / 2:.1f}"'
        glyph = f'<rect class="kernel" {at} width="{w:.1f}" height="{h:.1f}" rx="1"/>'
    name, filters = _layer_name(layer), f"{layer['num_filters']} filters" if "num_filters" in layer else ""
    filters = f"{per} × {filters}" if per > 1 and filters else filters
    return (
        f'<rect class="back" x="{_LEFT}" y="{y}" width="{_BOX}" height="{_HIGH}" rx="6"/>'
        f'<rect class="box" x="{_LEFT}" y="{y}" width="{_BOX}" height="{_HIGH}" rx="6" '
        f'fill-opacity="{0.06 + 0.3 * share:.2f}"/>{glyph}'
        f'<text class="strong" x="{_LEFT + 40}" y="{y + 21}">{escape(name)}</text>'
        f'<text x="{_EDGE - 10}" y="{y + 21}" text-anchor="end">{escape(filters)}</text>'
    )


def _pill(y: int, text: str) -> str:
    box = f'x="{_LEFT}" y="{y}" width="{_BOX}" height="{_HIGH}" rx="{_HIGH // 2}"'
    return f'<rect class="pill" {box}/><text x="{_MIDDLE}" y="{y + 20.5}" text-anchor="middle">{text}</text>'


def _down(start: int, stop: int) -> str:
    return f'<path d="M{_MIDDLE} {start}V{stop - 3}"/><path class="head" d="M{_MIDDLE} {stop}l-3.5 -6h7z"/>'


def _arc(start: int, stop: int, span: float, side: int) -> str:
    """From the box at `start` to the one at `stop`, on the right (side 1) or left (-1); longer spans bow further."""
    edge, y0, y1 = (_EDGE if side > 0 else _LEFT), start + _HIGH - 9, stop + 9
    bow = edge + side * ((20 + 130 * span) if side > 0 else (18 + 62 * span))
    tip = edge + side * 4
    return (
        f'<path d="M{edge} {y0}C{bow:.0f} {y0} {bow:.0f} {y1} {tip} {y1}"/>'
        f'<path class="head" d="M{edge} {y1}l{6 * side} -3.5v7z"/>'
    )


def _short_layer(layer: Mapping[str, Any]) -> str:
    name, filters = _layer_name(layer), f"·{layer['num_filters']}" if "num_filters" in layer else ""
    reads = layer.get("inputs") or []
    return f"{name}{filters}" + (f"←{','.join(map(str, reads))}" if reads else "")


def _layer_name(layer: Mapping[str, Any]) -> str:
    kind = str(layer.get("type", "conv"))
    name = "" if kind == "conv" else kind.replace("_", " ")
    if "filter_height" in layer:
        name += f" {layer['filter_height']}×{layer['filter_width']}"
    stride = (layer.get("stride_height", 1), layer.get("stride_width", 1))
    return (name + (f" /{stride[0]}×{stride[1]}" if stride != (1, 1) else "")).strip()
