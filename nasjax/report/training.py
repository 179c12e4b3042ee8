"""The figures of metrics.jsonl: losses, the metric, and every other number of a searcher or learner that moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple

from nasjax.report import charts, grouping, searching
from nasjax.report.elements import figure
from nasjax.report.grouping import Line
from nasjax.report.metric import Metric, of_key, words
from nasjax.report.runs import number

_HIDDEN = ("trials", "wall_s", "updates", "epoch", "stage")  # places, not results
_SPLITS = {  # of a family such as loss or accuracy: the beginning of its key, and what was measured
    "train_": "training",
    "val_": "validation, batches of the epoch",
    "valid_": "validation, all after the epoch",
}
_KNOWN = {  # title, axis title with its unit, and what to know
    "entropy": ("Entropy of the policy", "entropy (nats per architecture)", "Lower: the policy is more certain."),
    "grad_norm": ("Norm of the policy gradient", "norm of the gradient", "Before clipping."),
    "staleness": ("Staleness of samples", "updates between proposal and use", ""),
    "depth": ("Depth asked for", "layers", ""),
    "tau": ("Order of operator scores", "Kendall's tau from epoch to epoch", "1: the order of operators has settled."),
    "true_result": (
        "True result of the epoch's cell",
        "accuracy in the table (%)",
        "Of the cell that the epoch would derive.",
    ),
    "true_tau": ("Order of cells by their weights", "Kendall's tau with the table", "Over all cells of the space."),
    "true_spearman": ("Order of cells, ranks", "Spearman's rho with the table", "Over all cells of the space."),
    "eigenvalue": (
        "Dominant eigenvalue of the validation loss in the architecture",
        "largest eigenvalue of the Hessian",
        "On one validation batch. Cells tend to get worse once it rises (Zela et al. 2020).",
    ),
    "skips": ("Skip connections", "skip connections in the normal cell", "Of the cell that the epoch would derive."),
}
_SHARES = ("true_result",)  # fractions that are shown in percent

Point = tuple[float, float]


class Track(NamedTuple):
    """One number of metrics.jsonl in a figure."""

    key: str
    label: str
    scale: float = 1.0


def figures(lines: Sequence[Line], rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[str]:
    """One figure per family of numbers.

    Args:
      lines: what is overlaid.
      rows: the lines of a metrics.jsonl by the run's number on the page.
    """
    keys = list(dict.fromkeys(key for found in rows.values() for row in found for key in row))
    keys = [key for key in keys if any(track(found, key) for found in rows.values())]
    found, used = [], set(_HIDDEN)
    families = dict.fromkeys(key.removeprefix(split) for key in keys for split in _SPLITS if key.startswith(split))
    for family in sorted(families, key=lambda name: name != "loss"):
        metric = of_key(family, lines[0].metric) if lines else None
        tracks = [
            Track(split + family, label, 100 if metric is not None and metric.unit == "fraction" else 1)
            for split, label in _SPLITS.items()
            if split + family in keys
        ]
        used |= {item.key for item in tracks}
        units = (
            {run.loss_unit for line in lines for n, run in line.members if rows.get(n)} if family == "loss" else set()
        )
        unit = units.pop() if len(units) == 1 else ""  # losses of several tasks have none in common
        found.append(_figure(*_family(family, tracks, metric, unit), tracks, lines, rows))
    reward = [Track(key, key) for key in ("reward", "baseline") if key in keys]
    used |= {item.key for item in reward}
    if any(len(track(run, item.key)) > 1 for run in rows.values() for item in reward):
        about = "The reward a policy learns from, and the moving average it is compared with."
        found.append(_figure("Reward and baseline", "reward", about, reward, lines, rows))
    for key in keys:
        moves = {value for run in rows.values() for _, value in track(run, key)}
        if key not in used and len(moves) > 1:
            name = words(key)
            title, axis, about = _KNOWN.get(key, (searching.sentence(name), name, ""))
            found.append(_figure(title, axis, about, [Track(key, name, 100 if key in _SHARES else 1)], lines, rows))
    return found


def _family(family: str, tracks: Sequence[Track], metric: Metric | None, unit: str) -> tuple[str, str, str]:
    """Title, axis title and caption of one of the families."""
    name = words(family)
    alone = f"{tracks[0].label.split(',')[0]} " if len({item.label.split(",")[0] for item in tracks}) == 1 else ""
    unit = "%" if metric is not None and metric.unit == "fraction" else unit
    keys = {item.key.removesuffix(family) for item in tracks}
    about = "Training: the mean over the epoch's batches, while the weights change." if "train_" in keys else ""
    if {"val_", "valid_"} <= keys:
        about += (
            " The two validation lines differ: one is the mean over the batches that the architecture's weights were "
            "trained on during the epoch, with the batch's own statistics; the other is measured once at its end, on "
            "all validation data, with the running statistics."
        )
    return searching.sentence(f"{alone}{name}"), f"{alone}{name}" + (f" ({unit})" if unit else ""), about.strip()


def track(rows: Iterable[Mapping[str, Any]], key: str, scale: float = 1.0) -> list[Point]:
    """(epoch or update, value) of one number; lines before the first update are left out."""
    points = []
    for i, row in enumerate(rows, 1):
        at, value = number(row.get("epoch", row.get("updates", i))), number(row.get(key))
        if at and value is not None:
            points.append((at, scale * value))
    return points


def _figure(
    title: str,
    axis: str,
    about: str,
    tracks: Sequence[Track],
    lines: Sequence[Line],
    rows: Mapping[int, Sequence[Mapping[str, Any]]],
) -> str:
    """Lines over epochs or updates; of several numbers each has its dash, of several runs each has its colour."""
    data, bands = [], []
    for line in lines:
        for item in tracks:
            found = grouping.band([track(rows[n], item.key, item.scale) for n, _ in line.members if n in rows])
            told = [row | {"line": line.label, "kind": item.label} for row in charts.thin(found)]
            data += told
            bands += told if sum(bool(rows.get(n)) for n, _ in line.members) > 1 else []
    drawn = [line for line in lines if any(row["line"] == line.label for row in data)]
    told_rows = [row for found in rows.values() for row in found if any(item.key in row for item in tracks)]
    across = "epoch" if any("epoch" in row for row in told_rows) else "updates of the policy"
    counts = all(isinstance(row.get(item.key), (int, NoneType)) for row in told_rows for item in tracks)
    places = {"x": charts.axis("x", across, whole=True, end="x"), "y": charts.axis("y", axis, whole=counts)}
    kinds = [item.label for item in tracks]
    coloured = charts.colours(*searching.palette(drawn))
    if len(drawn) == 1 and len(kinds) > 1:  # the numbers are told apart by shades of the run's colour
        coloured = charts.colours(kinds, charts.shades(drawn[0].colour, len(kinds)), "kind", lines=True)
    dashes = {"domain": kinds, "range": [[1, 0], [6, 3], [2, 3]][: len(kinds)]}
    dash: charts.Row = {"field": "kind", "type": "nominal", "scale": dashes}
    dash["legend"] = charts.legend(kinds, lines=True) if len(kinds) > 1 else None
    named = [("line", "run")] if len(drawn) > 1 else []
    tooltip = charts.hover(*named, ("kind", "what"), ("x", across, ",d"), ("y", axis, ".5~g"))
    encoding = places | {"color": coloured, "strokeDash": dash, "tooltip": tooltip, "detail": {"field": "line"}}
    marks = [charts.layer("line", data, encoding, **charts.line_look(len(data) // max(len(drawn) * len(kinds), 1)))]
    if bands:
        edges = searching.EDGES | {"color": coloured, "detail": {"field": "kind"}}
        marks.insert(0, charts.layer("area", bands, places | edges, opacity=0.2))
    caption = " ".join(filter(None, [about, searching.SEEDS if bands else ""]))
    alt = f"{title}: {axis} over {across}. {caption}"
    return figure(title, charts.chart(marks, alt), caption or f"{searching.sentence(axis)} over {across}.")
