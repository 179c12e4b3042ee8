"""The report: one self-contained HTML file from one or several workdirs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path

from nasjax.report import figures, histories, one_shot, sections
from nasjax.report.workdir import Run, read

MAX_ROWS = 1000  # of the trial tables, all runs together


def write_report(workdirs: Sequence[Path], out: Path | None = None) -> Path:
    """Writes the report of finished or unfinished runs; nothing but their files is read.

    Args:
      workdirs: one folder, or several whose curves are overlaid.
      out: the file to write; `report.html` in the first workdir by default.

    Returns:
      The file written.

    Raises:
      ValueError: no workdir given, one is no workdir, or its files are damaged.

    Example:
      >>> write_report([Path("runs/reinforce-conv_chain-digits-s0")])  # doctest: +SKIP
      PosixPath('runs/reinforce-conv_chain-digits-s0/report.html')
    """
    if not workdirs:
        raise ValueError("give at least one workdir")
    runs = [read(Path(folder)) for folder in workdirs]
    out = Path(out) if out is not None else runs[0].folder / "report.html"
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_bytes(page(runs).encode("utf-8", "replace"))
    os.replace(temporary, out)
    return out


def page(runs: Sequence[Run]) -> str:
    """The whole document."""
    labels = _labels(runs)
    groups = _groups(runs, labels)
    as_percent = [figures.is_percent(groups[run.indicator][0]) for run in runs]
    plots = [plot(*group) for group in groups.values() for plot in (figures.curves, figures.sizes, one_shot.fronts)]
    plots += [*figures.metrics(runs, labels), figures.costs(runs, labels)]
    charts = one_shot.overview(runs, labels)
    charts += f'<section><h2>The search</h2><div class="cards">{"".join(plots)}</div></section>'
    if len(runs) == 1:
        title = _title(runs[0])
        head = f'<p class="meta">{sections.meta(runs[0])}</p>'
        body = sections.summary(runs[0], as_percent[0]) + charts + _told(runs[0], as_percent[0], MAX_ROWS)
    else:
        title = f"{len(runs)} runs compared"
        head = f'<p class="meta">{escape(", ".join(dict.fromkeys(map(_title, runs))))}</p>'
        body = _comparison(runs, labels, as_percent) + charts
        for run, label, percent in zip(runs, labels, as_percent, strict=True):
            body += f'<header class="run"><h2>{escape(label)}</h2><p class="meta">{sections.meta(run)}</p></header>'
            body += sections.summary(run, percent) + _told(run, percent, MAX_ROWS // len(runs))
    versions = sorted({sections.plain(run.config.get("versions")) for run in runs} - {""})
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    foot = escape(" · ".join([*versions, f"report written {written}"]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}: nasjax report</title><style>{_asset('page.css')}</style></head>\n<body><main>"
        f'<header><p class="eyebrow">nasjax search report</p><h1>{escape(title)}</h1>{head}</header>\n'
        f"{body}\n</main><footer>{foot}</footer>\n<script>{_asset('page.js')}</script></body></html>\n"
    )


def _groups(runs: Sequence[Run], labels: Sequence[str]) -> dict[bool, tuple[list[Run], list[str]]]:
    """Runs that can share an axis of fitness: BN scores (True), anything else (False).

    In a group the runs of the other have no trials and no label, so that every run keeps its colour.
    """
    return {
        kind: (
            [run if run.indicator == kind else run._replace(trials=[], best_json={}) for run in runs],
            [label if run.indicator == kind else "" for run, label in zip(runs, labels, strict=True)],
        )
        for kind in dict.fromkeys(run.indicator for run in runs)
    }


def _told(run: Run, as_percent: bool, rows: int) -> str:
    """Everything about one run below the charts."""
    sections_of_families = histories.section(run) + one_shot.section(run, as_percent)
    return sections_of_families + sections.details(run, as_percent, rows)


def _title(run: Run) -> str:
    names = [run.name(what) for what in ("method", "space", "dataset")]
    return " · ".join(name for name in names if name) or run.folder.resolve().name


def _comparison(runs: Sequence[Run], labels: Sequence[str], as_percent: Sequence[bool]) -> str:
    rows = []
    for c, (run, label) in enumerate(zip(runs, labels, strict=True)):
        best = run.best
        rows.append([
            f'<i class="swatch {figures.colour(c)}"></i> {escape(label)}',
            escape(run.state),
            f"{len(run.trials):,}",
            f"{len(run.failed):,}",
            figures.fitness_text(best and best.fitness, as_percent[c]),
            sections.count(best and best.params),
            f"{run.spent_s:,.1f}",
            escape(sections.plain(run.config.get("device")) or "not recorded"),
        ])  # fmt: skip
    heads = ["run", "state", "trials#", "failed#", "best fitness#", "parameters (best)#", "cost (s)#", "hardware"]
    return f"<section><h2>The runs</h2>{sections.table('The runs', heads, rows)}</section>"


def _labels(runs: Sequence[Run]) -> list[str]:
    """Folder names, or whole paths where two are the same."""
    names = [run.folder.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.folder) for name, run in zip(names, runs, strict=True)]


def _asset(name: str) -> str:
    return resources.files("nasjax.report").joinpath(name).read_text(encoding="utf-8")
