"""One-shot runs beside each other: each phase's cost, the supernet's training, the quality of its ranking."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from nasjax.report import charts, correlation, one_shot, ranking, training
from nasjax.report.elements import figure, section, table
from nasjax.report.grouping import Line
from nasjax.report.runs import Run

_BAR = 34  # pixels per run


def overview(runs: Sequence[Run], labels: Sequence[str], lines: Sequence[Line]) -> str:
    """The section that sets all one-shot runs beside each other; "" where there is none."""
    chosen = [(run, label) for run, label in zip(runs, labels, strict=True) if run.one_shot]
    if not chosen:
        return ""
    trained = {n: run.supernet for n, run in enumerate(runs) if run.one_shot}
    heads = ["run", "phase", "wall-clock (s)#", "share (%)#", "state"]
    rows = [
        [
            escape(label),
            phase.name,
            "–" if phase.seconds is None else f"{phase.seconds:,.1f}",
            "–" if phase.seconds is None else f"{100 * phase.seconds / (run.spent_s or 1.0):.1f}",
            phase.state,
        ]
        for run, label in chosen
        for phase in run.phases
    ]
    tables = f"<p></p>{table('Cost per phase', heads, rows)}"
    tables += f"<p></p>{_rankings(chosen)}" if len(chosen) > 1 else ""
    cards = [_costs(chosen), *training.figures(lines, trained)]
    return section("Phases", cards, after=tables)


def _costs(chosen: Sequence[tuple[Run, str]]) -> str:
    """One bar per run, made of its phases."""
    names = [phase.name for phase in chosen[0][0].phases]
    rows = [
        {"run": label, "phase": phase.name, "order": n, "s": phase.seconds or 0.0, "state": phase.state}
        for run, label in chosen
        for n, phase in enumerate(run.phases)
    ]
    alt = "; ".join(f"{row['run']}: {row['phase']} {row['s']:,.1f} s ({row['state']})" for row in rows)
    bare = {"title": None, "ticks": False, "domain": False}
    encoding: dict[str, Any] = {
        "x": charts.axis("s", "wall-clock time (s)", zero=True) | {"stack": "zero"},
        "y": {"field": "run", "type": "nominal", "sort": None, "axis": bare},
        "color": charts.colours(names, charts.shades("#3d4550", len(names)), field="phase"),  # no run's
        "order": {"field": "order", "type": "quantitative"},
        "tooltip": charts.hover(("run",), ("phase",), ("s", "wall-clock (s)", ",.1f"), ("state",)),
    }
    encoding["x"]["axis"] |= {"grid": True}
    bars = charts.layer("bar", rows, encoding, height=20, stroke="white")
    caption = "Length: wall-clock time (s) per phase, compiling included. A phase without a figure yet counts as 0."
    return figure("Cost per phase", charts.chart([bars], f"{caption} {alt}.", height={"step": _BAR}), caption)


def _rankings(chosen: Sequence[tuple[Run, str]]) -> str:
    """How well each run's score ranks, and the result of retraining its best."""
    rows = []
    for run, label in chosen:
        pairs = one_shot.pairs(run)
        tau = ranking.kendall_tau(pairs)
        tested = run.tested[0].plain(run.tested[1]) if run.tested else "–"
        rows.append([escape(label), str(len(pairs)), correlation.with_interval("kendall", tau, len(pairs)), tested])
    heads = ["run", "paths trained alone#", "Kendall's tau of the score (95 % interval)#", "test result, retrained#"]
    return table("Ranking and result", heads, rows)
