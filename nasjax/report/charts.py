"""Charts by Vega-Lite: a figure is a plain dict that the page draws, without network and without eval.

The one module that knows the library. `vl-convert-python` brings its JavaScript, imported only while a report is
written. A datum's `row` is the id of the table row to which a click on its mark leads.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

HEIGHT = 250  # pixels of a chart without its axes
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito 2008: safe for colour-blind
_MORE = ("#5E3C99", "#7A5C00", "#00525E", "#A6305A", "#4D4D4D", "#6B8E23")  # of the seventh run on; ours
FAILED = "#8A1C1C"
_INK, _SOFT, _RULE = "#16191d", "#4d5560", "#e1e5ea"
MOST_POINTS, MOST_ON_LINE = 1000, 300  # drawn in a figure, on one line: a report of 100,000 trials stays small
_AXIS = {"labelColor": _SOFT, "titleColor": _SOFT, "titleFontWeight": 600, "labelFontSize": 12, "titleFontSize": 12}
_AXIS |= {"gridColor": _RULE, "domainColor": _SOFT, "tickColor": _SOFT, "labelOverlap": True, "titlePadding": 8}
_AXIS |= {"labelSeparation": 6}  # pixels, or labels touch on a narrow page
CONFIG = {
    "background": None,
    "font": 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif',
    "view": {"stroke": None},
    "axis": _AXIS,
    "axisX": {"grid": False},
    "legend": {"orient": "top", "title": None, "labelColor": _INK, "labelFontSize": 12, "labelLimit": 400}
    | {"symbolOpacity": 1, "symbolStrokeWidth": 2.5, "layout": {"top": {"direction": "vertical", "anchor": "start"}}},
    "line": {"strokeWidth": 2.2},
    "range": {"category": list(PALETTE)},
}

Row = dict[str, Any]


@functools.cache
def library() -> str:
    """JavaScript that defines `vegaEmbed`; kept in the user's cache folder, as packing it takes a second."""
    file = Path("~/.cache/nasjax").expanduser() / f"vega-{version('vl-convert-python')}.js"
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        import vl_convert

        text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)
    except OSError:
        pass  # the next report packs it again
    return text


def chart(layers: Iterable[Mapping[str, Any]], alt: str, **more: Any) -> str:
    """The place of a chart in the page, with its data.

    Args:
      layers: Vega-Lite layers, drawn in this order.
      alt: its text for readers who cannot see it.
      more: further fields of the specification.

    Returns:
      Trusted HTML.
    """
    spec = {"width": "container", "height": HEIGHT, "layer": list(layers)}
    spec |= {"autosize": {"type": "fit-x", "contains": "padding"}, "padding": _padding(), **more}
    return (
        f'<div class="chart" role="img" aria-label="{escape(alt)}"><div class="view"></div>'
        f'<script type="application/json">{embedded(spec)}</script></div>'
    )


def embedded(tree: Any) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(_rounded(tree), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def _rounded(tree: Any) -> Any:
    """Numbers with the seven digits that a float32 has, more than a chart can show."""
    if isinstance(tree, float):
        return float(f"{tree:.7g}")
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    return [_rounded(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def svg(spec: Mapping[str, Any]) -> str:
    """A chart of the page's look as a file of its own; `spec` is a Vega-Lite specification with its sizes."""
    import vl_convert

    found: str = vl_convert.vegalite_to_svg(_rounded(dict(spec)), config={**CONFIG, "background": "white"})
    return found


def layer(mark: str, rows: Iterable[Row], encoding: Mapping[str, Any], **look: Any) -> dict[str, Any]:
    """One kind of mark, its data, where its fields go, and how it looks."""
    return {"data": {"values": list(rows)}, "mark": {"type": mark, **look}, "encoding": dict(encoding)}


def axis(
    field: str, title: str, *, log: bool = False, zero: bool = False, whole: bool = False, end: str = ""
) -> dict[str, Any]:
    """A quantity on an axis.

    Args:
      field: of the data.
      title: in words, with the unit.
      log: logarithmic; needs positive values.
      zero: the axis begins at 0.
      whole: only whole numbers are labelled.
      end: "x" gives an axis of x room at both ends.
    """
    scale: Row = {"type": "log", "nice": False, "padding": 14} if log else {"zero": zero, "nice": True}
    if end == "x" and not log:
        scale |= {"nice": False, "padding": 10}
    look: Row = {"title": title, "tickCount": 6}
    if log or whole:
        look["format"] = ".3~s" if log else ",d"
    if whole:
        between = "abs(datum.value - round(datum.value)) > 1e-6"
        look |= {"tickMinStep": 1, "labelExpr": f"{between} ? '' : datum.label"}
        look["tickSize"] = {"condition": {"test": between, "value": 0}, "value": 5}
        look["gridOpacity"] = {"condition": {"test": between, "value": 0}, "value": 1}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": look}


def colour(n: int) -> str:
    """Of the n-th run of a page, from 0: no two of the first twelve are alike."""
    every = (*PALETTE, *_MORE)
    return every[n % len(every)]


def shades(colour: str, n: int) -> list[str]:
    """n shades of a colour "#RRGGBB", the first is itself, the others nearer to white: parts of one run.

    Example:
      >>> shades("#000000", 2)
      ['#000000', '#808080']
    """
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    steps = [k / max(n - 1, 1) / 2 for k in range(n)]
    paler = ["#" + "".join(f"{round(part + (255 - part) * step):02x}" for part in parts) for step in steps]
    return [colour, *paler[1:]]


def colours(
    domain: Sequence[str], palette: Sequence[str] = PALETTE, field: str = "line", *, lines: bool = False
) -> dict[str, Any]:
    """The colour of each name; a legend where there are several, in as many columns as fit."""
    chosen = [palette[n % len(palette)] for n in range(len(domain))]
    found: Row = {"field": field, "type": "nominal", "scale": {"domain": list(domain), "range": chosen}}
    return found | {"legend": legend(domain, lines=lines) if len(domain) > 1 else None}


def legend(names: Sequence[str], *, lines: bool = False) -> Row:
    """Of these names, in as many columns as fit a figure; `lines` shows how lines are drawn."""
    columns = max(1, int(420 // (36 + 6.8 * max(map(len, names)))))
    return {"columns": columns} | ({"symbolType": "stroke", "symbolSize": 400} if lines else {})


def hover(*fields: tuple[str, ...]) -> list[Row]:
    """What is shown on hover: (field,), (field, title) or (field, title, format in d3's notation)."""
    return [
        {"field": name, "title": more[0] if more else name, "type": "quantitative" if more[1:] else "nominal"}
        | ({"format": more[1]} if more[1:] else {})
        for name, *more in fields
    ]


def room(name: str, angle: float) -> dict[str, float]:
    """The padding of a chart whose last column has a head that leans to the right by `angle` degrees, in pixels."""
    return _padding(7 * len(name) * math.cos(math.radians(angle)))


def _padding(right: float = 12) -> dict[str, float]:
    """In pixels; half of the last label of an axis may stand beyond its end."""
    return {"left": 5, "top": 5, "bottom": 5, "right": right}


def thin(points: Sequence[Any], most: int = MOST_ON_LINE) -> list[Any]:
    """Every k-th of too many points, and the last."""
    k = -(-len(points) // most)
    return list(points) if k <= 1 else [*points[:-1:k], points[-1]]


def line_look(longest: int) -> Row:
    """Points are drawn on short lines; on long ones they show only on hover."""
    return {"point": {"filled": True, "size": 28} if longest <= 30 else "transparent"}
