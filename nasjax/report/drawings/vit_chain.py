"""Drawings of transformers (`vit_chain`) from their JSON form, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_WIDTH, _LEFT, _GAP = 460, 60, 10  # pixels: drawing, labels on its left, between boxes
_PILL, _ROW, _HIGH = 26, 38, 28  # pixels: height of both ends, from layer to layer, height of a layer


def draw(arch: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, str]:
    """Patches, layers and classifier downwards; a layer is a box of its attention heads and one of its MLP, to scale.

    Args:
      arch: {"space": "vit_chain", "embed_dim": 192, "num_heads": [3, ...], "mlp_ratio": [3.5, ...]}.
      space: resolved fields of its space (patch, head_width, heads, mlp_ratios); {} where they are not known.

    Returns:
      Trusted HTML: an SVG, and the caption.

    Raises:
      ValueError: no such architecture.
    """
    heads, ratios = _layers(arch)
    width, side = int(arch["embed_dim"]), (_WIDTH - _LEFT - _GAP) / 2
    most_heads, most_ratio = max([*heads, *_numbers(space, "heads")]), max([*ratios, *_numbers(space, "mlp_ratios")])
    patch = f"patches of {space['patch']}×{space['patch']}, " if "patch" in space else ""
    parts, y = [_pill(0, f"{patch}{width} features")], _PILL + _GAP
    for i, (count, ratio) in enumerate(zip(heads, ratios, strict=True)):
        middle = y + _HIGH / 2
        parts.append(f'<text class="strong" x="0" y="{middle + 4.5}">{i}</text>')
        parts.append(f'<g class="wire"><path d="M{_LEFT + side} {middle}h{_GAP}"/></g>')
        one = side / most_heads
        for n in range(count):
            parts.append(_box(_LEFT + side - (n + 1) * one + 1, y, one - 2, n / most_heads))
        parts.append(_text(_LEFT + side - 8, middle, "end", f"{count} head{'s' * (count != 1)}"))
        parts.append(_box(_LEFT + side + _GAP, y, side * ratio / most_ratio, 0.5))
        parts.append(_text(_LEFT + side + _GAP + 8, middle, "start", f"MLP ×{ratio:g}"))
        y += _ROW
    parts.append(_pill(y, "average over patches, classifier"))
    told = "; ".join(f"layer {i}: {h} heads, MLP ×{r:g}" for i, (h, r) in enumerate(zip(heads, ratios, strict=True)))
    alt = f"Transformer of {len(heads)} layers, {width} features: {told}"
    each = f" of {space['head_width']} features each" if "head_width" in space else ""
    caption = (
        f"{len(heads)} layers of {width} features, read downwards: on the left attention heads{each}, on the right the "
        "MLP, whose hidden units are a multiple of the features. Full boxes are the largest choice of the space."
    )
    size = f'viewBox="0 -2 {_WIDTH} {y + _PILL + 4}"'
    return f'<svg class="net" {size} role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>', caption


def summary(arch: Mapping[str, Any]) -> str:
    """192: 3·3.5 4·3 for 192 features and two layers, of 3 heads and MLP ratio 3.5, and of 4 heads and ratio 3."""
    heads, ratios = _layers(arch)
    return f"{arch['embed_dim']}: " + " ".join(f"{h}·{r:g}" for h, r in zip(heads, ratios, strict=True))


def _layers(arch: Any) -> tuple[list[int], list[float]]:
    """Heads and MLP ratios. Raises ValueError where `arch` is no transformer."""
    if not isinstance(arch, Mapping) or not isinstance(arch.get("embed_dim"), int):
        raise ValueError("not a transformer")
    heads, ratios = arch.get("num_heads"), arch.get("mlp_ratio")
    if not isinstance(heads, list) or not isinstance(ratios, list) or not len(heads) == len(ratios) > 0:
        raise ValueError("not a transformer")
    if any(type(count) is not int or count < 1 for count in heads) or min(ratios) <= 0:
        raise ValueError("not a transformer")
    return heads, ratios


def _numbers(space: Mapping[str, Any], name: str) -> list[float]:
    values = space.get(name)
    return list(values) if isinstance(values, (list, tuple)) else []


def _box(x: float, y: float, wide: float, share: float) -> str:
    place = f'x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{_HIGH}" rx="5"'
    return f'<rect class="box" {place} fill-opacity="{0.1 + 0.12 * share:.2f}"/>'


def _text(x: float, middle: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{middle + 4.5}" text-anchor="{anchor}">{escape(text)}</text>'


def _pill(y: int, text: str) -> str:
    box = f'x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT}" height="{_PILL}" rx="{_PILL // 2}"'
    middle = f'x="{(_WIDTH + _LEFT) // 2}" y="{y + 17.5}" text-anchor="middle"'
    return f'<rect class="pill" {box}/><text {middle}>{escape(text)}</text>'
