"""The result of retraining: result.json as tables and curves, beside published figures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from nasjax.report import metric, training
from nasjax.report.elements import figure, plain, section, table
from nasjax.report.grouping import Line
from nasjax.report.runs import Run, mapping, number


def retrained(run: Run, line: Line) -> str:
    """The section of a run whose best network was trained anew; "" for any other."""
    if not run.result:
        return ""
    flat = {key: value for key, value in run.result.items() if not isinstance(value, (dict, list)) and key != "sample"}
    cards = [_values("Retrained from scratch", flat, run)]
    if published := mapping(run.result.get("published")):
        cards.append(_values("Published, to compare with", published, run))
    if isinstance(text := run.result.get("sample"), str):
        told = f"Text sampled from the retrained network:  {len(text.split())} words drawn token by token, seed 0."
        cards.append(figure("A sample of text", f"<pre>{escape(text)}</pre>", told))
    alone = line._replace(members=[(0, run)], label="retraining")
    return section("Retrained", [*cards, *training.figures([alone], {0: _epochs(run)})])


def _epochs(run: Run) -> list[dict[str, Any]]:
    """result.json's history as one row an epoch."""
    curves = {name: values for name, values in mapping(run.result.get("history")).items() if isinstance(values, list)}
    longest = max(map(len, curves.values()), default=0)
    return [
        {"epoch": i + 1} | {name: values[i] for name, values in curves.items() if i < len(values)}
        for i in range(longest)
    ]


def _values(title: str, values: Mapping[str, Any], run: Run) -> str:
    rows = [[escape(key.replace("_", " ")), escape(_value(key, value, run))] for key, value in values.items()]
    return f"<div><h3>{escape(title)}</h3>{table(title, ['what', 'value#'], rows)}</div>"


def _value(key: str, value: Any, run: Run) -> str:
    """Metrics in their unit, whole numbers with separators."""
    found, shown = number(value), metric.of_key(key, run.metric)
    if found is None:
        return plain(value)[:200] or "–"
    if shown is not None:
        return shown.plain(found)
    return f"{value:,}" if isinstance(value, int) else f"{found:.6g}"
