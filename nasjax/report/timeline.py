"""A search against wall-clock time: the best so far, and what every worker did."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape
from typing import Any

from nasjax.report import charts, ledger, searching
from nasjax.report.elements import figure, table
from nasjax.report.grouping import Line
from nasjax.report.runs import Run

_BAR, _WORKERS = 22, 100  # pixels a worker, most workers drawn
_COLOURS = dict(zip(ledger.ENDINGS[1:], (charts.FAILED, "#1F2328", "#B4BBC4", "#7D8792"), strict=True))  # no result


def best_so_far(lines: Sequence[Line]) -> str:
    """The best metric against time, a line per run; "" where no run has results at two moments.

    The time of a search whose results were looked up is the one that its table tells; it has a figure of its own.
    """
    groups = {looked_up: [line for line in lines if line.looked_up == looked_up] for looked_up in (False, True)}
    return "".join(_best_so_far(group, simulated) for simulated, group in groups.items() if group)


def _best_so_far(lines: Sequence[Line], simulated: bool) -> str:
    metric, time = lines[0].metric, "simulated time (s)" if simulated else "wall-clock time (s)"
    rows: list[charts.Row] = []
    for line in lines:
        for _, run in line.members:
            steps = _steps(run)
            told = charts.thin(steps) if len(steps) > 1 else []
            rows += [{"x": at, "y": y, "line": line.label, "run": run.folder.name} for at, y in told]
    if not rows:
        return ""
    drawn = [line for line in lines if any(row["line"] == line.label for row in rows)]
    x = charts.axis("x", time, zero=True)
    x["axis"]["format"] = ".3~s" if max(row["x"] for row in rows) >= 1e5 else ",.4~r"
    encoding = {
        "x": x,
        "y": charts.axis("y", metric.axis),
        "color": charts.colours(*searching.palette(drawn)),
        "detail": {"field": "run"},
        "tooltip": charts.hover(("run",), ("x", "seconds", ",.1f"), ("y", f"best {metric.title}", metric.format)),
    }
    marks = [charts.layer("line", rows, encoding, interpolate="step-after")]
    seconds = (
        "the sum of the seconds that the table tells for the architectures looked up so far"
        if simulated
        else "the seconds since the search began (resumed parts added up)"
    )
    caption = f"The best {metric.title} so far, against {seconds}; {metric.better}."
    title = f"Best {metric.title} against {'simulated ' if simulated else ''}time"
    return figure(title, charts.chart(marks, caption), caption)


def _steps(run: Run) -> list[tuple[float, float]]:
    """(seconds, metric) at the first result, where the best rises, and at the last result; told together = once."""
    by_id = {t.id: t for t in run.comparable}
    best, last = None, 0.0
    steps: list[tuple[float, float]] = []
    simulated = zip(itertools.accumulate(t.cost_s or 0.0 for t in run.trials), (t.id for t in run.trials), strict=True)
    for at, i in simulated if run.looked_up else ledger.finished(run.ledger):
        t = by_id.get(i)
        if t is None or t.fitness is None:
            continue
        last = max(last, at)
        if best is None or t.fitness > best:
            best = t.fitness
            steps = [*(step for step in steps if step[0] < last), (last, run.metric.value(best))]
    return [*steps, (last, steps[-1][1])] if steps and last > steps[-1][0] else steps


def workers(run: Run, line: Line) -> str:
    """A row per worker, a bar per attempt; "" where the run has no ledger, or nothing to do but to look results up."""
    found = ledger.attempts(run.ledger, inline=run.inline)
    if not found or run.looked_up:
        return ""
    shares = ledger.utilisation(found, ledger.end(run.ledger))
    called = "this process" if run.inline else "worker {}"
    names = {name: f"{called.format(name)}: {100 * share:.0f} %" for name, share in list(shares.items())[:_WORKERS]}
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
    palette = [line.colour if name == ledger.ENDINGS[0] else _COLOURS[name] for name in endings]
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
        "the worker's first task to the end of the ledger in which it had a task"
    )
    if run.inline:
        caption += ". The search's own process evaluates the candidates, one task after the other, so no task waits."
    else:
        caption += f"; {mean:.1f} % on average over {len(shares)} worker{'s' if len(shares) > 1 else ''}."
    caption += f" {len(drawn):,} of {len(shown):,} attempts are drawn." if len(drawn) < len(shown) else ""
    caption += f" The first {_WORKERS} workers." if len(shares) > _WORKERS else ""
    told = "; ".join(list(names.values())[:20])
    return figure("Workers over time", charts.chart([bars], f"{caption} {told}.", height={"step": _BAR}), caption)


def load(run: Run, line: Line) -> str:
    """Running and waiting tasks against time, and counts of late results and retries; "" where there is no queue."""
    found, steps = ledger.attempts(run.ledger, inline=run.inline), ledger.load(run.ledger)
    if not found or run.inline or run.looked_up:
        return ""
    names = ("at work", "waiting")
    drawn = charts.thin(steps)
    rows = [{"x": at, "y": n, "line": name} for at, *counts in drawn for name, n in zip(names, counts, strict=True)]
    encoding = {
        "x": charts.axis("x", "wall-clock time (s)", zero=True),
        "y": charts.axis("y", "tasks", zero=True, whole=True),
        "color": charts.colours(names, (line.colour, "#7D8792"), lines=True),
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
    found, late = ledger.attempts(run.ledger, inline=run.inline), ledger.staleness(run.ledger)
    if not found:
        return []
    endings = [a.ending for a in found]
    numbers = [(f"attempts: {name}", f"{endings.count(name):,}") for name in ledger.ENDINGS if name in endings]
    numbers.append(("attempts beyond a task's first", f"{len(found) - len({a.task for a in found}):,}"))
    timeouts = sum(t.status == "timeout" for t in run.trials)
    numbers.append(("trials: timed out, lost", f"{timeouts:,}, {sum(t.status == 'lost' for t in run.trials):,}"))
    if not run.inline:
        _, at_work, waiting = ledger.load(run.ledger)[-1]
        numbers.append(("tasks at the ledger's end: at work, waiting", f"{at_work:,}, {waiting:,}"))
    if stale := sum(event.get("event") == "stale" for event in run.ledger):
        numbers.append(("results after their task was told", f"{stale:,}"))
    if late and not run.inline:
        numbers.append(("staleness: mean, most", f"{sum(late) / len(late):.2f}, {max(late):,} results"))
    return numbers


def numbers(run: Run) -> str:
    """`counts` as a table; "" where there were only results, by this process or a table."""
    if run.looked_up or (run.inline and {a.ending for a in ledger.attempts(run.ledger, inline=True)} == {"result"}):
        return ""
    rows = [[escape(name), escape(value)] for name, value in counts(run)]
    hint = "Staleness: results of other tasks that came between the asking of a task and its result."
    told = "<p></p>" if run.inline else f'<p class="hint">{hint}</p>'
    return f"{told}{table('Queue, retries and staleness', ['what', 'number#'], rows)}" if rows else ""
