"""The figures of a search: its metric trial by trial, size against metric, what trials cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from nasjax.report import charts, grouping, networks
from nasjax.report.elements import anchor, figure
from nasjax.report.grouping import Line
from nasjax.report.runs import Run, Trial

EMA_DECAY = 0.95
POINT = {"opacity": 0.5, "size": 42, "cursor": "pointer"}
EDGES: dict[str, Any] = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
SEEDS = (
    "Runs that differ in their seed only are one line, the mean, with a band from the lowest to the highest, as far as "
    "all of them got."
)
_BEST, _MEAN = "best so far", f"moving average ({EMA_DECAY})"


def ema(values: Sequence[float], decay: float = EMA_DECAY) -> list[float]:
    """Exponential moving average, divided by the sum of its weights so that it starts at the first value."""
    sums = accumulate(values, lambda total, value: decay * total + (1 - decay) * value, initial=0.0)
    return [total / (1 - decay**n) for n, total in enumerate(sums) if n]


def point(line: Line, number: int, trial: Trial, **more: Any) -> charts.Row:
    """One trial as a datum: its numbers, and the row that a click leads to."""
    row: charts.Row = {
        "line": line.label,
        "trial": f"{trial.id}" if len(line.members) == 1 else f"{trial.id}, {dict(line.members)[number].folder.name}",
        "shown": line.metric.text(trial.fitness),
        "arch": networks.summary(trial.arch, 90),
        "row": anchor(number, trial.id),
    }
    if trial.params is not None:
        row["params"] = trial.params
    if trial.cost_s is not None:
        row["cost"] = trial.cost_s
    if trial.fidelity is not None:
        row["epochs"] = trial.fidelity
    return row | more


def told(lines: Sequence[Line]) -> list[charts.Row]:
    """What is shown of a trial on hover; the lines share a metric."""
    fields: list[tuple[str, ...]] = [("trial",), ("shown", lines[0].metric.title), ("arch", "architecture")]
    fields += [("epochs", "epochs", ",d")] if _any(lines, "fidelity") else []
    fields += [("params", "parameters", ",d")] if _any(lines, "params") else []
    fields += [("cost", "cost (s)", ".3~g")] if _any(lines, "cost_s") else []
    return charts.hover(*([("line", "run")] if len(lines) > 1 else []), *fields)


def _any(lines: Sequence[Line], name: str) -> bool:
    return any(getattr(t, name) for line in lines for run in line.runs for t in run.trials)


def progress(lines: Sequence[Line]) -> str:
    """The metric against completion order; nothing where no run has two trials to compare."""
    if all(len(run.done) < 2 for line in lines for run in line.runs):
        return ""
    metric = lines[0].metric
    every = [metric.value(t.fitness or 0.0) for line in lines for run in line.runs for t in run.done]
    foot = min(every) - 0.04 * (max(every) - min(every) or 1.0)
    most = charts.MOST_POINTS // sum(len(line.runs) for line in lines)
    dots, crosses, tracks, bands = [], [], [], []
    for line in lines:
        for number, run in line.members:
            shown = charts.thin(run.done, most)
            dots += [point(line, number, t, x=t.order, y=metric.value(t.fitness or 0.0)) for t in shown]
            lost = charts.thin(run.failed, most)
            crosses += [point(line, number, t, x=t.order, y=foot, shown=f"{t.status} {t.error[:80]}") for t in lost]
        for kind, found in ((_BEST, _best), (_MEAN, _mean)):
            band = grouping.band([found(run) for run in line.runs])
            band = charts.thin(_steps(band) if kind == _BEST else band)
            tracks += [{"x": row["x"], "y": row["y"], "line": line.label, "kind": kind} for row in band]
            if kind == _BEST and len(line.runs) > 1:
                bands += [row | {"line": line.label} for row in band]
    places = {"x": charts.axis("x", "trials completed", whole=True, end="x"), "y": charts.axis("y", metric.axis)}
    across: dict[str, Any] = places | {"color": charts.colours(*palette(lines))}
    kinds = [_BEST, _MEAN]
    dash: charts.Row = {"field": "kind", "type": "nominal", "scale": {"domain": kinds, "range": [[1, 0], [5, 4]]}}
    dash["legend"] = charts.legend(kinds, lines=True)
    marks = [charts.layer("area", bands, across | EDGES, opacity=0.2, interpolate="step-after")] if bands else []
    for kind, steps in ((_BEST, "step-after"), (_MEAN, "linear")):
        rows = [row for row in tracks if row["kind"] == kind]
        marks.append(charts.layer("line", rows, across | {"strokeDash": dash}, interpolate=steps))
    if crosses:
        look = {"shape": "cross", "angle": 45, "filled": True, "color": charts.FAILED, "size": 60, "cursor": "pointer"}
        hovered = {"tooltip": charts.hover(("trial",), ("shown", "failed"), ("arch", "architecture"))}
        marks.append(charts.layer("point", crosses, places | hovered, **look))
    marks.append(charts.layer("circle", dots, across | {"tooltip": told(lines)}, **POINT))
    caption = f"A point is a trial; {metric.better}. Hover for its architecture, click for its row in the table."
    caption += " Crosses at the foot: failed trials." if crosses else ""
    caption += f" The moving average is exponential (decay {EMA_DECAY}, bias-corrected), over trials that did not fail."
    caption += " Best and average are of the longest trained trials only." if _any(lines, "fidelity") else ""
    caption += f" {SEEDS} Here the band is around the best so far." if bands else ""
    return figure(f"{sentence(metric.title)} over the search", charts.chart(marks, _alt(caption, lines)), caption)


def _best(run: Run) -> list[tuple[float, float]]:
    """(completion order, metric) of the best so far."""
    best, steps, counted = None, [], {t.id for t in run.comparable}
    for t in run.trials:
        if t.fitness is not None and t.id in counted:
            best = t.fitness if best is None else max(best, t.fitness)
        if best is not None:
            steps.append((float(t.order), run.metric.value(best)))
    return steps


def _steps(band: list[dict[str, float]]) -> list[dict[str, float]]:
    """The first row, those at which something changes, and the last."""
    changes = [a for a, b in zip(band[1:], band, strict=False) if any(a[key] != b[key] for key in ("y", "low", "high"))]
    return [*band[:1], *changes, *band[-1:]] if changes[-1:] != band[-1:] else [*band[:1], *changes]


def _mean(run: Run) -> list[tuple[float, float]]:
    shown = run.comparable
    values = ema([run.metric.value(t.fitness or 0.0) for t in shown])
    return [(float(t.order), value) for t, value in zip(shown, values, strict=True)]


def sizes(lines: Sequence[Line]) -> str:
    """Parameters against the metric; nothing where fewer than two networks have a known size."""
    metric = lines[0].metric
    dots, rings = _points(lines, lambda t: t.params and t.params > 0, lambda t: {"y": metric.value(t.fitness or 0.0)})
    if len({(row["params"], row["y"]) for row in dots}) < 2:
        return ""
    across = {"x": charts.axis("params", "parameters (logarithmic)", log=True), "y": charts.axis("y", metric.axis)}
    caption = f"A point is a trial; {metric.better}. The ring marks the best trial of each run."
    return _scatter(f"Size and {metric.title}", caption, across, lines, dots, rings)


def truths(lines: Sequence[Line]) -> str:
    """The search's metric against the table's final figure; nothing where none is known."""
    metric, known = lines[0].metric, lines[0].runs[0].in_table
    dots, rings = _points(
        lines,
        lambda t: t.result is not None,
        lambda t: {"x": metric.value(t.fitness or 0.0), "y": known.value(known.sign * (t.result or 0.0))},
    )
    if len({(row["x"], row["y"]) for row in dots}) < 2:
        return ""
    in_table = "in the table (%)" if known.unit == "fraction" else "in the table"
    across = {"x": charts.axis("x", metric.axis), "y": charts.axis("y", in_table)}
    caption = (
        f"Across: the {metric.title} that guided the search; up: the final figure of the same architecture in the "
        "table. The ring marks the best trial of each run."
    )
    return _scatter("Search and truth", caption, across, lines, dots, rings)


def _points(
    lines: Sequence[Line], known: Callable[[Trial], Any], place: Callable[[Trial], charts.Row]
) -> tuple[list[charts.Row], list[charts.Row]]:
    """The trials that are known as points, and the best of every run as rings."""
    most = charts.MOST_POINTS // sum(len(line.runs) for line in lines)
    dots: list[charts.Row] = []
    rings: list[charts.Row] = []
    for line in lines:
        for number, run in line.members:
            shown, best = [t for t in run.comparable if known(t)], run.best
            for found, into in ((charts.thin(shown, most), dots), ([t for t in shown if t is best], rings)):
                into += [point(line, number, t, **place(t)) for t in found]
    return dots, rings


def _scatter(
    title: str,
    caption: str,
    across: dict[str, Any],
    lines: Sequence[Line],
    dots: list[charts.Row],
    rings: list[charts.Row],
) -> str:
    across |= {"color": charts.colours(*palette(lines)), "tooltip": told(lines)}
    marks = [
        charts.layer("circle", dots, across, **POINT),
        charts.layer("point", rings, across, size=190, strokeWidth=2.2, filled=False, cursor="pointer"),
    ]
    return figure(title, charts.chart(marks, _alt(caption, lines)), caption)


def costs(lines: Sequence[Line]) -> str:
    """Histogram of the cost of a trial, lines side by side; nothing where all trials cost the same (a table: 0)."""
    spent = [[t.cost_s for run in line.runs for t in run.trials if t.cost_s is not None] for line in lines]
    every = [cost for found in spent for cost in found]
    if len(set(every)) < 2:
        return ""
    log = min(every) > 0 and max(every) > 30 * min(every)
    low, high = min(every), max(every)
    bins = min(24, max(6, math.isqrt(len(every)) * 2))

    def edge(i: float) -> float:
        return low * (high / low) ** (i / bins) if log else low + (high - low) * i / bins

    rows = []
    for n, (line, found) in enumerate(zip(lines, spent, strict=True)):
        for i in range(bins):
            last = i == bins - 1
            inside = sum(edge(i) <= cost and (cost < edge(i + 1) or last) for cost in found)
            if inside:
                shown = f"{edge(i):.4g} to {edge(i + 1):.4g} s"
                rows.append(
                    {
                        "line": line.label,
                        "x": edge(i + n / len(lines)),
                        "x2": edge(i + (n + 1) / len(lines)),
                        "y": inside,
                        "shown": shown,
                    }
                )
    scale = ", logarithmic" if log else ""
    x = charts.axis("x", f"cost of a trial (s{scale})", log=log)
    x["axis"]["format"] = ".3~g"  # 0.02 s, not 20m
    across: dict[str, Any] = {"x": x, "x2": {"field": "x2"}, "color": charts.colours(*palette(lines))}
    across |= {"y": charts.axis("y", "trials", zero=True, whole=True), "y2": {"datum": 0}}
    named: list[tuple[str, ...]] = [("line", "run")] if len(lines) > 1 else []
    across["tooltip"] = charts.hover(*named, ("shown", "cost"), ("y", "trials"))
    bars = charts.layer("rect", rows, across, opacity=0.8, stroke="white")
    caption = "How many trials cost how much, failed ones included."
    return figure("Cost of a trial", charts.chart([bars], _alt(caption, lines)), caption)


def palette(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Names and colours of the lines."""
    return [line.label for line in lines], [line.colour for line in lines]


def sentence(text: str) -> str:
    """With a capital first letter, the rest unchanged."""
    return text[:1].upper() + text[1:]


def _alt(caption: str, lines: Sequence[Line]) -> str:
    """The caption, with the numbers for readers who cannot see the figure."""
    runs = [run for line in lines for run in line.runs]
    found = [
        f"{len(run.done)} trials with a result, {len(run.failed)} failed, best "
        + run.metric.text(run.best and run.best.fitness)
        + (run.best.after if run.best else "")
        for run in runs
    ]
    return f"{caption} {'; '.join(found)}."
