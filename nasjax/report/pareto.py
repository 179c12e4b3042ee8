"""Searches by several objectives: multiply-adds against the metric, and the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nasjax.report import charts, networks, ranking, searching
from nasjax.report.elements import count, figure, table
from nasjax.report.grouping import Line
from nasjax.report.metric import of
from nasjax.report.runs import COSTS, Run
from nasjax.report.runs import number as finite


def fronts(lines: Sequence[Line]) -> str:
    """Multiply-adds against the metric where a search has several objectives; "" where none has."""
    metric = lines[0].metric
    dots: list[charts.Row] = []
    rings: list[charts.Row] = []
    told: list[str] = []
    most = charts.MOST_POINTS // sum(len(line.runs) for line in lines)
    for line in lines:
        for number, run in line.members:
            trials = [t for t in run.done if len(t.objectives) > 1 and t.macs]
            if not trials:
                continue
            best = ranking.front(trials)
            told.append(f"{len(best)} of {len(trials)} trials")
            for found, into in ((trials, dots), (best, rings)):
                into += [
                    searching.point(line, number, t, macs=t.macs, y=metric.value(t.fitness or 0.0))
                    for t in charts.thin(found, most)
                ]
    if not dots:
        return ""
    places = {"x": charts.axis("macs", "multiply-adds", end="x"), "y": charts.axis("y", metric.axis)}
    places["x"]["axis"]["format"] = "~s"
    places |= {"color": charts.colours(*searching.palette(lines))}
    hovered = searching.told(lines)
    hovered += charts.hover(("macs", "multiply-adds", ",d"))
    marks = [
        charts.layer("circle", dots, places | {"tooltip": hovered}, opacity=0.45, size=42, cursor="pointer"),
        charts.layer(
            "point", rings, places | {"tooltip": hovered}, cursor="pointer", size=120, strokeWidth=2.2, filled=False
        ),
    ]
    caption = (
        f"Fewer multiply-adds are better; of the {metric.title}, {metric.better}. Rings: the front, {'; '.join(told)}: "
        "no other trial is better in one of the search's objectives without being worse in another."
    )
    return figure("Pareto front", charts.chart(marks, caption), caption)


def members(run: Run) -> str:
    """The table of the front; "" where a search has one objective."""
    tested = {result.get("trial"): result for result in run.points if "finetuned" not in result}
    tuned = {result.get("trial"): result for result in run.points if "finetuned" in result}
    costs = [name for name in COSTS if any(name in t.costs for t in run.done)]
    rows = [
        [
            str(t.id),
            run.metric.text(t.fitness),
            *([_tested(run, tested.get(t.id, {}))] if tested else []),
            *([_tested(run, tuned.get(t.id, {}))] if tuned else []),
            count(t.macs),
            count(t.params),
            *(f"{t.costs[name]:.4g}" if name in t.costs else "–" for name in costs),
            f"<code>{escape(networks.summary(t.arch))}</code>",
        ]
        for t in ranking.front([t for t in run.done if len(t.objectives) > 1])[:200]
    ]
    heads = ["trial#", f"{run.metric.title}#", *(["on the test part#"] if tested else [])]
    heads += ["fine-tuned, on the test part#"] if tuned else []
    heads += ["multiply-adds#", "parameters#", *(f"{COSTS[name]}#" for name in costs), "path"]
    return f"<h3>Members of the Pareto front</h3>{table('Pareto front', heads, rows, 'sortable tall')}" if rows else ""


def _tested(run: Run, result: Mapping[str, Any]) -> str:
    """What a network with the search's weights came to on the test part; a dash where it was not written."""
    told = of(dict(result)) if "metric" in result else run.metric
    value = finite(result.get(f"test_{told.name}"))
    return told.text(None if value is None else told.sign * value)
