"""The lineage of the best trial: its parent, that one's parent, and so on, with what each mutation changed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from nasjax.report import charts, networks, searching
from nasjax.report.elements import anchor, count, figure, table
from nasjax.report.grouping import Line
from nasjax.report.runs import Run, Trial

_ROWS, _DRAWN = 60, 4  # generations in the table, ancestors that are drawn


def ancestors(run: Run, trial: Trial | None) -> list[Trial]:
    """The line of descent of a trial, oldest first, itself last; it ends where a parent is missing. [] = no descent."""
    if run.rungs:  # a parent is the same architecture, trained for shorter
        return []
    by_id = {t.id: t for t in run.trials}
    found: dict[int, Trial] = {}
    while trial is not None and trial.id not in found:  # a damaged file may hold a circle
        found[trial.id] = trial
        trial = None if trial.parent is None or trial.parent < 0 else by_id.get(trial.parent)
    return list(found.values())[::-1]


def figures(run: Run, line: Line, number: int) -> list[str]:
    """A chart over the generations and drawings of a few; [] where the best has no parent."""
    chain = ancestors(run, run.best)
    if len(chain) < 2:
        return []
    return [_chart(run, chain, line, number), *_drawings(run, chain)]


def changes(run: Run) -> str:
    """The table of generations; "" where the best has no parent."""
    chain = ancestors(run, run.best)
    if len(chain) < 2:
        return ""
    heads = ["generation#", "trial#", f"{run.metric.title}#", "parameters#", *(["nodes#", "edges#"] * _counted(chain))]
    heads.append("what changed")
    rows = []
    for n, t in reversed(list(enumerate(chain))):
        before = chain[n - 1] if n else None
        told = "random" if t.parent == -1 else "its parent is not recorded"
        if before is not None:
            told = "; ".join(networks.difference(before.arch, t.arch)) or "nothing"
        cells = [str(n), str(t.id), run.metric.text(t.fitness), count(t.params)]
        cells += [_count(t, before, what) for what in ("nodes", "edges")] if _counted(chain) else []
        rows.append([*cells, escape(told[:400])])
    hint = "The best first, then its parent, back to the random individual that the line began with."
    hint += f" The newest {_ROWS} of {len(rows)} generations." if len(rows) > _ROWS else ""
    shown = table("Lineage of the best", heads, rows[:_ROWS], "tall wrapped")
    return f'<h3>Lineage of the best</h3><p class="hint">{hint}</p>{shown}'


def _counted(chain: Sequence[Trial]) -> bool:
    return all("nodes" in t.indicators and "edges" in t.indicators for t in chain)


def _count(trial: Trial, before: Trial | None, what: str) -> str:
    """12 (+1) where the parent had 11."""
    now = int(trial.indicators[what])
    step = now - int(before.indicators[what]) if before else 0
    return f"{now} ({'+' if step > 0 else '−'}{abs(step)})" if step else str(now)


def _chart(run: Run, chain: Sequence[Trial], line: Line, number: int) -> str:
    metric = run.metric
    rows = [
        searching.point(line, number, t, x=n, y=metric.value(t.fitness), row=anchor(number, t.id))
        for n, t in enumerate(chain)
        if t.fitness is not None
    ]
    across: dict[str, Any] = {
        "x": charts.axis("x", "generation", whole=True, end="x"),
        "y": charts.axis("y", metric.axis),
    }
    across["tooltip"] = searching.told([line])
    look = {"point": {"filled": True, "size": 42}, "cursor": "pointer", "color": line.colour}
    marks = [charts.layer("line", charts.thin(rows), across, **look)]
    first, last = chain[0], chain[-1]
    caption = (
        f"From left to right trial {first.id} ({metric.text(first.fitness)}), its child, and so on to trial {last.id} "
        f"({metric.text(last.fitness)}), the best: {len(chain) - 1} mutations. Each point is the {metric.title} "
        "that was measured once."
    )
    return figure("Lineage of the best", charts.chart(marks, caption), caption)


def _drawings(run: Run, chain: Sequence[Trial]) -> list[str]:
    """Some ancestors, evenly spaced from the first on; the best itself is drawn among the networks."""
    earlier = chain[:-1]
    chosen = sorted({round(i * (len(earlier) - 1) / max(_DRAWN - 1, 1)) for i in range(_DRAWN)})
    found = []
    for n in chosen:
        drawing, caption = networks.draw(earlier[n].arch, run.space)
        told = f"{searching.sentence(run.metric.title)} {run.metric.text(earlier[n].fitness)}. {caption}"
        found.append(figure(f"Ancestor, generation {n}: trial {earlier[n].id}", drawing, told))
    return found
