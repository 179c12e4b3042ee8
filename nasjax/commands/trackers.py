"""A run's lines in TensorBoard, Weights & Biases, MLflow or trackio: `--log`, and `nasjax.tracker` in a program.

All are optional imports. A tracker's run begins before the search, which tells at once of a server that is not there.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.commands.searching import Record
from nasjax.store import checkpoint

FILE = "trackers.json"  # of a workdir: what a tracker knows the run by, so that a resumed one goes on in it
_AXES = {"trial": "id", "round": "trials", "epoch": "epoch", "retrain": "epoch"}  # kind of a line: its own number


class _Run(NamedTuple):
    """A run of a tracker.

    name: what it is known by, for a resumed search to go on in it; "" where the folder is enough
    log(values, at): takes the numbers of a line, at the line's own number
    close()
    """

    name: str
    log: Callable[[dict[str, float], int], None]
    close: Callable[[], None]


@contextmanager
def tracker(to: str, config: Any, path: str | Path) -> Iterator[Record]:
    """A function for `on_record` that sends every line to a tracker, which is closed at the end.

    Args:
      to: "tensorboard", "wandb", "mlflow" or "trackio"; behind a colon a folder, a PROJECT or ENTITY/PROJECT, the
        address of a server, a project. Without: a folder in the workdir, the project "nasjax", MLflow's own address.
      config: the run's settings, of which the tracker is told the names and the seed.
      path: the workdir. A resumed run goes on in the same run of the tracker.

    Raises ValueError for an unknown tracker, and for one that is not installed.

    Example:
      >>> with nasjax.tracker("tensorboard", config, workdir) as record:
      ...     nasjax.search(config, workdir, on_record=record)
    """
    name, _, target = to.partition(":")
    if name not in _TRACKERS:
        raise ValueError(f"unknown tracker {name!r}; choose from {', '.join(_TRACKERS)}")
    load, package, begin = _TRACKERS[name]
    try:
        module = load()
    except ImportError as error:
        raise ValueError(f"--log={name} needs a package that is not there: pip install {package}") from error
    path = Path(path)
    known = _names(path).get(to)
    run = begin(module, target, config, path, known)

    def record(row: dict[str, Any]) -> None:
        if (
            run.name and run.name != known and _names(path).get(to) != run.name
        ):  # not before, as the search makes the folder
            checkpoint.write_json(path / FILE, {**_names(path), to: run.name})
        run.log(numbers(row), row[_AXES[kind(row)]])

    try:
        yield record
    finally:
        run.close()


def kind(row: dict[str, Any]) -> str:
    """What a line is: a trial, an epoch of shared weights, results told together ("round"), an epoch of retraining."""
    if "epoch" in row:
        return "epoch" if "stage" in row else "retrain"
    return "trial" if "id" in row else "round"


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The plain numbers of a line, named "trial/fitness" and so on; of several objectives "trial/fitness", "fitness2".

    Lists, text, truth values and what is missing are left out.
    """
    plain = dict(row)
    if isinstance(row.get("fitness"), list):
        plain |= {f"fitness{n}" if n > 1 else "fitness": value for n, value in enumerate(row["fitness"], 1)}
    of = kind(row)
    return {
        f"{of}/{name}": value
        for name, value in plain.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _facts(config: Any) -> dict[str, Any]:
    names = {"space": config.space.name, "dataset": config.data.name}
    return {"method": config.method, "preset": config.preset, **names, "seed": config.seed}


def _names(path: Path) -> dict[str, str]:
    """What trackers know the workdir's run by, by `to`."""
    file = path / FILE
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _own(path: Path) -> str:
    """A name that no other workdir has."""
    return f"{path.resolve().name}-{uuid.uuid4().hex[:8]}"


def _tensorboard(module: Any, target: str, config: Any, path: Path, known: str | None) -> _Run:
    """Every start adds a file to the folder, which TensorBoard draws as one run."""
    folder = Path(target) if target else path / "tensorboard"
    writers: list[Any] = []  # made with the first line, as it makes the folder

    def log(values: dict[str, float], at: int) -> None:
        if not writers:
            writers.append(module.SummaryWriter(str(folder)))
        for name, value in values.items():
            writers[0].add_scalar(name, value, at)

    def close() -> None:
        for writer in writers:
            writer.close()

    return _Run("", log, close)


def _wandb(module: Any, target: str, config: Any, path: Path, known: str | None) -> _Run:
    """The kinds of lines count differently, so each has an axis of its own in place of the tracker's step."""
    entity, _, project = target.rpartition("/")
    name = known or _own(path)
    of = {"entity": entity or None, "project": project or "nasjax", "config": _facts(config)}
    run = module.init(id=name, name=name, resume="allow", **of)
    for axis, at in _AXES.items():
        run.define_metric(f"{axis}/*", step_metric=f"{axis}/{at}")
    return _Run(name, lambda values, at: run.log(values), run.finish)


def _mlflow(module: Any, target: str, config: Any, path: Path, known: str | None) -> _Run:
    if target:
        module.set_tracking_uri(target)
    if known is None:
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            module.set_experiment("nasjax")
        run = module.start_run(run_name=path.resolve().name)
        module.log_params(_facts(config))
    else:
        run = module.start_run(run_id=known)

    def close() -> None:
        if (path / "report.html").exists():
            module.log_artifact(str(path / "report.html"))
        module.end_run()

    return _Run(run.info.run_id, lambda values, at: module.log_metrics(values, step=at), close)


def _trackio(module: Any, target: str, config: Any, path: Path, known: str | None) -> _Run:
    name = known or _own(path)
    module.init(project=target or "nasjax", name=name, config=_facts(config), resume="allow")
    return _Run(name, lambda values, at: module.log(values), module.finish)


def _load_tensorboard() -> Any:
    import tensorboardX

    return tensorboardX


def _load_wandb() -> Any:
    import wandb

    return wandb


def _load_mlflow() -> Any:
    import mlflow

    return mlflow


def _load_trackio() -> Any:
    import trackio

    return trackio


# name: how it is imported, what pip calls it, how a run of it begins
_TRACKERS: dict[str, tuple[Callable[[], Any], str, Callable[..., _Run]]] = {
    "tensorboard": (_load_tensorboard, "tensorboardX", _tensorboard),
    "wandb": (_load_wandb, "wandb", _wandb),
    "mlflow": (_load_mlflow, "mlflow", _mlflow),
    "trackio": (_load_trackio, "trackio", _trackio),
}
