"""Figures of a search by gradients beside its losses: weights of operators per epoch, the cells, the gap."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nasjax.report import charts, elements, networks
from nasjax.report.heat import heat_map
from nasjax.report.runs import Run, mapping, number
from nasjax.report.searching import sentence

_EDGES = [f"{source} → {node}" for node in range(2, 6) for source in range(node)]
_CELLS = {"normal": "normal cell", "reduce": "reduction cell"}


def section(run: Run) -> str:
    """The section of a run whose metrics hold weights; "" for any other."""
    rows = [row for row in run.metrics if isinstance(row.get("weights"), Mapping)]
    if not rows:
        return ""
    last, cards = rows[-1], []
    for cell in dict.fromkeys(key for row in rows for key in row["weights"]):
        if table := _table(last, cell):
            what, title = _what(table), _CELLS.get(cell, str(cell))
            caption = f"Epoch {last.get('epoch')}: {what} of each operator (columns) on each edge (rows: from → to)."
            edges = _EDGES if len(table) == len(_EDGES) else [f"edge {n}" for n in range(len(table))]
            order = [name for edge in _names(run, rows[0], cell) for name in edge]
            names = _names(run, last, cell)
            drawing = heat_map(table, edges, names, caption, what=what, down="edge", order=order)
            cards.append(elements.figure(f"{sentence(what)}s, {title}", drawing, caption))
            cards.append(_curves(run, rows, cell, what, title))
    if not run.trials and isinstance(last.get("arch"), Mapping):
        drawing, caption = networks.draw(last["arch"], run.space)
        cards.append(elements.figure("Cells so far: the search is not finished", drawing, caption))
    return elements.section("Weights of the search network", cards, before=_gap(run))


def _gap(run: Run) -> str:
    """The discretisation gap in a sentence."""
    metric = run.metric
    searched = number(run.best_json.get(f"search_{metric.name}", run.best_json.get("search_accuracy")))
    derived = run.best.fitness if run.best else None
    if searched is None or derived is None:
        return ""
    gap = abs(metric.value(derived) - metric.value(metric.sign * searched))
    far = f"{gap:.2f} points" if metric.unit == "fraction" else f"{gap:.4g}"
    worse = ("less" if metric.sign > 0 else "more", "more" if metric.sign > 0 else "less")
    return elements.note(
        f"Discretisation gap: the search network has a {metric.title} of {metric.plain(searched)}, the derived cell "
        f"with the weights it inherits {metric.text(derived)}, {far} {worse[derived > metric.sign * searched]}."
    )


def _table(row: Mapping[str, Any], cell: str) -> list[list[float | None]]:
    """The weights of a cell [edges, operators]; [] where they are none."""
    values = mapping(row.get("weights")).get(cell)
    if not isinstance(values, list) or not values or not all(isinstance(edge, list) and edge for edge in values):
        return []
    return [[number(value) for value in edge] for edge in values]


def _what(table: Sequence[Sequence[float | None]]) -> str:
    """What the values are, judged by their range: mixing weights add up to 1, a stable rank is at least 1."""
    known = [[value for value in edge if value is not None] for edge in table]
    if all(abs(sum(edge) - 1) < 0.01 for edge in known if edge):
        return "mixing weight"
    return "stable rank" if all(value >= 1 for edge in known for value in edge) else "operator weight"


def _names(run: Run, row: Mapping[str, Any], cell: str) -> list[list[str]]:
    """The operators of each edge in the row's stage, from stages.json."""
    try:
        facts = json.loads((run.folder / "stages.json").read_text())["facts"][int(row.get("stage", 0))][cell]
        return [[str(name) for name in names] for names in facts]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _curves(run: Run, rows: Sequence[Mapping[str, Any]], cell: str, what: str, title: str) -> str:
    """The mean over edges of every operator's weight, epoch by epoch; an operator that was dropped ends."""
    data: list[charts.Row] = []
    for i, row in charts.thin(list(enumerate(rows, 1)), 300):
        sums: dict[str, list[float]] = {}
        for names, values in zip(_names(run, row, cell), _table(row, cell), strict=False):
            for name, value in zip(names, values, strict=False):
                if value is not None:
                    sums.setdefault(name, []).append(value)
        at = number(row.get("epoch")) or float(i)
        data += [{"x": at, "y": sum(found) / len(found), "line": name} for name, found in sums.items()]
    if len({row["x"] for row in data}) < 2:
        return ""
    operators = list(dict.fromkeys(row["line"] for row in data))
    dash = {"domain": operators, "range": [[1, 0]] * len(charts.PALETTE) + [[5, 3]] * len(charts.PALETTE)}
    look = charts.legend(operators, lines=True) if len(operators) > 1 else None
    encoding = {
        "x": charts.axis("x", "epoch", whole=True, end="x"),
        "y": charts.axis("y", f"{what} (mean over edges)"),
        "color": charts.colours(operators, lines=True),
        "strokeDash": {"field": "line", "type": "nominal", "scale": dash, "legend": look},
        "tooltip": charts.hover(("line", "operator"), ("x", "epoch", ",d"), ("y", what, ".4~g")),
    }
    lines = charts.layer("line", data, encoding, **charts.line_look(len(data) // len(operators)))
    caption = (
        f"The mean of each operator's {what} over the edges that have it. A line that ends: the operator was dropped."
    )
    return elements.figure(f"Operators over the search, {title}", charts.chart([lines], caption), caption)
