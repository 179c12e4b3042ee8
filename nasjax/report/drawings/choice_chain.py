"""Drawings of paths through chains of choice blocks (`choice_chain`) from their JSON form, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

_WIDTH, _LEFT, _GAP, _MOST = 520, 104, 8, 6  # pixels: drawing, its labels, between boxes; boxes in a row
_PILL, _ROW = 26, 12  # pixels: height of stem and tail, room between rows


class _Line(NamedTuple):
    """Layers that are drawn side by side: a stage, or a part of a long one."""

    first: int  # layer
    length: int
    labels: tuple[str, str]  # left of it


def draw(arch: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, str]:
    """The chain from stem to classifier, a row of boxes per stage, and the sentence that explains it.

    Args:
      arch: {"space": "choice_chain", "path": [2, 1, -1, ...], "channels": [6, 5, ...]}; -1 = identity.
      space: resolved fields of its space; without them operators are numbers.

    Returns:
      Trusted HTML: an SVG, and the caption.

    Raises:
      ValueError: an operator that the space does not have.
    """
    path, factors = numbers(arch), _factors(arch, space)
    names = [operator_name(space, operator) for operator in path]
    lines = _lines(len(path), space)
    wide = min(96.0, (_WIDTH - _LEFT) / max(line.length for line in lines) - _GAP)
    high = 42 if any(factors) else 28
    parts = [_pill(0, _stem(space))]
    y = _PILL + _ROW
    for line in lines:
        for n, text in enumerate(filter(None, line.labels)):
            css = "" if n else ' class="strong"'
            parts.append(f'<text{css} x="0" y="{y + 12 + 14 * n}">{escape(text)}</text>')
        for n in range(line.length):
            layer, x = line.first + n, _LEFT + n * (wide + _GAP)
            if n:
                parts.append(f'<g class="wire"><path d="M{x - _GAP:.1f} {y + high / 2}h{_GAP}"/></g>')
            parts.append(_box(x, y, wide, high, path[layer] < 0, _short(names[layer]), factors[layer]))
        y += max(high, 30) + _ROW
    tail = f"1×1, {space['tail']} channels, " if "tail" in space else ""
    parts.append(_pill(y, f"{tail}average, classifier"))
    told = [f"{name} {factor}".strip() for name, factor in zip(names, factors, strict=True)]
    alt = f"Chain of {len(path)} layers: " + "; ".join(f"layer {n}: {text}" for n, text in enumerate(told))
    caption = f"{len(path)} layers, read like text: a row per stage with the channels it puts out (long stages wrap)."
    caption += " k: kernel size; e: expansion of the inner channels." if space.get("family") == "mobile" else ""
    caption += " ×: what the inner channels are multiplied by." if any(factors) else ""
    caption += " Dashed: identity." if -1 in path else ""
    size = f'viewBox="0 -2 {_WIDTH} {y + _PILL + 4}"'
    return f'<svg class="net wide" {size} role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>', caption


def summary(arch: Mapping[str, Any]) -> str:
    """2 1 – 0 for the path, – = identity; with channel search / 6 5 – 7 behind it."""
    both = [arch["path"], *([arch["channels"]] if "channels" in arch else [])]
    return " / ".join(" ".join("–" if value == -1 else str(value) for value in values) for values in both)


def numbers(arch: Any) -> list[int]:
    """The operator of every layer, -1 = identity. Raises ValueError where `arch` is no path."""
    path = arch.get("path") if isinstance(arch, Mapping) else None
    if not isinstance(path, list) or not path or any(type(v) is not int or v < -1 for v in path):
        raise ValueError("not a path")
    return list(path)


def operator_name(space: Mapping[str, Any], operator: int) -> str:
    """Raises ValueError for an operator that the space does not have."""
    names = space.get("operators")
    if operator < 0 or not isinstance(names, Sequence):
        return "identity" if operator < 0 else f"operator {operator}"
    if operator >= len(names):
        raise ValueError(f"the space has no operator {operator}")
    return str(names[operator])


def _short(name: str) -> str:
    """k7 e6 for mbconv_k7_e6."""
    return name.removeprefix("mbconv_").removeprefix("shuffle_").replace("_", " ")


def _factors(arch: Mapping[str, Any], space: Mapping[str, Any]) -> list[str]:
    """×0.6 for every layer whose inner channels are searched, "" for the others."""
    chosen, values = arch.get("channels") or [-1] * len(arch["path"]), space.get("channel_factors") or []
    if len(chosen) != len(arch["path"]):
        raise ValueError("not a channel factor per layer")
    return ["" if c < 0 else f"×{values[c]:.3g}" if values else f"× no. {c}" for c in chosen]


def _lines(layers: int, space: Mapping[str, Any]) -> list[_Line]:
    """A stage of more layers than fit goes into rows of equal length."""
    stages = list(zip(*(space.get(name) or () for name in ("depths", "channels", "strides")), strict=True))
    if stages and sum(depth for depth, _, _ in stages) != layers:
        raise ValueError("not a path of this space")
    lines: list[_Line] = []
    first = 0
    for depth, channels, stride in stages or [(layers, None, 1)]:
        labels = ("" if channels is None else f"{channels} channels", "first stride 2" if stride == 2 else "")
        count = -(-depth // -(-depth // _MOST))
        for begin in range(0, depth, count):
            lines.append(_Line(first + begin, min(count, depth - begin), labels if begin == 0 else ("", "")))
        first += depth
    return lines


def _stem(space: Mapping[str, Any]) -> str:
    if "stem" not in space:
        return "image"
    stride = f", stride {space['stem_stride']}" if space.get("stem_stride", 1) != 1 else ""
    first = f"; separable 3×3, {space['first']} channels" if space.get("first") else ""
    return f"image; 3×3, {space['stem']} channels{stride}{first}"


def _box(x: float, y: float, wide: float, high: float, identity: bool, name: str, factor: str) -> str:
    css, middle = "identity" if identity else "box", x + wide / 2
    place = f'x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{high}" rx="6"'
    text = f'<text class="op" x="{middle:.1f}" y="{y + 18}" text-anchor="middle">{escape(name)}</text>'
    if factor:
        text += f'<text x="{middle:.1f}" y="{y + 34}" text-anchor="middle">{escape(factor)}</text>'
    return f'<rect class="{css}" {place} fill-opacity="0.14"/>{text}'


def _pill(y: float, text: str) -> str:
    box = f'x="1" y="{y}" width="{_WIDTH - 2}" height="{_PILL}" rx="{_PILL // 2}"'
    middle = f'x="{_WIDTH // 2}" y="{y + 17.5}" text-anchor="middle"'
    return f'<rect class="pill" {box}/><text {middle}>{escape(text)}</text>'
