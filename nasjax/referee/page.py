"""The page of a comparison, from its record."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

from nasjax.referee.lines import ONLY, UNITS, budget, final, metric, number, over, step, unopened
from nasjax.report import charts
from nasjax.report.elements import figure, note, section, swatch, table
from nasjax.report.metric import Metric
from nasjax.report.page import document

_CLAIMS = (
    "A searcher is told rewards and never a test value; the tests were opened once, after the last search.",
    "All seeds come from one number by SHA-256, the same for all searchers, so that results are paired by seed.",
    "Where the rewards of a table have several runs, the referee draws for every seed which run of an architecture is "
    "told. Asking again tells the same.",
    "Proposals from outside see the choices of a table as numbers in an order drawn for every seed, unless the page "
    "says that they saw the names. A program that holds the table can still find out the order by comparing rewards.",
)


def write(path: Path, record: dict[str, Any]) -> Path:
    """Writes the page. Raises ValueError where that fails."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page(record), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def page(record: dict[str, Any]) -> str:
    """The whole document, of what compare.json holds."""
    told = record["comparison"]
    problems = told["problems"]
    labels = list(dict.fromkeys(label for problem in problems.values() for label in problem["entrants"]))
    colours = {label: charts.colour(n) for n, label in enumerate(labels)}
    head = f"{told['seeds']} seeds, {budget(told)} a search; seeds {record['beside']['drawn']}"
    body = _ranks(told, colours) if len(problems) > 1 else ""
    for name, problem in problems.items():
        body += _problem(name, problem, told, colours)
    body += _agreed(told, record)
    seconds = record["beside"]["all_seconds"]
    foot = escape(f"nasjax {record['beside']['environment']['versions'].get('nasjax', '')} · {seconds:,.0f} s in all")
    title = f"{len(labels)} searchers compared"
    return document("comparison", title, f'<p class="meta">{escape(head)}</p>', body, foot)


def _problem(name: str, problem: dict[str, Any], told: dict[str, Any], colours: dict[str, str]) -> str:
    shown = metric(problem)
    curves = problem["curves"]
    cards = [
        _curves(f"{what} {shown.name} of the best so far", curves["cost"], curves[key], told, shown, colours)
        for key, what in (("test", "Test"), ("reward", "Told"))
        if key in curves
    ]
    above, below = _finals(problem, shown, colours), _below(problem, shown, told)
    return section("The problem" if name == ONLY else f"Problem {name}", cards, before=above, after=below)


def _finals(problem: dict[str, Any], shown: Metric, colours: dict[str, str]) -> str:
    rows = []
    for label, row in sorted(problem["table"].items(), key=lambda pair: pair[1]["rank"]):
        wins, ends = row.get("over_random"), row["rank_interval"]
        rows.append([
            f"{swatch(colours[label])} {escape(label)}",
            escape(final(shown, row)),
            escape(over(shown, row)),
            f"{wins['better']} : {wins['equal']} : {wins['worse']}" if wins else "–",
            f"{row['rank']:.2f} ({ends[0]:.2f} to {ends[1]:.2f})",
            f"{row['trials']:,.1f}",
        ])  # fmt: skip
    heads = ["searcher", f"test {shown.name}, mean ± deviation#", "over random (95 %)#", "better : equal : worse#"]
    hint = (
        "Differences are taken within a seed; in brackets the 95 % interval of the bootstrap over seeds. The deviation "
        "is of seeds, not of the mean. Rank 1 is the best of a seed, equal ones share a rank."
    )
    hint = f"{hint} {escape(unopened(problem))}".rstrip()
    return table("Finals", [*heads, "rank#", "trials#"], rows) + f'<p class="hint">{hint}</p>'


def _curves(
    title: str,
    places: list[float],
    curves: dict[str, Any],
    told: dict[str, Any],
    shown: Metric,
    colours: dict[str, str],
) -> str:
    rows = []
    for label, curve in curves.items():
        for x, middle, low, high in zip(places, curve["median"], curve["low"], curve["high"], strict=True):
            if middle is not None:
                ends = (shown.value(low), shown.value(high))
                rows.append({"x": x, "y": shown.value(middle), "low": min(ends), "high": max(ends), "line": label})
    if not rows:
        return ""
    unit = UNITS[told["budget"]["unit"]]
    across = {
        "x": charts.axis("x", f"{unit} spent", end="x"),
        "y": charts.axis("y", f"{shown.name} (%)" if shown.unit == "fraction" else shown.name),
        "color": charts.colours(list(curves), list(colours.values()), lines=True),
    }
    edges = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
    caption = "The line is the median over seeds, the band holds the middle half of them. It begins where all have one."
    marks = [
        charts.layer("area", rows, across | edges, opacity=0.18, interpolate="step-after"),
        charts.layer("line", rows, across | {"tooltip": charts.hover(("line", "searcher"), ("x", unit, ",.6~g"),
                     ("y", shown.name, shown.format))}, interpolate="step-after"),
    ]  # fmt: skip
    return figure(title, charts.chart(marks, f"{title}. {caption}"), caption)


def _below(problem: dict[str, Any], shown: Metric, told: dict[str, Any]) -> str:
    rows = []
    for target, facts in problem["targets"].items():
        for label, cost in facts["cost"].items():
            rows.append([
                escape(target),
                escape(shown.text(facts["reward"])),
                escape(label),
                number(cost["median"]),
                number(cost["in_95_percent"]),
                f"{cost['reached']} of {told['seeds']}",
            ])  # fmt: skip
    heads = ["target", "told#", "searcher", f"median {UNITS[told['budget']['unit']]}#", "in 95 % of seeds#", "reached#"]
    return "<h3>Cost to reach a target</h3>" + table("Cost to reach a target", heads, rows) + _ceiling(problem, shown)


def _ceiling(problem: dict[str, Any], shown: Metric) -> str:
    found = problem["ceiling"]
    lines = []
    if "best" in found:
        lines.append(f"The best test {shown.name} in the table is {shown.text(found['best'])}.")
    if "by_reward" in found:
        lines.append(
            f"The architecture with the best reward has {shown.text(found['by_reward'])}: what a searcher ends "
            "with that finds the best reward."
        )
    if "told" in found:
        lines.append(
            f"Of the best by one run, that run says {shown.text(found['told'])} and its other runs "
            f"{shown.text(found['again'])}: the difference is luck of a training."
        )
    if found.get("deviation") is not None:
        lines.append(
            f"Trained again, an architecture's {shown.name} deviates by {step(shown, found['deviation'])[1:]}; "
            "searchers that end closer together than that differ by less than a training of the same network does."
        )
    return "<h3>The noise of the truth</h3>" + "".join(map(note, lines)) if lines else ""


def _ranks(told: dict[str, Any], colours: dict[str, str]) -> str:
    rows = [
        [f"{swatch(colours[label])} {escape(label)}", f"{rank:.2f}"]
        for label, rank in sorted(told["ranks"].items(), key=lambda pair: pair[1])
    ]
    hint = '<p class="hint">The mean over problems and seeds of the place among all, 1 is the best.</p>'
    return section("Ranks over all problems", [], before=hint + table("Ranks", ["searcher", "mean rank#"], rows))


def _agreed(told: dict[str, Any], record: dict[str, Any]) -> str:
    seen = "Proposals from outside saw the names of the choices." if told["named"] else ""
    claims = "".join(f"<li>{escape(claim)}</li>" for claim in (*_CLAIMS, seen) if claim)
    hashes = f"The comparison's number is {told['seed']}; compare.json has the SHA-256 {record['sha256']}."
    return section("What was agreed", [], before=f"<ul>{claims}</ul>{note(hashes)}")
