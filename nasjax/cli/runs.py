"""`--mode=runs`: which runs lie in a folder, how far each is, what it found, and the command by which it goes on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.report.runs import Run, mapping, number
from nasjax.report.workdir import read
from nasjax.store import plugin, started

# What a file that somebody wrote by hand, or that was cut off, raises when it is read as a run.
DAMAGE = (ValueError, OSError, TypeError, KeyError, AttributeError, IndexError, RecursionError)
_FILES = ("config.json", "trials.jsonl")


class Row(NamedTuple):
    """One workdir."""

    folder: Path
    what: str  # method, space, data set and seed
    state: str  # "finished", "running", "unfinished" or "damaged"
    done: str  # of what was wanted; of a damaged one, why
    best: str  # with its metric, "" = nothing was found yet
    after: str  # the command that goes on, "" = none


def found(folder: Path) -> list[Path]:
    """The workdirs at, in, or one folder below `folder`, in the order in which a person counts.

    Raises ValueError where there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; --mode=runs lists --workdir=FOLDER, by default runs/")
    if _workdir(folder):
        return [folder]
    inside = [below for path in _folders(folder) for below in ([path] if _workdir(path) else _folders(path))]
    return sorted((path for path in inside if _workdir(path)), key=_counted)


def row(folder: Path) -> Row:
    """What there is to say of a workdir, damaged or not."""
    try:
        run = read(folder)
        inner = mapping(run.config.get("config"))
        table = mapping(inner.get("table")).get("path")  # what is looked up has no data set
        data = table or mapping(inner.get("data")).get("name") or run.name("dataset")
        seed = run.config.get("seed")
        named = [run.name("method"), run.name("space"), str(data), f"seed {seed}" if seed is not None else ""]
        return Row(folder, ", ".join(filter(None, named)), run.state, _done(run), _best(run), _after(run))
    except DAMAGE as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return Row(folder, "", "damaged", " ".join(reason.split())[:200], "", "")


def lines(folder: Path) -> Iterator[str]:
    """The list, as it is printed."""
    paths = found(folder)
    if not paths:
        yield f"no runs in {folder}; a search makes one: {started.own()} --method=NAME"
    for path in paths:
        one = row(path)
        yield f"{path}{'  ' + one.what if one.what else ''}"
        yield f"  {one.state}: {', '.join(filter(None, (one.done, one.best)))}"
        if one.after:
            yield f"  Next: {one.after}"


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _workdir(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _FILES)


def _counted(path: Path) -> list[tuple[int, str]]:
    """A key that puts s2 before s10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _done(run: Run) -> str:
    """How much was done of what was wanted: trials, or epochs of a search network or a supernet."""
    inner = mapping(run.config.get("config"))
    if run.one_shot and not run.trials:
        return _epochs(run.supernet, inner.get("supernet"), "epochs of the supernet")
    if run.metrics and "epoch" in run.metrics[-1]:
        return _epochs(run.metrics, inner.get("search"), "epochs")
    wanted = run.limit("trials")
    failed = f" ({len(run.failed)} failed)" if run.failed else ""
    return f"{len(run.trials):,}{f' of {wanted:,.0f}' if wanted else ''} trials{failed}"


def _epochs(rows: list[dict[str, Any]], settings: Any, what: str) -> str:
    wanted = number(mapping(settings).get("epochs"))
    stage = number(rows[-1].get("stage")) if rows else None
    if stage:
        return f"{len(rows)} {what}, in stage {stage + 1:.0f}"
    return f"{len(rows)}{f' of {wanted:.0f}' if wanted else ''} {what}"


def _best(run: Run) -> str:
    best = []
    if run.best is not None and run.best.fitness is not None:
        best.append(f"best {run.metric.title} {run.metric.text(run.best.fitness)}{run.best.after}")
        if run.best.result is not None:
            best.append(f"its result in the table {run.in_table.plain(run.best.result)}")
    if run.tested is not None:
        metric, value = run.tested
        best.append(f"test {metric.name} after retraining {metric.plain(value)}")
    if _exported(run):
        best.append(f"exported to {run.folder}/export")
    return ", ".join(best)


def _exported(run: Run) -> bool:
    """Whether the network that was trained last is exported."""
    made, of = run.folder / "export" / "model.json", run.folder / "result.json"
    return made.is_file() and of.is_file() and made.stat().st_mtime >= of.stat().st_mtime


def _after(run: Run) -> str:
    """The command that goes on with a run, with its plugin."""
    digest = mapping(run.config.get("config")).get("plugin") or ""
    if run.running:
        return ""
    if run.state != "finished":
        return _resume(run)
    if run.result:
        return plugin.command(run.folder, digest, "report" if _exported(run) else "export")
    trainable = run.best is not None and run.best.params is not None  # what was looked up has no network
    return plugin.command(run.folder, digest, "retrain" if trainable else "report")


def _resume(run: Run) -> str:
    """The command of a search, in its workdir; of one begun in a program, the function."""
    place, command = shlex.quote(str(run.folder)), run.command
    if command is None:
        return f"nasjax.search(config, {str(run.folder)!r}), in the program that began it"
    return command if "--workdir" in command else f"{command} --workdir={place}"


def table(rows: Mapping[str, list[str]], head: list[str]) -> list[str]:
    """Rows under a head, in columns as wide as their widest entry; the last column is not padded."""
    whole = [head, *([name, *cells] for name, cells in rows.items())]
    widths = [max(len(line[n]) for line in whole) for n in range(len(head))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in whole]
