"""Indicators of graphs, logged for every trial: the best beside published networks, and rank correlations."""

from __future__ import annotations

from collections.abc import Iterable

from nasjax.report import correlation, networks, random_phase
from nasjax.report.elements import table
from nasjax.report.runs import Run, Trial


def compared(run: Run) -> str:
    """The table of indicators; "" where trials have none."""
    best = run.best
    if best is None or not best.indicators:
        return ""
    known = networks.references(best.arch)
    groups = {"all trials": run.done}
    if random_phase.bred(run) and random_phase.initial(run):
        groups = {"random individuals": random_phase.initial(run), **groups}
    heads = ["indicator", f"best, trial {best.id}#", *(f"{name}#" for name in known)]
    heads += [f"Spearman's rho with the metric, {name}#" for name in groups]
    rows = [
        [
            name.replace("_", " "),
            _number(best.indicators[name]),
            *(_number(values.get(name)) for values in known.values()),
            *(_rho(run, trials, name) for trials in groups.values()),
        ]
        for name in best.indicators
    ]
    hint = (
        "Down edges are those of an encoder, up edges those of a decoder. Bottlenecks: places in the topological order "
        "that a single edge passes. Elongation: 0 where a force-directed drawing of the graph is round, 1 where it is "
        "a line. Rho is from −1 to 1, in brackets its 95 % interval; positive: larger values go with a better "
        f"{run.metric.title}."
    )
    return (
        f'<h3>Indicators of the graphs</h3><p class="hint">{hint}</p>{table("Indicators of the graphs", heads, rows)}'
    )


def _rho(run: Run, trials: Iterable[Trial], name: str) -> str:
    pairs = [(t.indicators[name], t.fitness) for t in trials if name in t.indicators and t.fitness is not None]
    rho = correlation.spearman(pairs) if len(pairs) > 2 else None
    return correlation.with_interval("spearman", rho, len(pairs))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"
