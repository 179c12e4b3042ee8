"""A search against wall-clock time: the best so far, and what every worker did."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from nasjax.report import charts, ledger, searching
from nasjax.report.elements import figure, table
from nasjax.report.grouping import Line
from nasjax.report.runs import Run

_BAR, _WORKERS = 22, 100  # pixels a worker, most workers drawn
_COLOURS = (charts.PALETTE[2], charts.FAILED, charts.PALETTE[1], "#B4BBC4", charts.PALETTE[5])


def best_so_far(lines: Sequence[Line]) -> str:
    """The best metric against wall-clock time, a line per run; "" where no run has a ledger with two results."""
    metric = lines[0].metric
    rows: list[charts.Row] = []
    for line in lines:
        for _, run in line.members:
            steps = _steps(run)
            told = charts.thin(steps) if len(steps) > 1 else []
            rows += [{"x": at, "y": y, "line": line.label, "run": run.folder.name} for at, y in told]
    if not rows:
        return ""
    drawn = [line for line in lines if any(row["line"] == line.label for row in rows)]
    x = charts.axis("x", "wall-clock time (s)", zero=True)
    x["axis"]["format"] = ".3~s" if max(row["x"] for row in rows) >= 1e5 else ",.4~g"
    encoding = {
        "x": x,
        "y": charts.axis("y", metric.axis),
        "color": charts.colours(*searching.palette(drawn)),
        "detail": {"field": "run"},
        "tooltip": charts.hover(("run",), ("x", "seconds", ",.1f"), ("y", f"best {metric.title}", metric.format)),
    }
    marks = [charts.layer("line", rows, encoding, interpolate="step-after")]
    caption = (
        f"The best {metric.title} so far, against the seconds since the search began (resumed parts added up); "
        f"{metric.better}."
    )
    return figure(f"Best {metric.title} against time", charts.chart(marks, caption), caption)


def _steps(run: Run) -> list[tuple[float, float]]:
    """(seconds, metric) at the first result, where the best rises, and at the last result."""
    by_id = {t.id: t for t in run.done}
    best, steps, last = None, [], 0.0
    for at, i in ledger.finished(run.ledger):
        t = by_id.get(i)
        if t is None or t.fitness is None:
            continue
        last = max(last, at)
        if best is None or t.fitness > best:
            best = t.fitness
            steps.append((last, run.metric.value(best)))
    return [*steps, (last, steps[-1][1])] if steps and last > steps[-1][0] else steps


def workers(run: Run) -> str:
    """A row per worker, a bar per attempt; "" where the run has no ledger."""
    found = ledger.attempts(run.ledger)
    if not found:
        return ""
    shares = ledger.utilisation(found, ledger.end(run.ledger))
    names = {name: f"worker {name}: {100 * share:.0f} %" for name, share in list(shares.items())[:_WORKERS]}
    by_id = {t.id: t for t in run.trials}
    shown = [a for a in found if a.worker in names]
    drawn = charts.thin(shown, charts.MOST_POINTS)
    rows = []
    for a in drawn:
        results = [
            run.metric.text(t.fitness) for i in a.ids if (t := by_id.get(i)) is not None and t.fitness is not None
        ]
        row: charts.Row = {"worker": names[a.worker], "start": a.start, "stop": a.stop, "ending": a.ending}
        row |= {"task": f"{a.task}, attempt {a.attempt}", "s": a.stop - a.start, "shown": ", ".join(results[:4]) or "–"}
        row |= {"trial": ", ".join(map(str, a.ids[:8])) or "–", "error": a.error[:80]}
        rows.append(row)
    endings = [name for name in ledger.ENDINGS if any(a.ending == name for a in shown)]
    palette = [_COLOURS[ledger.ENDINGS.index(name)] for name in endings]
    bare = {"title": None, "ticks": False, "domain": False, "labelLimit": 220}
    fields: list[tuple[str, ...]] = [("task",), ("trial", "trials"), ("ending", "ended"), ("shown", run.metric.title)]
    fields += [("error",)] if any(row["error"] for row in rows) else []
    encoding: dict[str, Any] = {
        "x": charts.axis("start", "wall-clock time (s)", zero=True),
        "x2": {"field": "stop"},
        "y": {"field": "worker", "type": "nominal", "sort": list(names.values()), "axis": bare},
        "color": charts.colours(endings, palette, "ending"),
        "tooltip": charts.hover(*fields, ("s", "seconds", ",.2f")),
    }
    bars = charts.layer("bar", rows, encoding, height=_BAR - 6, stroke="white", strokeWidth=0.5)
    mean = 100 * sum(shares.values()) / len(shares)
    caption = (
        "A row is a worker, a bar one attempt at a task, coloured by how it ended. Percent: the share of the time from "
        f"the worker's first task to the end of the ledger in which it had a task; {mean:.1f} % on average over "
        f"{len(shares)} worker{'s' if len(shares) > 1 else ''}."
    )
    caption += f" {len(drawn):,} of {len(shown):,} attempts are drawn." if len(drawn) < len(shown) else ""
    caption += f" The first {_WORKERS} workers." if len(shares) > _WORKERS else ""
    told = "; ".join(list(names.values())[:20])
    return figure("Workers over time", charts.chart([bars], f"{caption} {told}.", height={"step": _BAR}), caption)


def load(run: Run) -> str:
    """Running and waiting tasks against time, and counts of late results and retries."""
    found, steps = ledger.attempts(run.ledger), ledger.load(run.ledger)
    if not found:
        return ""
    names = ("at work", "waiting")
    drawn = charts.thin(steps)
    rows = [{"x": at, "y": n, "line": name} for at, *counts in drawn for name, n in zip(names, counts, strict=True)]
    encoding = {
        "x": charts.axis("x", "wall-clock time (s)", zero=True),
        "y": charts.axis("y", "tasks", zero=True, whole=True),
        "color": charts.colours(names, lines=True),
        "tooltip": charts.hover(("line", "tasks"), ("y", "number", ",d"), ("x", "seconds", ",.1f")),
    }
    caption = (
        f"Tasks that workers had, and that waited for one; the queue was at most {max(n for *_, n in steps):,} long."
    )
    told = " ".join([caption, *(f"{name}: {value}." for name, value in counts(run))])
    chart = charts.chart([charts.layer("line", rows, encoding, interpolate="step-after")], told)
    return figure("Queue", chart, caption)


def counts(run: Run) -> list[tuple[str, str]]:
    """Counts of retries and losses, and how late results were; [] where the run has no ledger."""
    found, late = ledger.attempts(run.ledger), ledger.staleness(run.ledger)
    if not found:
        return []
    endings = [a.ending for a in found]
    numbers = [(f"attempts: {name}", f"{endings.count(name):,}") for name in ledger.ENDINGS if name in endings]
    numbers.append(("attempts beyond a task's first", f"{len(found) - len({a.task for a in found}):,}"))
    timeouts = sum(t.status == "timeout" for t in run.trials)
    numbers.append(("trials: timed out, lost", f"{timeouts:,}, {sum(t.status == 'lost' for t in run.trials):,}"))
    _, at_work, waiting = ledger.load(run.ledger)[-1]
    numbers.append(("tasks at the ledger's end: at work, waiting", f"{at_work:,}, {waiting:,}"))
    if stale := sum(event.get("event") == "stale" for event in run.ledger):
        numbers.append(("results after their task was told", f"{stale:,}"))
    if late:
        numbers.append(("staleness: mean, most", f"{sum(late) / len(late):.2f}, {max(late):,} results"))
    return numbers


def numbers(run: Run) -> str:
    """`counts` as a table."""
    rows = [[escape(name), escape(value)] for name, value in counts(run)]
    hint = "Staleness: results of other tasks that came between the asking of a task and its result."
    return (
        f'<p class="hint">{hint}</p>{table("Queue, retries and staleness", ["what", "number#"], rows)}' if rows else ""
    )
