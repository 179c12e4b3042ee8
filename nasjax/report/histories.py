"""What a search by gradients leaves beside its losses: mixing weights per epoch, the cells they stand for, the gap."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nasjax.report import figures, networks, svg
from nasjax.report.workdir import Run, mapping, number

_EDGES = [f"{source}-{node}" for node in range(2, 6) for source in range(node)]


def section(run: Run) -> str:
    """The section of a run whose metrics hold weights; "" for any other."""
    rows = [row for row in run.metrics if isinstance(row.get("weights"), Mapping)]
    if not rows:
        return ""
    last, what = rows[-1], "stable rank" if run.name("method") == "msr_darts" else "mixing weight"
    cards = []
    for cell in ("normal", "reduce"):
        names, table = _names(run, last, cell), _table(last, cell)
        if table:
            caption = f"Epoch {last.get('epoch')}: {what} of each operator (columns) on each edge (rows, source-node)."
            drawing = svg.heat_map(table, _EDGES, names, caption)
            cards.append(figures.figure(f"{what.capitalize()}s, {cell} cell", drawing, caption, []))
            cards.append(_curves(run, rows, cell, what))
    if not run.trials and isinstance(last.get("arch"), Mapping):
        drawing, caption = networks.draw(last["arch"], run.space)
        cards.append(figures.figure("Cells so far: the search is not finished", drawing, caption, []))
    return (
        f'<section><h2>Weights of the search network</h2>{_gap(run)}<div class="cards">{"".join(cards)}</div></section>'
    )


def _gap(run: Run) -> str:
    """The discretisation gap in a sentence."""
    searched = number(run.best_json.get("search_accuracy"))
    derived = number(run.best_json.get("fitness"))
    if searched is None or derived is None:
        return ""
    told = (
        f"Discretisation gap: the search network reaches {100 * searched:.2f} % on the validation images, the derived "
        f"cell with the weights it inherits {100 * derived:.2f} %, {100 * (searched - derived):.2f} points less."
    )
    return f'<p class="note">{escape(told)}</p>'


def _table(row: Mapping[str, Any], cell: str) -> list[list[float | None]]:
    values = mapping(row.get("weights")).get(cell)
    if not isinstance(values, list) or len(values) != len(_EDGES) or not all(isinstance(v, list) for v in values):
        return []
    return [[number(value) for value in edge] for edge in values]


def _names(run: Run, row: Mapping[str, Any], cell: str) -> list[list[str]]:
    """The operators of each edge in the row's stage, from stages.json."""
    try:
        facts = json.loads((run.folder / "stages.json").read_text())["facts"][int(row.get("stage", 0))][cell]
        return [[str(name) for name in names] for names in facts]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _curves(run: Run, rows: Sequence[Mapping[str, Any]], cell: str, what: str) -> str:
    """The mean over edges of every operator's weight, epoch by epoch; an operator that was dropped ends."""
    tracks: dict[str, list[svg.Point]] = {}
    for i, row in enumerate(rows, 1):
        sums: dict[str, list[float]] = {}
        for names, values in zip(_names(run, row, cell), _table(row, cell), strict=False):
            for name, value in zip(names, values, strict=False):
                if value is not None:
                    sums.setdefault(name, []).append(value)
        for name, found in sums.items():
            tracks.setdefault(name, []).append((float(number(row.get("epoch")) or i), sum(found) / len(found)))
    x = svg.axis("epoch", [at for points in tracks.values() for at, _ in points], text=svg.count)
    y = svg.axis(what, [value for points in tracks.values() for _, value in points])
    caption = f"Across: epoch. Up: {what}, mean over the edges that have the operator."
    lines = [svg.line(x, y, points, figures.colour(c)) for c, points in enumerate(tracks.values())]
    keys = [(f"swatch {figures.colour(c)}", name) for c, name in enumerate(tracks)]
    return figures.figure(f"Operators, {cell} cell", svg.chart(x, y, lines, caption), caption, keys)
