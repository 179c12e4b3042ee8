"""Several seeds of one method: mean and deviation, and differences to random search on equal seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from typing import NamedTuple

from nasjax.report.elements import section as section_of
from nasjax.report.elements import swatch, table
from nasjax.report.grouping import Line
from nasjax.report.metric import Metric, words
from nasjax.report.runs import Run, number

BASELINE = "random"  # the method that others are compared with
# Quantile 0.975 of Student's t with 1, 2, ... degrees of freedom (any table of it).
_T: tuple[float, ...] = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
_T += (2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)
_Z = 1.959964  # the same of a normal distribution


class Figure(NamedTuple):
    """One result that every run may have."""

    title: str
    metric: Metric
    of: Callable[[Run], float | None]  # in the metric's own unit, not its fitness


def section(lines: Iterable[Line]) -> str:
    """Lines of several seeds in numbers; "" where no line has two runs."""
    lines = list({line.label: line for line in lines}.values())
    if all(len(line.members) < 2 for line in lines):
        return ""
    hint = (
        "Runs that differ in their seed only. The deviation is the sample's (n − 1); it is of seeds, not of the mean. "
        "The interval holds the mean over all seeds with a probability of 95 % (Student's t), if their results are "
        "about normal."
    )
    told = f'<p class="hint">{hint}</p>{_summary(lines)}{_differences(lines)}'
    return section_of("Seeds", [], before=told)


def quantile(degrees: int) -> float:
    """0.975 of Student's t; above 30 by the expansion of Abramowitz & Stegun 26.7.5.

    Example:
      >>> quantile(4), round(quantile(40), 3)
      (2.776, 2.021)
    """
    if degrees <= len(_T):
        return _T[degrees - 1]
    first, second = (_Z**3 + _Z) / 4, (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    return _Z + first / degrees + second / degrees**2


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    far = quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - far, statistics.fmean(values) + far


def paired(line: Line, other: Line, of: Callable[[Run], float | None]) -> list[tuple[int, float]]:
    """(seed, difference) of every seed that both lines have with a result, by seed."""
    ours, theirs = (_by_seed(each, of) for each in (line, other))
    return [(seed, ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def _by_seed(line: Line, of: Callable[[Run], float | None]) -> dict[int, float]:
    found = {_seed(run): of(run) for run in line.runs}
    return {seed: value for seed, value in found.items() if seed is not None and value is not None}


def _seed(run: Run) -> int | None:
    inner = run.config.get("config")
    seed = number(run.config.get("seed", inner.get("seed") if isinstance(inner, Mapping) else None))
    return None if seed is None else int(seed)


def figures(line: Line) -> list[Figure]:
    """What the runs of a line can be compared by: the search's metric, a table's results, the test after retraining."""
    shown = line.metric
    found = [Figure(f"best {shown.title}", shown, lambda run: _plain(_best(line, run), shown))]
    if any(run.best and run.best.result is not None for run in line.runs):
        known = line.runs[0].in_table
        title = f"{words(known.name)} in the table of the best"
        found.append(Figure(title, known, lambda run: run.best.result if run.best else None))
    if tested := [run.tested[0] for run in line.runs if run.tested]:
        found.append(Figure(f"test {words(tested[0].name)}, retrained", tested[0], _tested))
    return found


def _best(line: Line, run: Run) -> float | None:
    """The fitness of a run's best; None where other runs of the line have longer trained ones."""
    longest = max((one.best.fidelity or 0 for one in line.runs if one.best), default=0)
    return run.best.fitness if run.best and (run.best.fidelity or 0) == longest else None


def _plain(fitness: float | None, shown: Metric) -> float | None:
    return None if fitness is None else shown.sign * fitness


def _tested(run: Run) -> float | None:
    return run.tested[1] if run.tested else None


def _summary(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for figure in figures(line):
            values = [value for run in line.runs if (value := figure.of(run)) is not None]
            if not values:
                continue
            show = figure.metric.plain
            rows.append([
                f"{swatch(line.colour)} {escape(line.label)}",
                escape(figure.title),
                str(len(values)),
                escape(show(statistics.fmean(values))),
                escape(_size(figure.metric, statistics.stdev(values)) if len(values) > 1 else "–"),
                escape(f"{show(min(values))} to {show(max(values))}"),
                escape(_ends(values, show)),
            ])  # fmt: skip
    heads = ["runs", "result", "seeds#", "mean#", "deviation#", "lowest to highest#", "95 % interval of the mean#"]
    return table("Seeds", heads, rows)


def _differences(lines: Sequence[Line]) -> str:
    """Every other method minus random search in the same space, on the same data and by the same metric."""
    bases: dict[str, list[Line]] = {}
    for line in lines:
        if line.runs[0].name("method") == BASELINE:
            bases.setdefault(_setting(line), []).append(line)
    rows = []
    for line in lines:
        known = bases.get(_setting(line), [])
        for base in known if line not in known else ():
            name = line.label if len(known) == 1 else f"{line.label}, minus {base.label}"
            rows += [[f"{swatch(line.colour)} {escape(name)}", *row] for row in _minus(line, base)]
    if not rows:
        return ""
    heads = ["runs", "result", "equal seeds", "mean difference#", "deviation#", "95 % interval of the mean#", "better#"]
    hint = (
        f"A run minus the run of {BASELINE} with the same seed; an interval without 0 is a difference that seeds alone "
        "do not explain. What a search went by is compared where both trained their candidates."
    )
    title = f"Differences to {BASELINE}"
    return f'<h3>{title}</h3><p class="hint">{hint}</p>{table(title, heads, rows)}'


def _minus(line: Line, base: Line) -> Iterator[list[str]]:
    """A row per result that both have on equal seeds, without the name of the line."""
    alike = _way(line) == _way(base)
    for figure in figures(line)[not alike :]:  # the first is what the search went by
        found = paired(line, base, figure.of)
        if not found:
            continue
        values = [difference for _, difference in found]
        better = sum(figure.metric.sign * value > 0 for value in values)
        yield [
            escape(f"{figure.title}{_budgets(line, base)}"),
            ", ".join(str(seed) for seed, _ in found[:12]) + (", …" if len(found) > 12 else ""),
            escape(_step(figure.metric, statistics.fmean(values))),
            escape(_size(figure.metric, statistics.stdev(values)) if len(values) > 1 else "–"),
            escape(_ends(values, partial(_step, figure.metric))),
            f"{better} of {len(values)}",
        ]


def _setting(line: Line) -> str:
    run = line.runs[0]
    return json.dumps([run.name("space"), run.config.get("dataset"), run.looked_up, run.metric], sort_keys=True)


def _way(line: Line) -> tuple[bool, bool]:
    """How a search came to its results: with shared weights, by gradients, else by candidates of their own weights."""
    run = line.runs[0]
    return run.one_shot, bool(run.metrics) and "epoch" in run.metrics[-1]


def _budgets(line: Line, base: Line) -> str:
    """The numbers of trials in words, where they differ."""
    ours, theirs = (each.runs[0].limit("trials") for each in (line, base))
    return "" if ours == theirs or not ours or not theirs else f" ({ours:,.0f} trials, {BASELINE} {theirs:,.0f})"


def _ends(values: Sequence[float], show: Callable[[float], str]) -> str:
    ends = interval(values)
    return f"{show(ends[0])} to {show(ends[1])}" if ends else "–"


def _size(shown: Metric, size: float) -> str:
    """A difference of two values of a metric without its sign: of percentages in points."""
    return f"{100 * size:.2f} points" if shown.unit == "fraction" else f"{size:.4g}"


def _step(shown: Metric, value: float) -> str:
    """The same with its sign."""
    return f"{'−' if value < 0 else '+'}{_size(shown, abs(value))}"
