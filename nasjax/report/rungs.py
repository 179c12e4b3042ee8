"""A search that trains the promising ones on: how many trials each rung has, and the curves that promotions join."""

from __future__ import annotations

import statistics
from html import escape

from nasjax.report import charts, searching
from nasjax.report.elements import count, figure, table
from nasjax.report.elements import section as section_of
from nasjax.report.grouping import Line
from nasjax.report.runs import Run, Trial, mapping, number

_CHAINS = 200  # architectures whose curves are drawn, those that were promoted first


def section(run: Run, line: Line, page_number: int) -> str:
    """The table of rungs and the curves; "" where all trials are trained for equally long."""
    if not run.rungs:
        return ""
    return section_of("Rungs and promotions", [_curves(run, line, page_number)], before=_rungs(run))


def chains(run: Run) -> list[list[Trial]]:
    """The trials of every architecture, from its first rung on; those that were promoted most often come first."""
    begun: dict[int, list[Trial]] = {}  # the list of its architecture, by trial
    found: list[list[Trial]] = []
    for t in sorted(run.trials, key=lambda t: t.fidelity or 0):
        chain = begun.get(-1 if t.parent is None else t.parent)
        if chain is None:
            found.append(chain := [])
        chain.append(t)
        begun[t.id] = chain
    return sorted(found, key=len, reverse=True)


def added(run: Run) -> dict[int, int]:
    """The epochs that each trial added to the training of its architecture."""
    by_id = {t.id: t for t in run.trials}
    before = {t.id: by_id.get(-1 if t.parent is None else t.parent) for t in run.trials}
    return {t.id: (t.fidelity or 0) - ((p.fidelity or 0) if (p := before[t.id]) else 0) for t in run.trials}


def _rungs(run: Run) -> str:
    samples = number(mapping(run.config.get("dataset")).get("train"))
    epochs, promoted = added(run), {t.parent for t in run.trials}
    rows = []
    for rung in run.rungs:
        trials = [t for t in run.trials if t.fidelity == rung]
        fitness = [t.fitness for t in trials if t.fitness is not None]
        work = [epochs[t.id] * t.macs for t in trials if t.macs is not None]
        rows.append([
            str(rung),
            count(len(trials)),
            count(len(trials) - len(fitness)),
            count(sum(t.id in promoted for t in trials)),
            escape(run.metric.text(max(fitness, default=None))),
            escape(run.metric.text(statistics.median(fitness) if fitness else None)),
            count(sum(epochs[t.id] for t in trials)),
            f"{samples * sum(work):.3g}" if samples and work else "–",
            f"{sum(t.cost_s or 0.0 for t in trials):,.1f}",
        ])  # fmt: skip
    heads = ["epochs#", "trials#", "failed#", "went on#", f"best {run.metric.title}#", "median#"]
    heads += ["epochs trained#", "multiply-adds, forward#", "cost (s)#"]
    hint = (
        "A rung has the trials that are trained for so many epochs in all. A promotion is a trial of its own, which "
        "goes on from the weights of the one below, so it counts the added epochs only. Results of different rungs are "
        "not compared: the best of the search is the best of the longest trained."
    )
    return f'<p class="hint">{hint}</p>{table("Rungs", heads, rows)}'


def _curves(run: Run, line: Line, page_number: int) -> str:
    metric = run.metric
    drawn = [[t for t in chain if t.fitness is not None] for chain in chains(run)[:_CHAINS]]
    rows = [
        searching.point(line, page_number, t, x=t.fidelity, y=metric.value(t.fitness or 0.0), chain=str(chain[0].id))
        for chain in drawn
        for t in chain
    ]
    if not rows:
        return ""
    across = {
        "x": charts.axis("x", "epochs in all (logarithmic)", log=True),
        "y": charts.axis("y", metric.axis),
        "detail": {"field": "chain"},
    }
    across["x"]["axis"] |= {"values": run.rungs, "format": ",d"}
    marks = [
        charts.layer("line", rows, across, color=line.colour, opacity=0.45, strokeWidth=1.4),
        charts.layer(
            "circle", rows, across | {"tooltip": searching.told([line])}, color=line.colour, **searching.POINT
        ),
    ]
    on = sum(len(chain) > 1 for chain in drawn)
    caption = (
        f"A point is a trial; a line joins those of one architecture, which was promoted ({on:,} were). "
        f"{searching.sentence(metric.better)}."
    )
    return figure("Learning curves, joined by promotions", charts.chart(marks, caption), caption)
