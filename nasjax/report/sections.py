"""The parts of a report that tell of one run: tiles, networks, tables, what to run next. Each returns trusted HTML."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from nasjax.report import networks
from nasjax.report.figures import figure, fitness_text
from nasjax.report.workdir import Run, Trial, mapping, number


def meta(run: Run) -> str:
    """State, seed, preset and the time of the last result."""
    told = [f"{key} {run.config[key]}" for key in ("seed", "preset", "strategy") if run.config.get(key) is not None]
    told.append(f"last result {datetime.fromtimestamp(run.written).astimezone():%Y-%m-%d %H:%M}")
    return f'<span class="state {run.state}">{run.state}</span> {escape(" · ".join(told))}'


def summary(run: Run, as_percent: bool) -> str:
    """What to know before reading on, and the tiles."""
    notes = []
    if run.config.get("preset") == "demo":
        notes.append("A demo shows that the machine works, not that the method learns: its budget is far too small.")
    if run.unreadable:
        notes.append(f"{run.unreadable} damaged lines of the workdir's files were left out.")
    if not run.done:
        notes.append("No trial has finished with a fitness yet.")
    told = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    best, budget, share = run.best, run.limit("trials"), 100 * len(run.failed) / max(len(run.trials), 1)
    cost = f"{run.spent_s:,.1f} s" if run.spent_s < 100 else f"{run.spent_s:,.0f} s"
    hardware = plain(run.config.get("device")) or "not recorded"
    told_best = f"trial {best.id}" if best else ""
    if best and best.result is not None:
        told_best += f", result {fitness_text(best.result, as_percent)}"
    tiles = [
        _tile("trials", f"{len(run.trials):,}", f"of {budget:,.0f}" if budget else ""),
        _tile("failed", f"{len(run.failed):,}", f"{share:.1f} % of the trials"),
        _tile("best fitness", fitness_text(best and best.fitness, as_percent), told_best),
        _tile("parameters (best)", count(best and best.params), f"{best.macs:,} macs" if best and best.macs else ""),
        _tile("total cost", cost, _duration(run.spent_s)),
        _tile("hardware", hardware, plain(run.config.get("dtype")), "text"),
    ]
    return f'{told}<dl class="tiles">{"".join(tiles)}</dl>'


def _tile(name: str, value: str, more: str, css: str = "") -> str:
    return f'<div><dt>{name}</dt><dd class="{css}">{escape(value)}<small>{escape(more)}</small></dd></div>'


def details(run: Run, as_percent: bool, rows: int) -> str:
    """Everything below the charts; the table of trials has at most `rows` rows."""
    parts = [_networks(run, as_percent), _retrained(run), _trials(run, as_percent, rows), _failures(run), _next(run)]
    return "".join([*parts, _config(run)])


def _networks(run: Run, as_percent: bool) -> str:
    drawn = []
    for what, trial in (("Best", run.best), ("Worst", run.worst)):
        if trial is not None and trial.arch is not None:
            drawing, caption = networks.draw(trial.arch, run.space)
            numbers = [f"Fitness {fitness_text(trial.fitness, as_percent)}"]
            numbers += [f"{trial.params:,} parameters"] if trial.params is not None else []
            drawn.append(figure(f"{what}: trial {trial.id}", drawing, f"{', '.join(numbers)}. {caption}"))
    return f'<section><h2>Networks</h2><div class="cards">{"".join(drawn)}</div></section>' if drawn else ""


def _retrained(run: Run) -> str:
    """result.json as a table, beside it the published figure to compare with."""
    if not run.result:
        return ""
    flat = {key: value for key, value in run.result.items() if not isinstance(value, (dict, list))}
    tables = _values("Retrained from scratch", flat)
    if published := mapping(run.result.get("published")):
        tables += _values("Published, to compare with", published)
    return f'<section><h2>Retrained</h2><div class="cards">{tables}</div></section>'


def _values(title: str, values: Mapping[str, Any]) -> str:
    rows = [[escape(key.replace("_", " ")), escape(_value(key, value))] for key, value in values.items()]
    return f"<div><h3>{escape(title)}</h3>{table(title, ['what', 'value#'], rows)}</div>"


def _trials(run: Run, as_percent: bool, most: int) -> str:
    if not run.trials:
        return ""
    ranked = sorted(run.trials, key=lambda t: float("-inf") if t.fitness is None else t.fitness, reverse=True)
    results = any(t.result is not None for t in run.trials)
    rows = [
        [
            str(t.id),
            fitness_text(t.fitness, as_percent),
            *([fitness_text(t.result, as_percent)] if results else []),
            count(t.params),
            count(t.macs),
            "–" if t.cost_s is None else f"{t.cost_s:.2f}",
            escape(t.status),
            f"<code>{escape(' '.join(filter(None, (t.hash[:16], networks.summary(t.arch)))))}</code>",
        ]
        for t in ranked[:most]
    ]
    heads = [
        "id#",
        "fitness#",
        *(["result#"] if results else []),
        "parameters#",
        "macs#",
        "cost (s)#",
        "status",
        "architecture",
    ]
    note = "Best first; the column heads sort."
    if len(ranked) > most:
        note += f" The best {most:,} of {len(ranked):,} trials; trials.jsonl has all."
    return (
        f'<section><h2>Trials</h2><p class="hint">{note}</p>{table("Trials", heads, rows, "sortable tall")}</section>'
    )


def _failures(run: Run) -> str:
    """Reasons that differ in their numbers only count as one."""
    if not run.failed:
        return ""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for t in run.failed:
        groups.setdefault((t.status, re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", t.error)), []).append(t)
    rows = []
    for (status, _), trials in sorted(groups.items(), key=lambda item: -len(item[1])):
        ids = ", ".join(str(t.id) for t in trials[:8]) + (", …" if len(trials) > 8 else "")
        rows.append([str(len(trials)), escape(status), escape(trials[0].error[:500] or "no reason recorded"), ids])
    heads = ["trials#", "status", "reason (of the first)", "ids"]
    return f"<section><h2>Failures</h2>{table('Failures', heads, rows)}</section>"


def _next(run: Run) -> str:
    """The commands that make sense now."""
    base = "python -m nasjax.launch" + (f" --method={shlex.quote(run.name('method'))}" if run.name("method") else "")
    workdir = f"--workdir={shlex.quote(str(run.folder))}"
    commands = []
    if run.state != "finished":
        again = run.config.get("command")
        flags = [
            f"--{key}={shlex.quote(str(run.config[key]))}"
            for key in ("preset", "seed")
            if run.config.get(key) is not None
        ]
        command = again if isinstance(again, str) else " ".join([base, *flags, workdir])
        commands.append(("go on with the search (with the other flags it was started with)", command))
    if run.best is not None and run.name("space") != "tabular_cell":  # a table has no network to train
        commands.append(("train the best network from scratch and test it once", f"{base} --mode=retrain {workdir}"))
    commands.append(("write this report again", f"{base} --mode=report {workdir}"))
    commands.append(("compare with another run", f"{base} --mode=report {workdir},OTHER_WORKDIR"))
    listed = "".join(f"<li>{escape(why)}<pre><code>{escape(command)}</code></pre></li>" for why, command in commands)
    return f'<section><h2>What to run next</h2><ul class="commands">{listed}</ul></section>'


def _config(run: Run) -> str:
    if not run.config:
        return ""
    text = escape(json.dumps(run.config, indent=1, ensure_ascii=False)[:50_000])
    return f"<section><details><summary>config.json, fully resolved</summary><pre>{text}</pre></details></section>"


def table(label: str, heads: Sequence[str], rows: Iterable[Sequence[str]], css: str = "") -> str:
    """A scrollable table; a head that ends in # is a column of numbers. Cells are trusted HTML."""
    numeric = [head.endswith("#") for head in heads]
    cells = ["<td class=n>" if n else "<td>" for n in numeric]
    top = "".join(
        f'<th scope="col"{" class=n" if n else ""}>{escape(head.rstrip("#"))}</th>'
        for head, n in zip(heads, numeric, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f"{td}{cell}</td>" for td, cell in zip(cells, row, strict=True)) + "</tr>" for row in rows
    )
    wrap = f'class="scroll {css}" tabindex="0" role="region" aria-label="{escape(label)}"'
    return f"<div {wrap}><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def count(value: int | None) -> str:
    """A whole number with separators."""
    return "–" if value is None else f"{value:,}"


def _duration(seconds: float) -> str:
    """Hours and minutes beside seconds, where that helps."""
    if seconds < 120:
        return ""
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"


def plain(value: Any) -> str:
    """Any JSON value on one line."""
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {plain(v)}" for key, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return "" if value is None else str(value)


def _value(key: str, value: Any) -> str:
    """Accuracies and errors between 0 and 1 in percent, whole numbers with separators."""
    found = number(value)
    if found is None:
        return plain(value)[:200] or "–"
    if ("accuracy" in key or "error" in key) and "percent" not in key and 0 <= found <= 1:
        return f"{100 * found:.2f} %"
    return f"{value:,}" if isinstance(value, int) else f"{found:.6g}"
