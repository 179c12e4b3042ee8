"""The mean metric of the best k architectures, trial by trial: how fast whole groups improve, not one lucky draw."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from nasjax.report import charts, grouping, searching
from nasjax.report.elements import figure
from nasjax.report.grouping import Line
from nasjax.report.runs import Run

SIZES = (1, 5, 15)  # Zoph & Le 2017, figure 6


def means(run: Run, k: int) -> list[tuple[float, float]]:
    """(completion order, mean metric of the best k different architectures), from where there are k on.

    An architecture that was tried again counts by its better trial.
    """
    best: dict[str, float] = {}
    values: list[float] = []  # of `best`, from low to high
    found = []
    counted = {t.id for t in run.comparable}
    for t in run.trials:
        if t.fitness is not None and t.id in counted:
            name = t.hash or str(t.arch)
            old = best.get(name)
            if old is None or t.fitness > old:
                if old is not None:
                    values.pop(bisect.bisect_left(values, old))
                best[name] = t.fitness
                bisect.insort(values, t.fitness)
        if len(values) >= k:
            found.append((float(t.order), run.metric.value(sum(values[-k:]) / k)))
    return found


def curves(lines: Sequence[Line]) -> str:
    """A curve per line and k; "" unless several lines are overlaid and one of them has enough architectures."""
    if len(lines) < 2:
        return ""
    kinds = [f"mean of the top {k}" if k > 1 else "the best" for k in SIZES]
    rows = []
    for line in lines:
        for k, kind in zip(SIZES, kinds, strict=True):
            band = charts.thin(grouping.band([means(run, k) for run in line.runs]), charts.MOST_ON_LINE // 2)
            rows += [{"x": row["x"], "y": row["y"], "line": line.label, "kind": kind} for row in band]
    if not any(row["kind"] == kinds[-1] for row in rows):
        return ""
    metric = lines[0].metric
    dash: charts.Row = {"field": "kind", "type": "nominal", "legend": charts.legend(kinds, lines=True)}
    dash["scale"] = {"domain": kinds, "range": [[1, 0], [6, 3], [2, 3]]}
    encoding = {
        "x": charts.axis("x", "trials completed", whole=True, end="x"),
        "y": charts.axis("y", metric.axis),
        "color": charts.colours(*searching.palette(lines)),
        "strokeDash": dash,
        "tooltip": charts.hover(
            ("line", "run"), ("kind", "what"), ("x", "trials", ",d"), ("y", metric.axis, metric.format)
        ),
    }
    marks = [charts.layer("line", rows, encoding)]
    caption = (
        f"The mean {metric.title} of the best {', '.join(map(str, SIZES[:-1]))} and {SIZES[-1]} different "
        f"architectures so far; {metric.better}. A curve begins once a run has that many."
    )
    return figure(f"Top {', '.join(map(str, SIZES))} over the search", charts.chart(marks, caption), caption)
