"""Reads the files of a finished or running search: config.json or trials.jsonl must exist, the others need not."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nasjax.report.runs import Run, trial

_FIRST = ("trials.jsonl", "config.json")


def read(folder: Path) -> Run:
    """Reads a workdir.

    Raises:
      ValueError: it is none, or one of its JSON files is damaged.
    """
    folder = Path(folder)
    files = [folder / name for name in (*_FIRST, "supernet/metrics.jsonl")]
    if not begun(folder):
        raise ValueError(f"no trials.jsonl or config.json in {folder}; give a workdir of `--mode=search`")
    names = ("trials.jsonl", "metrics.jsonl", "supernet/metrics.jsonl", "standalone.jsonl", "ledger.jsonl")
    (rows, metrics, supernet, standalone, ledger), unreadable = zip(
        *(_lines(folder / name) for name in names), strict=True
    )
    return Run(
        folder=folder,
        config=_object(files[1]),
        trials=[trial(row, order) for order, row in enumerate(rows, 1)],
        metrics=metrics,
        best_json=_object(folder / "best.json"),
        result=_object(folder / "result.json"),
        supernet=supernet,
        optimum=_object(folder / "optimum.json"),
        truth=_object(folder / "truth.json"),
        standalone=standalone,
        ledger=ledger,
        unreadable=sum(unreadable),
        running=_locked(folder / ".lock"),
        written=max(file.stat().st_mtime for file in files if file.is_file()),
        points=[_object(file) for file in sorted(folder.glob("points/*/result.json"))],
        baselines=[
            result for file in sorted(folder.glob("retrain/*/result.json")) if "name" in (result := _object(file))
        ],
    )


def begun(folder: Path) -> bool:
    """Whether a run has begun in a folder, so that there is something to read."""
    return any((Path(folder) / name).is_file() for name in _FIRST)


def going_on(folders: Iterable[Path]) -> bool:
    """Whether a search or a retraining holds the lock of one of the workdirs."""
    return any(_locked(Path(folder) / ".lock") for folder in folders)


def _locked(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:  # other errors: a file system without locks
            return isinstance(error, BlockingIOError)
    return False


def _object(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: not JSON ({error})") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{file} is damaged: not a JSON object")
    return tree


def _lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a .jsonl file and the number of damaged lines. What follows the last newline is torn: left out."""
    try:
        lines = file.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        lines = []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            rows.append(None)
    whole = [row for row in rows if isinstance(row, dict)]
    return whole, len(rows) - len(whole)
