"""The parts of a report about one run: tiles, networks, tables, what to run next. Each returns trusted HTML."""

from __future__ import annotations

import json
import re
import shlex
from datetime import datetime
from html import escape

from nasjax.report import networks, random_phase, untrained
from nasjax.report.elements import anchor, count, devices, figure, note, plain, section, table
from nasjax.report.grouping import Line
from nasjax.report.metric import Metric, of_key, words
from nasjax.report.retrained import retrained
from nasjax.report.runs import COSTS, Run, Trial, mapping, number, wall
from nasjax.report.searching import sentence
from nasjax.report.strategies import in_words

_EXTREMES = 5  # graphs drawn of either end


def meta(run: Run) -> str:
    """State, seed, preset and the time of the last result."""
    told = [f"{key} {run.config[key]}" for key in ("seed", "preset") if run.config.get(key) is not None]
    told += [in_words(str(run.config["strategy"]))] if run.config.get("strategy") is not None else []
    told.append(f"last result {datetime.fromtimestamp(run.written).astimezone():%Y-%m-%d %H:%M}")
    return f'<span class="state {run.state}">{run.state}</span> {escape(" · ".join(told))}'


def summary(run: Run) -> str:
    """What to know before reading on, and the tiles; what was tested comes before what the search went by."""
    notes, budget = [], run.limit("trials")
    if run.config.get("preset") == "demo" and not run.looked_up:
        notes.append("A demo shows that the machine works, not that the method learns: its budget is far too small.")
    if run.unreadable:
        notes.append(f"{run.unreadable} damaged lines of the workdir's files were left out.")
    if run.why:
        of = f" of {budget:,.0f}" if budget else ""
        notes.append(f"The search ended at {len(run.trials):,}{of} trials: {run.why}.")
    if not run.done:
        notes.append("No trial has finished with a result yet.")
    told = "".join(map(note, notes))
    best, share = run.best, 100 * len(run.failed) / max(len(run.trials), 1)
    trials = f"{len(run.trials):,}"
    asked = "" if not budget else "all that were asked for" if run.had_all else f"of {budget:,.0f}"
    tiles = [
        *_results(run),
        _tile(
            f"best {run.metric.title}",
            run.metric.text(best and best.fitness),
            f"trial {best.id}{best.after}" if best else "",
        ),
        *_size(run),
        _tile("trials", trials, asked),
        _tile("failed", f"{len(run.failed):,}", f"{share:.1f} % of the trials"),
        *_cost(run),
        _tile("hardware", hardware(run), plain(run.config.get("dtype")), "text"),
    ]
    return f'{told}<dl class="tiles">{"".join(tiles)}</dl>'


def _results(run: Run) -> list[str]:
    """What the found network is worth by data, or a table, that the search did not go by."""
    tiles, best = [], run.best
    if run.tested:
        metric, value = run.tested
        samples = number(run.result.get("test_samples"))
        of = f", {samples:,.0f} samples" if samples else ""
        tiles.append(_tile(f"test {words(metric.name)}", metric.plain(value), f"retrained from scratch{of}", "main"))
    if best and best.result is not None:
        shown = run.in_table
        tiles.append(
            _tile(f"{words(shown.name)} in the table", shown.plain(best.result), f"of trial {best.id}", "main")
        )
    return tiles


def _size(run: Run) -> list[str]:
    """Of the network that was retrained, else of the best; none where architectures were looked up."""
    best, params, macs = run.best, number(run.result.get("params")), number(run.result.get("macs"))
    of = "retrained"
    if params is None:
        of, params, macs = "best", best and best.params, best and best.macs
    if params is None and run.looked_up:
        return []
    more = f"{macs:,.0f} multiply-adds" if macs else ""
    return [_tile(f"parameters ({of})", "–" if params is None else f"{params:,.0f}", more)]


def _cost(run: Run) -> list[str]:
    """What the search took; of a search in a table also what it would have taken."""
    cost = f"{run.spent_s:,.1f} s" if run.spent_s < 100 else f"{run.spent_s:,.0f} s"
    if not run.looked_up:
        return [_tile("total cost", cost, _duration(run.spent_s))]
    simulated = ", ".join(filter(None, [_duration(run.spent_s), "by the table, nothing was trained"]))
    took = [_tile("time of the search", f"{seconds:,.1f} s", "wall-clock")] if (seconds := wall(run.metrics)) else []
    return [_tile("simulated cost", cost, simulated), *took]


def hardware(run: Run) -> str:
    """The devices in words."""
    return devices(run.config.get("device")) or "not recorded"


def _tile(name: str, value: str, more: str, css: str = "") -> str:
    css += " long" if len(value) > 9 else ""
    return f'<div><dt>{escape(name)}</dt><dd class="{css}">{escape(value)}<small>{escape(more)}</small></dd></div>'


def details(run: Run, line: Line, page_number: int, rows: int) -> str:
    """Everything below the charts; the table of trials has at most `rows` rows, with ids for links."""
    parts = [
        _truth(run),
        _networks(run),
        retrained(run, line),
        untrained.ranking(run),
        _trials(run, page_number, rows),
        _failures(run),
        _next(run),
    ]
    return "".join([*parts, _config(run)])


def _truth(run: Run) -> str:
    """How the search compares with a table of true results."""
    told = run.truth.get("lines")
    told = told if isinstance(told, list) else []
    return section("Truth", (), "".join(note(line) for line in told if isinstance(line, str)))


def _networks(run: Run) -> str:
    drawn, evolved = [], bool(random_phase.bred(run))
    for what, trial in _extremes(run):
        if trial is not None and trial.arch is not None:
            drawing, caption = networks.draw(trial.arch, run.space)
            numbers = [f"{sentence(run.metric.title)} {run.metric.text(trial.fitness)}{trial.after}"]
            numbers += [f"{trial.params:,} parameters"] if trial.params is not None else []
            if evolved:
                numbers.append("a random individual" if trial.parent == -1 else f"a child of trial {trial.parent}")
            drawn.append(figure(f"{what}: trial {trial.id}", drawing, f"{', '.join(numbers)}. {caption}"))
    return section("Networks", drawn)


def _extremes(run: Run) -> list[tuple[str, Trial | None]]:
    """The best and the worst; of graphs that are logged with indicators the five best and five worst different ones."""
    if run.best is None or not run.best.indicators:
        return [("Best", run.best), ("Worst", run.worst)]
    ranked = sorted(run.comparable, key=lambda t: t.fitness or 0.0, reverse=True)
    different = list({t.hash or str(t.arch): t for t in reversed(ranked)}.values())
    different.sort(key=lambda t: t.fitness or 0.0, reverse=True)
    best = [run.best, *(t for t in different if t is not run.best)][:_EXTREMES]
    worst = different[len(best) :][-_EXTREMES:][::-1]
    groups = {"Best": best, "Worst": worst}
    return [(f"{what} {n}" if n > 1 else what, t) for what, group in groups.items() for n, t in enumerate(group, 1)]


def _trials(run: Run, page_number: int, most: int) -> str:
    if not run.trials:
        return ""
    ranked = sorted(run.trials, key=_place, reverse=True)
    epochs = bool(run.rungs)
    results, in_table = any(t.result is not None for t in run.trials), run.in_table
    sized = any(t.params is not None or t.macs is not None for t in run.trials)
    scores = untrained.names(run)
    metrics = list(dict.fromkeys(name for t in run.trials for name in t.metrics))
    costs = [name for name in COSTS if any(name in t.costs for t in run.trials)]
    rows = [
        [
            str(t.id),
            run.metric.text(t.fitness),
            *(_metric(t, name) for name in metrics),
            *([count(t.fidelity)] if epochs else []),
            *([in_table.plain(t.result)] if results else []),
            *([count(t.params), count(t.macs)] if sized else []),
            *(_figure(t.costs.get(name)) for name in costs),
            *(untrained.cell(t, name) for name in scores),
            "–" if t.cost_s is None else f"{t.cost_s:.2f}",
            escape(t.status),
            f"<code>{escape(' '.join(filter(None, (t.hash[:16], networks.summary(t.arch)))))}</code>",
        ]
        for t in ranked[:most]
    ]
    heads = [
        "id#",
        f"{run.metric.title}#",
        *(f"{words(name)}#" for name in metrics),
        *(["epochs#"] if epochs else []),
        *([f"{words(in_table.name)} in the table#"] if results else []),
    ]
    heads += [*(["parameters#", "multiply-adds#"] if sized else []), *(f"{COSTS[name]}#" for name in costs)]
    heads += [f"{name}#" for name in scores]
    heads += ["cost (s)#", "status", "architecture"]
    told = "The longest trained first, of them the best" if epochs else "Best first"
    told += "; the column heads sort."
    if len(ranked) > most:
        told += f" The best {most:,} of {len(ranked):,} trials; trials.jsonl has all."
    ids = list(dict.fromkeys(anchor(page_number, t.id) for t in ranked[:most]))
    ids = ids if len(ids) == len(rows) else []  # a damaged file holds an id twice: no links
    shown = table("Trials", heads, rows, "sortable tall", ids)
    return f'<section><h2>Trials</h2><p class="hint">{told}</p>{shown}</section>'


def _metric(trial: Trial, name: str) -> str:
    """What a fitness was made of."""
    value, shown = trial.metrics.get(name), of_key(name, Metric(""))
    return _figure(value) if shown is None else shown.plain(value)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _place(trial: Trial) -> tuple[float, float]:
    """Larger is better; failed ones come last."""
    return (-1.0, 0.0) if trial.fitness is None else (trial.fidelity or 0, trial.fitness)


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
    workdir = f"--workdir={shlex.quote(str(run.folder))}"
    own = mapping(run.config.get("config")).get("plugin")  # a digest per file, with commas
    copies = ["plugin.py", *(f"plugin_{n}.py" for n in range(2, 2 + str(own).count(",")))] if own else []
    base = " ".join([run.program, *(f"--plugin={shlex.quote(str(run.folder / copy))}" for copy in copies)])
    commands = []
    if run.state != "finished":
        flags = [
            f"--{key}={shlex.quote(str(run.config[key]))}"
            for key in ("method", "preset", "seed")
            if run.config.get(key) is not None
        ]
        command = run.command or " ".join([base, *flags, workdir])
        commands.append(("resume the search (with the other flags it was started with)", command))
    if run.result:
        commands.append(("write the network for use without nasjax", f"{base} --mode=export {workdir}"))
        command = f"{base} --mode=predict {workdir} --input=FILE_OR_FOLDER"
        commands.append(("apply the network to files of yours", command))
    elif run.best is not None and run.best.params is not None:  # what is looked up in a table has no network to train
        commands.append(("train the best network from scratch and test it once", f"{base} --mode=retrain {workdir}"))
    commands.append(("write this report again", f"{run.program} --mode=report {workdir}"))
    commands.append(("compare with another run", f"{run.program} --mode=report {workdir},OTHER_WORKDIR"))
    listed = "".join(f"<li>{escape(why)}<pre><code>{_unbroken(command)}</code></pre></li>" for why, command in commands)
    return f'<section><h2>What to run next</h2><ul class="commands">{listed}</ul></section>'


def _unbroken(command: str) -> str:
    """A command whose lines break between its arguments; a browser would also break after the dashes of --mode."""
    return " ".join(f"<span>{escape(word)}</span>" for word in command.split(" "))


def _config(run: Run) -> str:
    if not run.config:
        return ""
    text = escape(json.dumps(run.config, indent=1, ensure_ascii=False)[:50_000])
    return f"<section><details><summary>config.json, fully resolved</summary><pre>{text}</pre></details></section>"


def _duration(seconds: float) -> str:
    """Hours and minutes beside seconds, where that helps."""
    if seconds < 120:
        return ""
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
