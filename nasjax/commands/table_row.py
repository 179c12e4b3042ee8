"""The last line of a published setting's retraining: the row of the source's table, ours, and why they differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from nasjax.commands.configuration import shipped
from nasjax.settings import as_json, shown
from nasjax.types import Metric

# How a run is carried out and where its data lie, which decides no figure of a retraining or is told otherwise.
_ASIDE = frozenset(
    (
        *("method", "preset", "seed", "plugin", "truth", "truth_percent", "workers", "runtime", "ray", "trial_timeout"),
        *("save_every", "latency"),
        *("wall_s", "cost_s", "strategy", "width", "data.name", "data.data_dir", "data.readers", "data.stream"),
    )
)
_FIRST = ("epochs", "trials", "train_limit")  # what a run is shortened by
_MOST = 8  # changed settings that are written out


def table_row(config: Any, result: dict[str, Any], metric: Metric, unlike: str) -> str:
    """One line for a retrained network: its test figures, the published ones, and why they differ.

    Args:
      config: settings of the run.
      result: what `result.json` holds; its "published" is None where nothing published is comparable.
      metric: of the task.
      unlike: why the two are not comparable, as far as the data tell; "" where they are.
    """
    row, size = result["published"], f"{result['params']:,} parameters"
    loss = row is not None and "test_loss" in row
    ours = f"Row: ours {_figures(result, metric, loss)} with {size}"
    if row is None:
        beside = f"published: nothing for {config.method} on {config.data.name}"
    else:
        of = "" if row["params"] is None else f" with {row['params'] / 1e6:.2f}".rstrip("0").rstrip(".") + "M"
        beside = f"published {_figures(row, metric, loss)}{of} ({row['model']}: {row['source']})"
    reasons = [re.sub("[:,] not comparable$", "", unlike)] if unlike else []
    if different := changed(config):
        more = len(different) - _MOST
        rest = [f"{more} more"] if more > 0 else []
        reasons.append(f"settings and, in brackets, the preset's: {', '.join([*different[:_MOST], *rest])}")
    if not reasons:
        reasons = ["one seed of the preset's settings, of which docs/deviations.md tells what is ours"]
    less = unlike or any(name.split("=")[0].rsplit(".", 1)[-1] in _FIRST for name in different)
    return f"{ours}; {beside}; {'not comparable' if less else 'differs'}: {'; '.join(reasons)}."


def _figures(row: dict[str, Any], metric: Metric, loss: bool) -> str:
    """The test metric of a row, the share among the best five where it has one, and its `loss`.

    Published classifiers have errors.
    """
    name = f"test_{metric.name}"
    value = row[name] if name in row else 1 - row["test_error"]
    five, error = row.get("test_top5_accuracy"), row.get("test_top5_error")
    five = five if error is None else 1 - error
    found = [f"test {metric.name} {metric.shown(value)}"]
    if five is not None:
        found.append(f"{metric.shown(five)} among the best five")
    if loss:
        found.append(f"loss {row['test_loss']:.3f}")
    return ", ".join(found)


def changed(config: Any) -> list[str]:
    """The settings that are not those of the preset, each with the preset's: "trials=4 (12800)"; lengths come first."""
    ours, theirs = (dict(_flat(as_json(tree))) for tree in (config, shipped(config)))
    names = [name for name in ours if ours[name] != theirs.get(name) and not _aside(name)]
    names.sort(key=lambda name: (name.rsplit(".", 1)[-1] not in _FIRST, name))
    return [f"{name}={_text(ours[name])} ({_text(theirs.get(name))})" for name in names]


def _aside(name: str) -> bool:
    return name in _ASIDE or name.split(".")[0] in _ASIDE


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        yield from _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]


def _text(value: Any) -> str:
    """As `--set` reads it, where it is short."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = tuple(value)
    text = shown(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
