"""The share of weights that a child inherits from its parent, against its gain over the parent."""

from __future__ import annotations

from typing import Any

from nasjax.report import charts, correlation, searching
from nasjax.report.elements import figure
from nasjax.report.grouping import Line
from nasjax.report.metric import words
from nasjax.report.runs import Run, Trial


def gains(run: Run) -> list[tuple[Trial, float, float]]:
    """(child, inherited fraction, gain) of trials that inherited; a gain is positive where the child is better.

    It is the difference of the metric: in points where that is shown in percent.
    """
    by_id = {t.id: t for t in run.done}
    scale = abs(run.metric.value(1.0))
    return [
        (t, t.inherited, scale * (t.fitness - parent.fitness))
        for t in run.done
        if t.parent is not None and t.inherited is not None and (parent := by_id.get(t.parent)) is not None
        if t.fitness is not None and parent.fitness is not None
    ]


def scatter(run: Run, line: Line, number: int) -> str:
    """Inherited fraction against gain; "" where fewer than two children inherited."""
    found = gains(run)
    if len(found) < 2:
        return ""
    unit = "points" if run.metric.unit == "fraction" else words(run.metric.name)
    rows = [
        searching.point(line, number, t, x=100 * share, gain=gain, parent=t.parent)
        for t, share, gain in charts.thin(found, charts.MOST_POINTS)
    ]
    across: dict[str, Any] = {"x": charts.axis("x", "weights taken over from the parent (%)", end="x")}
    across |= {"y": charts.axis("gain", f"gain over the parent ({unit})")}
    hovered = charts.hover(("parent",), ("x", "inherited (%)", ".1f"), ("gain", f"gain ({unit})", "+.3~g"))
    across["tooltip"] = [*searching.told([line]), *hovered]
    zero = charts.layer("rule", [{"gain": 0}], {"y": across["y"]}, color=charts.FAILED, strokeDash=[5, 4])
    marks = [zero, charts.layer("circle", rows, across, color=line.colour, **searching.POINT)]
    better = sum(gain > 0 for *_, gain in found)
    caption = (
        "A point is a child: the share of its weights that it inherited from its parent, and how much better "
        f"its {run.metric.title} is (above the dashed line) than its parent's. "
        f"{better:,} of {len(found):,} children are better. "
        f"{correlation.told([(share, gain) for _, share, gain in found])}"
    )
    return figure("Inherited weights and gain", charts.chart(marks, caption), caption)
