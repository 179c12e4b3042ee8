"""The statistical figures of a report. Several runs are overlaid, each in its own colour (css class c0, c1, ...)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import Any

from nasjax.report import svg
from nasjax.report.workdir import Run, Trial, number

EMA_DECAY = 0.95
COLOURS = 6
_MAX_POINTS = 1500  # drawn per run and figure, so that a report of 100,000 trials stays small
_REWARD = ("reward", "baseline")
_METRICS = {  # what the searchers write: axis label with its unit
    "entropy": "entropy of the policy (nats per architecture)",
    "grad_norm": "norm of the policy gradient",
    "staleness": "staleness of a sample (updates)",
    "depth": "depth asked for (layers)",
    "train_loss": "training loss (nats)",
    "train_accuracy": "training accuracy (fraction)",
    "tau": "Kendall's tau of operator scores, epoch to epoch",
}


def figure(title: str, drawing: str, caption: str, keys: Sequence[tuple[str, str]] = ()) -> str:
    """One captioned figure; `keys` are (css classes, label) of the legend, `drawing` is trusted HTML."""
    legend = "".join(f'<li><i class="{css}"></i>{escape(label)}</li>' for css, label in keys)
    legend = f'<ul class="keys">{legend}</ul>' if keys else ""
    return f"<figure><h3>{escape(title)}</h3>{legend}{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def colour(run: int) -> str:
    """The css class of the run of that number."""
    return f"c{run % COLOURS}"


def fitness_text(value: float | None, as_percent: bool) -> str:
    """A fitness for display."""
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if as_percent else f"{value:.6g}"


def is_percent(runs: Iterable[Run]) -> bool:
    """Whether every fitness is a fraction, and so shown in percent."""
    return all(not run.indicator and 0 <= (t.fitness or 0.0) <= 1 for run in runs for t in run.trials)


def ema(values: Sequence[float], decay: float = EMA_DECAY) -> list[float]:
    """Exponential moving average, divided by the sum of its weights so that it starts at the first value."""
    sums = accumulate(values, lambda total, value: decay * total + (1 - decay) * value, initial=0.0)
    return [total / (1 - decay**n) for n, total in enumerate(sums) if n]


def curves(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Fitness against completion order."""
    as_percent = is_percent(runs)
    unit, text = ("fitness (%)", svg.percent) if as_percent else ("fitness", svg.short)
    x = svg.axis("completed trials", [1.0, *(float(len(run.trials)) for run in runs)], text=svg.count)
    y = svg.axis(unit, [t.fitness for run in runs for t in run.done if t.fitness is not None], text=text)
    clouds, lines = [], []
    for c, run in enumerate(runs):
        css = colour(c)
        points = [(float(t.order), t.fitness) for t in run.done if t.fitness is not None]
        lost = thin([(float(t.order), y.low + 0.02 * (y.high - y.low)) for t in run.failed])
        if lost:
            clouds.append(svg.crosses(x, y, lost, "failed"))
        if not points:
            continue
        titles = [f"trial {t.id}: {fitness_text(t.fitness, as_percent)}" for t in run.done]
        clouds.append(svg.dots(x, y, thin(points), thin(titles), f"dots {css}"))
        orders, values = zip(*points, strict=True)
        best = list(zip(orders, accumulate(values, max), strict=True))
        risen = [p for i, p in enumerate(best) if i == 0 or p[1] > best[i - 1][1]]
        lines.append(svg.steps(x, y, [*risen, (float(len(run.trials)), best[-1][1])], f"best {css}"))
        lines.append(svg.line(x, y, thin(list(zip(orders, ema(values), strict=True))), css))
    keys = [("line", f"moving average ({EMA_DECAY})"), ("line best", "best so far"), ("dot", "one trial")]
    keys += [("cross", "failed")] if any(run.failed for run in runs) else []
    keys = [(f"{css} c0" if len(runs) == 1 else css, label) for css, label in keys] + run_keys(labels)
    caption = (
        f"Across: completion order (trials). Up: {unit}; larger is better. The moving average is exponential with "
        f"decay {EMA_DECAY} over the trials that did not fail, bias-corrected."
    )
    return figure("Fitness over the search", svg.chart(x, y, [*clouds, *lines], _alt(caption, runs)), caption, keys)


def sizes(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Parameters against fitness; nothing where networks have no known size (a table)."""
    as_percent = is_percent(runs)
    unit, text = ("fitness (%)", svg.percent) if as_percent else ("fitness", svg.short)
    sized = [[t for t in run.done if t.params and t.params > 0] for run in runs]
    if not any(sized) and any(run.done for run in runs):
        return ""
    x = svg.axis("parameters (count)", [float(t.params or 1) for ts in sized for t in ts], log=True)
    y = svg.axis(unit, [t.fitness for ts in sized for t in ts if t.fitness is not None], text=text)

    def points(trials: list[Trial]) -> list[svg.Point]:
        return [(float(t.params or 1), t.fitness or 0.0) for t in trials]

    marks, rings = [], []
    for c, (run, trials) in enumerate(zip(runs, sized, strict=True)):
        css = colour(c)
        titles = [f"trial {t.id}: {fitness_text(t.fitness, as_percent)}, {t.params:,} parameters" for t in trials]
        marks.append(svg.dots(x, y, thin(points(trials)), thin(titles), f"dots {css}"))
        if run.best in trials:
            i = trials.index(run.best)
            rings.append(svg.dots(x, y, points(trials)[i : i + 1], [f"best: {titles[i]}"], f"ring {css}", 6.5))
    caption = f"Across: parameters (count, logarithmic). Up: {unit}; larger is better. The ring marks the best trial."
    keys = [("dot c0", "one trial"), ("circle c0", "the best")] if len(runs) == 1 else run_keys(labels)
    return figure("Size and fitness", svg.chart(x, y, [*marks, *rings], _alt(caption, runs)), caption, keys)


def costs(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Histogram of the cost of a trial; nothing where no trial cost anything."""
    spent = [[t.cost_s for t in run.trials if t.cost_s is not None] for run in runs]
    every = [cost for costs in spent for cost in costs]
    if every and not any(every):
        return ""  # scores that are looked up cost nothing
    log = bool(every) and min(every) > 0 and max(every) > 30 * min(every)
    x = svg.axis("cost of a trial (s)", every, log=log)
    count = min(24, max(6, math.isqrt(len(every)) * 2))
    bins = [_histogram(x, costs, count) for costs in spent]
    y = svg.axis("trials (count)", [0.0, *(float(n) for b in bins for _, _, n in b)], zero=True, text=svg.count)
    marks = []
    for c, found in enumerate(bins):
        titles = [f"{svg.short(a)} to {svg.short(b)} s: {n} trials" for a, b, n in found]
        marks.append(svg.bars(x, y, found, titles, f"bars {colour(c)}"))
    scale = ", logarithmic" if log else ""
    caption = f"Across: cost of a trial (seconds{scale}), failed ones included. Up: trials in that interval (count)."
    return figure("Cost", svg.chart(x, y, marks, _alt(caption, runs)), caption, run_keys(labels))


def metrics(runs: Sequence[Run], labels: Sequence[str]) -> list[str]:
    """One figure for reward and baseline, one for every other number of the searcher that is not constant."""
    written = list(dict.fromkeys(name for run in runs for row in run.metrics for name in row))
    names = [name for name in [*_METRICS, *written] if any(_track(run, name) for run in runs)]
    reward = [name for name in _REWARD if name in names]
    found = [_lines("Reward and baseline", "reward", reward, runs, labels)] if reward else []
    for name in dict.fromkeys(names):
        values = {value for run in runs for _, value in _track(run, name)}
        if len(values) > 1 and name not in (*_REWARD, "trials", "wall_s", "updates", "epoch", "stage"):
            title, unit = name.replace("_", " ").capitalize(), _METRICS.get(name, name)
            found.append(_lines(title, unit, [name], runs, labels))
    return found


def _track(run: Run, name: str) -> list[svg.Point]:
    """(update, value) of one metric; the lines before the first update say nothing yet."""
    points = []
    for i, row in enumerate(run.metrics, 1):
        at, value = number(row.get("updates", i)), number(row.get(name))
        if at and value is not None:
            points.append((at, value))
    return points


def _lines(title: str, unit: str, names: Sequence[str], runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Lines of `names` over updates; the second name is dashed."""
    tracks: list[tuple[str, list[svg.Point]]] = []
    for c, run in enumerate(runs):
        for style, name in zip(("", "best "), names, strict=False):
            if points := _track(run, name):
                tracks.append((f"{style}{colour(c)}", thin(points)))
    epochs = all("epoch" in row for run in runs for row in run.metrics)
    across = "epochs" if epochs else "updates of the searcher"
    x = svg.axis(across, [at for _, points in tracks for at, _ in points], text=svg.count)
    y = svg.axis(unit, [value for _, points in tracks for _, value in points])
    caption = f"Across: {across} (count). Up: {unit}."
    both = [("line", names[0].replace("_", " ")), ("line best", names[1])] if len(names) > 1 else []
    keys = [(f"{css} c0" if len(runs) == 1 else css, label) for css, label in both] + run_keys(labels)
    drawing = svg.chart(x, y, [svg.line(x, y, points, css) for css, points in tracks], _alt(caption, runs))
    return figure(title, drawing, caption, keys)


def _histogram(x: svg.Axis, values: Sequence[float], count: int) -> list[tuple[float, float, int]]:
    """Bins of equal width on the axis (so of equal ratio on a log axis); empty ones are left out."""
    places = [min(int(x.place(value) * count), count - 1) for value in values]

    def edge(i: int) -> float:
        share = i / count
        return x.low * (x.high / x.low) ** share if x.log else x.low + share * (x.high - x.low)

    return [(edge(i), edge(i + 1), places.count(i)) for i in range(count) if i in places]


def thin(points: list[Any]) -> list[Any]:
    """Every k-th of too many points, and the last."""
    k = -(-len(points) // _MAX_POINTS)
    return points if k <= 1 else [*points[:-1:k], points[-1]]


def run_keys(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Of several runs each that has a label."""
    return [(f"swatch {colour(c)}", label) for c, label in enumerate(labels) if label and len(labels) > 1]


def _alt(caption: str, runs: Sequence[Run]) -> str:
    """The caption and the figures a reader cannot see."""
    as_percent = is_percent(runs)
    told = []
    for run in runs:
        if not run.trials and len(runs) > 1:
            continue
        best = fitness_text(run.best and run.best.fitness, as_percent)
        told.append(f"{len(run.done)} trials with a fitness, {len(run.failed)} failed, best {best}")
    return f"{caption} {'; '.join(told) or 'No trials'}."
