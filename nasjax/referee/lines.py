"""A comparison in words: what the command prints, and how figures are written everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasjax.report.metric import Metric
from nasjax.report.metric import of as metric_of

ONLY = "problem"  # the name of the only one, where it was given none
UNITS = {"trials": "trials", "seconds": "seconds of the table", "multiply-adds": "multiply-adds"}


def metric(problem: dict[str, Any]) -> Metric:
    """What the figures of a problem are."""
    return metric_of({"metric": problem["metric"]})


def step(shown: Metric, value: float | None) -> str:
    """A difference of two fitnesses: of percentages in points."""
    if value is None:
        return "–"
    size = f"{abs(shown.value(value)):.2f}" if shown.unit == "fraction" else f"{abs(value):.4g}"
    return f"{'−' if value < 0 else '+'}{size}"


def number(value: float | None) -> str:
    """A cost."""
    return "–" if value is None else f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"


def budget(told: dict[str, Any]) -> str:
    """The budget of a search in words."""
    return f"{number(told['budget']['limit'])} {UNITS[told['budget']['unit']]}"


def final(shown: Metric, row: dict[str, Any]) -> str:
    """The mean of the finals and its deviation."""
    if "mean" not in row:
        return f"{row['failed']} found nothing"
    return f"{shown.text(row['mean'])} ± {step(shown, row['deviation'])[1:]}"


def over(shown: Metric, row: dict[str, Any]) -> str:
    """The difference to random search, with its interval."""
    if "over_random" not in row:
        return "–"
    told = row["over_random"]
    low, high = told["interval"]
    return f"{step(shown, told['mean'])} ({step(shown, low)} to {step(shown, high)})"


def unopened(problem: dict[str, Any]) -> str:
    """What to say where no test values were named, so that nothing was held back; else ""."""
    columns = problem["facts"].get("columns", {"reward": "", "test": None})
    if columns["reward"] != columns["test"]:
        return ""
    return (
        f"No column of test values was named (--set table.result=COLUMN): what is called test is the reward, "
        f"{columns['test']}."
    )


def lines(record: dict[str, Any], page: Path | None) -> list[str]:
    """What the command prints."""
    told = record["comparison"]
    found = []
    for name, problem in told["problems"].items():
        shown, rows = metric(problem), problem["table"]
        found.append(f"{name}: {told['seeds']} seeds, {budget(told)} each; test {shown.name}, mean ± deviation")
        cells = [["", "test", "over random (95 %)", "rank", "better : equal : worse"]]
        for label, row in sorted(rows.items(), key=lambda pair: pair[1]["rank"]):
            wins = row.get("over_random")
            count = f"{wins['better']} : {wins['equal']} : {wins['worse']}" if wins else ""
            cells.append([label, final(shown, row), over(shown, row), f"{row['rank']:.2f}", count])
        widths = [max(len(line[n]) for line in cells) for n in range(5)]
        found += ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        found += [note] if (note := unopened(problem)) else []
    found.append(f"Seeds {record['beside']['drawn']}; --seed={told['seed']} repeats them.")
    found.append(f"SHA-256 of the comparison: {record['sha256']}")
    return [*found, *([f"Results: {page}, {page.with_suffix('.json')}"] if page else [])]
