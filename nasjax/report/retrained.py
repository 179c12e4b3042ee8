"""The result of retraining: result.json as tables and curves, beside published figures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from nasjax.report import metric, training
from nasjax.report.elements import devices, figure, plain, section, table
from nasjax.report.grouping import Line
from nasjax.report.metric import words
from nasjax.report.runs import Run, mapping, number

_NAMES = {
    "train": "training samples",
    "dataset": "data set",
    "model": "network",
    "seconds": "seconds of training",
    "unlike": "why not comparable",
}


def retrained(run: Run, line: Line) -> str:
    """The section of a run whose best network was trained anew; "" for any other."""
    if not run.result:
        return ""
    flat = {key: value for key, value in run.result.items() if not isinstance(value, (dict, list)) and key != "sample"}
    cards = [_values(flat, _in_metric(mapping(run.result.get("published")), flat), run)]
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


def _in_metric(published: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Published figures as the run's are: a published error as an accuracy where the run has an accuracy."""
    found = dict(published)
    for key in [key for key in found if key.endswith(("_error", "_error_percent"))]:
        error, other = number(found[key]), key.removesuffix("_percent").removesuffix("error") + "accuracy"
        if error is not None and other in own:
            found[other] = 1 - (error / 100 if key.endswith("_percent") else error)
            del found[key]
    return found


def _values(own: Mapping[str, Any], published: Mapping[str, Any], run: Run) -> str:
    """A row per figure; published ones stand beside those of this run."""
    title = "Retrained from scratch"
    named = [row for row in run.baselines if row.get("name") != own.get("name")]
    others: list[Mapping[str, Any]] = [{key: row[key] for key in own if key in row} for row in named]
    if published:
        own, *others = (_of_data(one, whole) for one, whole in zip((own, *others), (run.result, *named), strict=True))
    keys = list(dict.fromkeys([*own, *published]))
    unit = f" ({run.loss_unit})" if run.loss_unit else ""
    rows = [[escape(_NAMES.get(key, words(key)) + (unit if key.endswith("loss") else ""))] for key in keys]
    for values in (own, *others, published) if published else (own, *others):
        for key, row in zip(keys, rows, strict=True):
            row.append(escape(_value(key, values[key], run)) if key in values else "–")
    heads = ["what", "this run#" if published or others else "value#", *(f"{row['name']}#" for row in named)]
    heads += ["published#"] if published else []
    return f"<div><h3>{title}</h3>{table(title, heads, rows, 'wrapped')}</div>"


def _of_data(values: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the data set's name and size, where the result tells them."""
    data = result.get("dataset")
    return (
        values if not isinstance(data, Mapping) else {**values, "dataset": data.get("name"), "train": data.get("train")}
    )


def _value(key: str, value: Any, run: Run) -> str:
    """Metrics in their unit, whole numbers with separators."""
    if key == "device":
        return devices(value)
    found, shown = number(value), metric.of_key(key, run.metric)
    if found is None:
        return plain(value)[:200] or "–"
    if shown is not None:
        return shown.plain(found)
    return f"{value:,}" if isinstance(value, int) else f"{found:.6g}"
