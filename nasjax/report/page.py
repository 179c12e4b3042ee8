"""The report: one self-contained HTML file from one or several workdirs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path

from nasjax.report import (
    charts,
    grouping,
    histories,
    one_shot,
    parents,
    pareto,
    phases,
    pictures,
    rungs,
    searching,
    sections,
    seeds,
    simulation,
    timeline,
    top_k,
    training,
)
from nasjax.report.elements import count, note, plain, section, swatch, table
from nasjax.report.grouping import Line
from nasjax.report.metric import Metric
from nasjax.report.runs import PROGRAM, Run
from nasjax.report.workdir import read

NAME = "report.html"  # of the page of one run, in its workdir
_LONGEST = 80  # letters in the name of a page of several runs
MAX_ROWS = 1000  # of the trial tables, all runs together
# A browser that opens the page loads nothing and sends nothing.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def write_report(
    workdirs: Sequence[Path], out: Path | None = None, *, reload_s: int | None = None, program: str = PROGRAM
) -> Path:
    """Writes the report of finished or unfinished runs; nothing but their files is read.

    Args:
      workdirs: one folder, or several whose curves are overlaid.
      out: the file to write; by default `report.html` in the workdir, of several as `place` says.
      reload_s: a browser loads the page again after as many seconds; None = never.
      program: what begins the commands of "What to run next".

    Returns:
      The file written.

    Raises:
      ValueError: no workdir given, one is no workdir, its files are damaged, or `out` cannot be written or is the
        report of one of several runs.
      OSError: the disk is full.

    Example:
      >>> write_report([Path("runs/reinforce-conv_chain-digits-s0")])  # doctest: +SKIP
      PosixPath('runs/reinforce-conv_chain-digits-s0/report.html')
    """
    if not workdirs:
        raise ValueError("give at least one workdir")
    runs = [read(Path(folder))._replace(program=program) for folder in workdirs]
    out = Path(out) if out is not None else place(workdirs)
    if len(runs) > 1 and out.resolve() in [(run.folder / NAME).resolve() for run in runs]:
        raise ValueError(f"{out} is the report of one of the runs; name another file for the page of all")
    temporary = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(page(runs, reload_s).encode("utf-8", "replace"))
        os.replace(temporary, out)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # no mistake of the user's, as another place would be
        raise (OSError if full else ValueError)(f"cannot write {out}: {error.strerror or error}") from error
    return out


def place(workdirs: Sequence[Path]) -> Path:
    """Where the report of runs goes: into the workdir of a single one, else beside them, or into the current folder.

    Example: runs/a and runs/b give runs/report-a-b.html. The name of many is shortened and has a digest of all.
    """
    folders = [Path(folder) for folder in workdirs]
    if len(folders) == 1:
        return folders[0] / NAME
    parents = {folder.absolute().parent for folder in folders}
    name = "-".join(folder.resolve().name for folder in folders)
    if len(name) > _LONGEST:
        every = "\n".join(str(folder.resolve()) for folder in folders)
        digest = hashlib.sha256(every.encode()).hexdigest()[:6]
        name = f"{folders[0].resolve().name[:_LONGEST]}-and-{len(folders) - 1}-more-{digest}"
    return (folders[0].parent if len(parents) == 1 else Path()) / f"report-{name}.html"


def page(runs: Sequence[Run], reload_s: int | None = None) -> str:
    """The whole document; see `write_report`."""
    labels = _labels(runs)
    lines = grouping.lines(runs, labels)
    of_run = {n: line for line in lines for n, _ in line.members}
    charts_of_all = phases.overview(runs, labels, lines) + section("The search", _searches(runs, lines))
    charts_of_all += pictures.compared(runs, labels)
    if len(runs) == 1:
        title = _title(runs[0])
        head = f'<p class="meta">{sections.meta(runs[0])}</p>'
        body = sections.summary(runs[0]) + charts_of_all + _told(runs[0], lines[0], 0, MAX_ROWS)
    else:
        title = f"{len(runs)} runs compared"
        head = f'<p class="meta">{escape(", ".join(dict.fromkeys(map(_title, runs))))}</p>'
        body = _comparison(runs, labels, of_run) + charts_of_all
        for n, (run, label) in enumerate(zip(runs, labels, strict=True)):
            body += f'<header class="run"><h2>{escape(label)}</h2><p class="meta">{sections.meta(run)}</p></header>'
            body += sections.summary(run) + _told(run, of_run[n], n, MAX_ROWS // len(runs))
    versions = sorted({plain(run.config.get("versions")) for run in runs} - {""})
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    foot = escape(" · ".join([*versions, f"report written {written}"]))
    return document("search report", title, head, body, foot, reload_s)


def document(kind: str, title: str, head: str, body: str, foot: str, reload_s: int | None = None) -> str:
    """A whole page of the report's look that needs no other file.

    Args:
      kind: of page, in words.
      title: of this one.
      head, body, foot: trusted HTML.
      reload_s: as of `write_report`.
    """
    scripts = [charts.library(), _asset("page.js")] if 'class="chart"' in body else [_asset("page.js")]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"{'' if reload_s is None else _reloads(reload_s)}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: nasjax report</title><style>{_asset('page.css')}</style></head>\n<body><main>"
        f'<header><p class="eyebrow">nasjax {escape(kind)}</p><h1>{escape(title)}</h1>{head}</header>\n'
        f"<noscript>{note('The charts are drawn by JavaScript, which is switched off.')}</noscript>"
        f"{body}\n</main><footer>{foot}</footer>\n"
        "<!-- The charts' library: Vega, Vega-Lite and Vega-Embed, BSD-3-Clause, University of Washington Interactive "
        "Data Lab and contributors. -->\n"
        f'<script type="application/json" id="charts">{charts.embedded(charts.CONFIG)}</script>\n'
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body></html>\n"
    )


def _reloads(seconds: int) -> str:
    return f'<meta http-equiv="refresh" content="{seconds}">'


def _searches(runs: Sequence[Run], lines: Sequence[Line]) -> list[str]:
    """Runs of one metric share the figures of it; what every run has is drawn once."""
    kinds: dict[Metric, list[Line]] = {}
    for line in lines:
        kinds.setdefault(line.metric, []).append(line)
    plots = (searching.progress, timeline.best_so_far, top_k.curves, searching.sizes, searching.truths, pareto.fronts)
    found = [plot(same) for same in kinds.values() for plot in plots]
    return [*found, *training.figures(lines, {n: run.metrics for n, run in enumerate(runs)}), searching.costs(lines)]


def _told(run: Run, line: Line, number: int, rows: int) -> str:
    """Everything about one run below the charts."""
    told = [
        simulation.section(run),
        rungs.section(run, line, number),
        parents.section(run, line, number),
        histories.section(run),
        one_shot.section(run, line, number),
    ]
    return "".join([*told, sections.details(run, line, number, rows)])


def _title(run: Run) -> str:
    names = [run.name(what) for what in ("method", "space", "dataset")]
    return " · ".join(name for name in names if name) or run.folder.resolve().name


def _comparison(runs: Sequence[Run], labels: Sequence[str], lines: Mapping[int, Line]) -> str:
    metrics = {run.metric for run in runs}
    looked_up = any(run.best and run.best.result is not None for run in runs)
    tested = any(run.tested for run in runs)
    sized = not all(run.looked_up for run in runs)

    def in_table(run: Run) -> str:
        return escape(run.in_table.plain(run.best.result)) if run.best else "–"

    rows = []
    for n, (run, label) in enumerate(zip(runs, labels, strict=True)):
        best, which = run.best, f" ({run.metric.title})" if len(metrics) > 1 else ""
        rows.append([
            f"{swatch(lines[n].colour)} {escape(label)}",
            escape(run.state),
            f"{len(run.trials):,}",
            f"{len(run.failed):,}",
            escape(f"{run.metric.text(best and best.fitness)}{which}{best.after if best else ''}"),
            *([in_table(run)] if looked_up else []),
            *([escape(run.tested[0].plain(run.tested[1]) if run.tested else "–")] if tested else []),
            *([count(best and best.params)] if sized else []),
            f"{run.spent_s:,.1f}",
            escape(sections.hardware(run)),
        ])  # fmt: skip
    name = "best" if len(metrics) > 1 else f"best {runs[0].metric.title}"
    heads = ["run", "state", "trials#", "failed#", f"{name}#"]
    heads += [*(["in the table#"] if looked_up else []), *(["test, retrained#"] if tested else [])]
    heads += ["parameters (best)#", "cost (s)#"] if sized else ["simulated cost (s)#"]
    heads.append("hardware")
    return section("The runs", [], before=table("The runs", heads, rows)) + seeds.section(list(lines.values()))


def _labels(runs: Sequence[Run]) -> list[str]:
    """Folder names, or whole paths where two are the same."""
    names = [run.folder.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.folder) for name, run in zip(names, runs, strict=True)]


def _asset(name: str) -> str:
    return resources.files("nasjax.report").joinpath(name).read_text(encoding="utf-8")
