"""Training-free scores of the trials: how they rank them, beside the parameters and multiply-adds."""

from __future__ import annotations

from html import escape

from nasjax.report import correlation
from nasjax.report.elements import table
from nasjax.report.runs import Run, Trial


def names(run: Run) -> list[str]:
    """The scores that any trial has."""
    return list(dict.fromkeys(name for trial in run.trials for name in trial.scores))


def cell(trial: Trial, name: str) -> str:
    """A score in the table of trials."""
    value = trial.scores.get(name)
    return "–" if value is None else f"{value:.5g}"


def ranking(run: Run) -> str:
    """The table of rank correlations; "" where no score was computed."""
    found = names(run)
    if not found:
        return ""
    rows = [[escape(name), *_rho(run, {t.id: t.scores.get(name) for t in run.done})] for name in found]
    for name, title in (("params", "parameters"), ("macs", "multiply-adds")):
        if any(getattr(t, name) is not None for t in run.done):
            rows.append([title, *_rho(run, {t.id: getattr(t, name) for t in run.done})])
    hint = (
        "Known before any training. Spearman's rho is from −1 to 1, in brackets its 95 % interval; a score that ranks "
        "no better than the size of a network tells nothing new. These trials were chosen by a search, so random ones "
        "may be ranked otherwise."
    )
    heads = ["score", f"Spearman's rho with the {run.metric.title}#", "trials#"]
    return f'<section><h2>Scores</h2><p class="hint">{hint}</p>{table("Training-free scores", heads, rows)}</section>'


def _rho(run: Run, values: dict[int, float | None]) -> tuple[str, str]:
    pairs = [(value, t.fitness) for t in run.done if (value := values[t.id]) is not None and t.fitness is not None]
    rho = correlation.spearman(pairs) if len(pairs) > 2 else None
    return correlation.with_interval("spearman", rho, len(pairs)), f"{len(pairs):,}"
