"""Groups runs into lines: runs that differ only in their seed are drawn as one line with a band."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from nasjax.report import charts
from nasjax.report.metric import Metric
from nasjax.report.runs import Run


class Line(NamedTuple):
    """Runs that share a colour."""

    label: str
    colour: str
    members: list[tuple[int, Run]]  # number on the page, run

    @property
    def runs(self) -> list[Run]:
        """Without their numbers."""
        return [run for _, run in self.members]

    @property
    def looked_up(self) -> bool:
        """Whether the results of its runs came from a table."""
        return self.runs[0].looked_up

    @property
    def metric(self) -> Metric:
        """The metric behind their fitness."""
        return self.runs[0].metric


def lines(runs: Sequence[Run], labels: Sequence[str]) -> list[Line]:
    """The lines of a page, in the order of their first runs."""
    together: dict[str, list[int]] = {}
    for n, run in enumerate(runs):
        together.setdefault(_settings(run) or f"alone {n}", []).append(n)
    names = [_label([labels[n] for n in numbers]) for numbers in together.values()]
    names = [
        name if names.count(name) == 1 else ", ".join(labels[n] for n in numbers)
        for name, numbers in zip(names, together.values(), strict=True)
    ]
    return [
        Line(name, charts.colour(c), [(n, runs[n]) for n in numbers])
        for c, (name, numbers) in enumerate(zip(names, together.values(), strict=True))
    ]


def _settings(run: Run) -> str:
    """The configuration without the seed; "" where the workdir does not have it."""
    inner = run.config.get("config")
    if not isinstance(inner, dict):
        return ""
    settings = {key: value for key, value in inner.items() if key != "seed"}
    names = {name: run.name(name) for name in ("method", "space", "dataset")}
    return json.dumps([names, run.metric, settings], sort_keys=True)


def _label(labels: Sequence[str]) -> str:
    """The common beginning of several folders' names, and their number."""
    if len(labels) == 1:
        return labels[0]
    same = [len(set(letters)) == 1 for letters in zip(*labels, strict=False)]
    common = labels[0][: [*same, False].index(False)].rstrip("0123456789").removesuffix("seed").removesuffix("-s")
    return f"{common.rstrip('-_ .') or labels[0]} ({len(labels)} seeds)"


def band(tracks: Sequence[Sequence[tuple[float, float]]]) -> list[dict[str, float]]:
    """Mean, minimum and maximum at every place that all tracks have.

    Example:
      >>> band([[(1.0, 2.0), (2.0, 5.0)], [(1.0, 4.0)]])
      [{'x': 1.0, 'y': 3.0, 'low': 2.0, 'high': 4.0}]
    """
    found = [dict(track) for track in tracks if track]
    if not found:
        return []
    shared = [x for x in found[0] if all(x in track for track in found)]
    rows = [(x, [track[x] for track in found]) for x in shared]
    return [{"x": x, "y": sum(ys) / len(ys), "low": min(ys), "high": max(ys)} for x, ys in rows]
