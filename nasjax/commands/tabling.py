"""A table of results from finished searches: your own benchmark, which `--space=from_table` searches."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.commands.configuration import config_of
from nasjax.store import checkpoint, started, workdir
from nasjax.types import Metric

_INACTIVE = "inactive"  # the choice of a site that does not count in an architecture
_RESULTS = ("ok", "failed", "timeout")  # how a trial may end that says something of its architecture


def tabulate(paths: Sequence[Path], out: Path) -> list[str]:
    """Writes a table of all trials of searches in one space.

    The columns are `ops` (N, sites), `op_names`, `site_names`, the metric under its own name, `cost` in seconds, and
    where they are known `params`, `macs` and `result`. An architecture that was tried several times has the means, and
    its runs in a further column NAME_seeds. One that failed has NaN. Of searches that train for several lengths the
    metric is that of the longest, NaN of what was not trained for so long, and `fidelities` names columns of each.

    Args:
      paths: workdirs of searches in the same space, with the same data, training and metric.
      out: the file, FILE.npz; it must not be there yet.

    Returns:
      Lines for the user.

    Raises:
      ValueError: no workdir, other spaces, data, trainings or metrics, no trial, or a wrong file name.
    """
    if out.suffix != ".npz":
        raise ValueError(f"--out={out}: a table is an .npz; write --out={out.with_suffix('.npz')}")
    if out.exists():
        raise ValueError(f"{out} is there already; give another --out, or move it away")
    space, metric, training, trials = None, None, None, list[dict[str, Any]]()
    for path in paths:
        config, record = config_of(path), workdir.read(path)
        told, trained = Metric(**record["metric"]), _training(config, record)
        if space is not None and (space, metric) != (config.space, told):
            raise ValueError(f"{path} and {paths[0]} differ in space or metric; write a table of each")
        if training is not None and (other := [name for name in trained if trained[name] != training[name]]):
            raise ValueError(f"{path} and {paths[0]} differ in {' and '.join(other)}; write a table of each")
        space, metric, training = config.space, told, trained
        rows = _with_spent(checkpoint.read_lines(path / "trials.jsonl"))
        whole = None if getattr(config.table, "path", "") else getattr(config, "recipe", None)
        trials += [
            {**row, "whole": whole and whole.epochs}
            for row in rows
            if row["status"] in _RESULTS and isinstance(row["arch"], dict)
        ]
    if not trials:
        raise ValueError(f"{paths[0]} has no trial that ended with a result; search first")
    if any("fidelity" in row for row in trials):  # what is not said to be shorter is a whole training
        trials = [{**row, "fidelity": row.get("fidelity", row["whole"])} for row in trials]
        if any(row["fidelity"] is None for row in trials):
            raise ValueError("only some of these searches of a table say how long was trained; write a table of each")
    assert space is not None and metric is not None
    columns = _columns(space, metric, trials)
    with out.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]
    count, sites = columns["ops"].shape
    return [
        f"{out}: {count:,} architectures of {len(trials):,} trials, {sites} sites, {metric.name} and seconds.",
        f"Next: {started.own()} --method=random --space=from_table --table={shlex.quote(str(out))}",
    ]


def _training(config: Any, record: dict[str, Any]) -> dict[str, Any]:
    """What the results of different searches must share to be those of one benchmark."""
    data = {name: value for name, value in (record.get("dataset") or {}).items() if name != "path"}
    names = ("recipe", "form", "last_epochs", "inherit", "tradeoff")
    settings = {name: getattr(config, name, None) for name in names}
    weighed = getattr(settings["tradeoff"], "costs", ())
    if "memory" in weighed:
        settings["memory_batch"] = config.memory_batch
    if "latency" in weighed:
        settings["latency"] = record.get("latency")
    return {"data": data, **settings}


def _columns(space: Any, metric: Metric, trials: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of the table."""
    together: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in trials:
        arch = np.asarray(space.decode(row["arch"]))[: len(space.sites)]
        together.setdefault(tuple(arch.tolist()), []).append(row)
    archs = np.array(list(together))
    names, ops = [], archs.copy()
    for s, site in enumerate(space.sites):
        own = _texts(site.choices)
        if (archs[:, s] < 0).any():
            ops[archs[:, s] < 0, s] = len(own)
            own.append(_INACTIVE)
        names.append(own)
    most = max(map(len, names))
    lengths = sorted({row["fidelity"] for row in trials if row.get("fidelity") is not None})
    whole = lengths[-1] if lengths else None
    results = [_results(rows, metric, whole) for rows in together.values()]
    found = {
        "ops": ops.astype(np.int32),
        "op_names": np.array([[*own, *[""] * (most - len(own))] for own in names]),
        "site_names": np.array([site.name for site in space.sites]),
        metric.name: np.array([_mean(values) for values in results]),
        "cost": np.array([_spent(rows, whole) for rows in together.values()]),
        "metric": np.array(metric.name),
        "unit": np.array(metric.unit),
        "smaller_is_better": np.array(metric.sign < 0),
    }
    costs = np.zeros(len(archs))
    for epochs in lengths:
        name, each = f"{metric.name}_{epochs}", [_results(rows, metric, epochs) for rows in together.values()]
        costs = np.fmax(costs, [_spent(rows, epochs) for rows in together.values()])  # of fewer runs it may be less
        found |= {name: np.array([_mean(one) for one in each]), f"cost_{epochs}": costs}
    if lengths:
        found["fidelities"] = np.array([f"{n}:{metric.name}_{n}:cost_{n}" for n in lengths])
    if (runs := max(map(len, results))) > 1:
        found[f"{metric.name}_seeds"] = np.array([[*values, *[np.nan] * (runs - len(values))] for values in results])
    first = [rows[0] for rows in together.values()]
    for name in ("params", "macs", "result"):
        values = [row.get(name) for row in first]
        if name == "result" and any(value is not None for value in values) and metric.unit == "fraction":
            found[name] = np.array([np.nan if value is None else value for value in values])
        elif name != "result" and None not in values:
            found[name] = np.array(values)
    return found


def _texts(choices: Iterable[Any]) -> list[str]:
    """Choices as distinct texts."""
    choices = list(choices)
    if all(isinstance(choice, str) for choice in choices):
        return choices
    return [json.dumps(choice) for choice in choices]


def _with_spent(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials of a search with "spent": their seconds, of one that goes on from another those of that as well."""
    spent: dict[int, float] = {}
    for row in sorted(rows, key=lambda row: int(row["id"])):  # a trial follows the one that it goes on from
        goes_on = row.get("fidelity") is not None
        spent[row["id"]] = row["cost_s"] + (spent.get(row.get("parent", -1), 0.0) if goes_on else 0.0)
    return [{**row, "spent": spent[row["id"]]} for row in rows]


def _results(rows: list[dict[str, Any]], metric: Metric, epochs: int | None) -> list[float]:
    """What an architecture's trials of this length came to; None = there is one length."""
    some = [row for row in rows if row.get("fidelity") == epochs and row["fitness"] is not None]
    return [metric.value(_first(row["fitness"])) for row in some]


def _spent(rows: list[dict[str, Any]], epochs: int | None) -> float:
    """The mean seconds of an architecture's trials of this length; where it has none, of the longest that it has."""
    if epochs is not None:
        longest = max((row["fidelity"] for row in rows if row["fidelity"] <= epochs), default=None)
        rows = [row for row in rows if row["fidelity"] == longest]
    return _mean([row["spent"] for row in rows])


def _first(fitness: Any) -> float:
    return float(fitness[0] if isinstance(fitness, list) else fitness)


def _mean(values: list[float]) -> float:
    """NaN of none; of one itself."""
    return float(np.mean(values)) if values else float("nan")
