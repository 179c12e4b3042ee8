"""The random phase of an evolution and what follows it: the metric over both, and size against metric in the first."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from nasjax.report import charts, correlation, searching
from nasjax.report.elements import figure
from nasjax.report.grouping import Line
from nasjax.report.runs import Run, Trial, number

EMA_DECAY = 0.98
RANDOM, BRED = "random", "mutated"
_DRAWN = "#6B7580"  # what was drawn at random; mutated ones have the colour of their run


def ema(values: Sequence[float], decay: float = EMA_DECAY) -> list[float]:
    """e_n = decay e_{n-1} + (1 - decay) x_n from e_0 = x_0, without correction.

    Example:
      >>> ema([0.80, 0.84, 0.82])
      [0.8, 0.8008, 0.801184]
    """
    found: list[float] = []
    for value in values:
        found.append(decay * found[-1] + (1 - decay) * value if found else value)
    return found


def initial(run: Run) -> list[Trial]:
    """The trials with a result that were drawn at random: those without a parent."""
    return [t for t in run.done if t.parent == -1]


def bred(run: Run) -> list[Trial]:
    """The trials with a result that were made by mutating a parent."""
    return [] if run.rungs else [t for t in run.done if t.parent is not None and t.parent >= 0]


def curve(run: Run, line: Line, number: int) -> str:
    """The metric trial by trial, coloured by phase, with its moving average; "" where there are not both phases."""
    groups = {RANDOM: initial(run), BRED: bred(run)}
    if not all(groups.values()):
        return ""
    metric, names = run.metric, list(groups)
    most = charts.MOST_POINTS // 2
    dots = [
        searching.point(line, number, t, x=t.order, y=metric.value(t.fitness or 0.0), phase=name)
        for name, trials in groups.items()
        for t in charts.thin(trials, most)
    ]
    averages = ema([metric.value(t.fitness or 0.0) for t in run.done])
    track = [{"x": t.order, "y": y} for t, y in zip(run.done, averages, strict=True)]
    places = {"x": charts.axis("x", "trials completed", whole=True, end="x"), "y": charts.axis("y", metric.axis)}
    begin = min(t.order for t in groups[BRED]) - 0.5
    hovered = charts.hover(("x", "trials completed", ",d"), ("y", f"moving average ({EMA_DECAY})", metric.format))
    coloured = charts.colours(names, (_DRAWN, line.colour), "phase")
    marks = [
        charts.layer("rule", [{"x": begin}], {"x": places["x"]}, color=charts.FAILED, strokeDash=[5, 4]),
        charts.layer(
            "circle", dots, places | {"color": coloured, "tooltip": searching.told([line])}, **searching.POINT
        ),
        charts.layer("line", charts.thin(track), places | {"tooltip": hovered}, color="#16191d", strokeWidth=2.4),
        *_known(run, places["y"]),
    ]
    spreads = [
        f"{name}: mean {metric.plain(statistics.fmean(values))}, standard deviation {metric.plain(_spread(values))}"
        for name, trials in groups.items()
        if (values := [metric.sign * (t.fitness or 0.0) for t in trials])
    ]
    caption = (
        "Gray points are random individuals, coloured ones mutated; the dashed line is where the first mutated one "
        f"came back. The curve is the exponential moving average e(n) = {EMA_DECAY} e(n−1) + {1 - EMA_DECAY:.2f} x(n) "
        f"from the first value, not corrected. {searching.sentence('; '.join(spreads))}."
    )
    if known := published(run):
        told = "; ".join(f"{row['model']}: {metric.plain(row[f'test_{metric.name}'])}" for row in known)
        caption += f" Dotted: published figures of {told} ({known[0].get('source')}; {known[0].get('unlike')})."
    if ours := retrained(run):
        told = "; ".join(f"{row['name']}: {metric.plain(row[f'test_{metric.name}'])}" for row in ours)
        caption += f" Dashed across: {told}, trained and tested in this workdir."
    title = f"{searching.sentence(metric.title)} in the random and the evolution phase"
    return figure(title, charts.chart(marks, caption), caption)


def published(run: Run) -> list[dict[str, Any]]:
    """What the source reports of its best and its baselines, as config.json has it, in the run's metric."""
    rows = run.config.get("compared")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [row for row in rows if "model" in row and number(row.get(f"test_{run.metric.name}")) is not None]


def retrained(run: Run) -> list[dict[str, Any]]:
    """The tested networks of the workdir that have a name, such as a baseline."""
    return [row for row in run.baselines if number(row.get(f"test_{run.metric.name}")) is not None]


def _known(run: Run, y: dict[str, Any]) -> list[dict[str, Any]]:
    """A line across for each: dotted what is published, dashed what was trained here."""
    metric, key = run.metric, f"test_{run.metric.name}"
    hovered = {"tooltip": charts.hover(("model",), ("y", metric.title, metric.format))}
    marks = []
    for found, name, dash in ((published(run), "model", [2, 3]), (retrained(run), "name", [8, 3])):
        rows = [{"y": metric.value(metric.sign * row[key]), "model": row[name]} for row in found]
        if rows:
            marks.append(charts.layer("rule", rows, {"y": y} | hovered, color="#16191d", strokeDash=dash))
    return marks


def _spread(values: Sequence[float]) -> float:
    return statistics.pstdev(values)


def sizes(run: Run, line: Line, number: int) -> str:
    """Parameters against the metric of random individuals only; "" without mutants, or with fewer than three points."""
    trials = [t for t in initial(run) if t.params and t.params > 0]
    if len(trials) < 3 or not bred(run):
        return ""
    metric = run.metric
    pairs = [(float(t.params or 0), metric.value(t.fitness or 0.0)) for t in trials]
    dots = [
        searching.point(line, number, t, y=metric.value(t.fitness or 0.0))
        for t in charts.thin(trials, charts.MOST_POINTS)
    ]
    across: dict[str, Any] = {"x": charts.axis("params", "parameters (logarithmic)", log=True)}
    across |= {"y": charts.axis("y", metric.axis), "tooltip": searching.told([line])}
    marks = [charts.layer("circle", dots, across, color=_DRAWN, **searching.POINT)]
    caption = (
        f"A point is a random individual; {metric.better}. Mutated ones are left out: they are larger because "
        f"mutations add more than they remove, and the bad ones have no children. {correlation.told(pairs)}"
    )
    return figure(f"Size and {metric.title}, random individuals only", charts.chart(marks, caption), caption)
