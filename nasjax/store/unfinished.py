"""Trainings that are under way, as files of a folder: named by their first trial, deleted when that is told.

See `train.underway` for when they are written.
"""

from __future__ import annotations

import zipfile
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.store import artifacts, checkpoint

NAME = "unfinished"
_END = ".npz"


def save(workdir: Path, name: str, tree: dict[str, Any]) -> None:
    """Writes nested dicts of arrays as the training `name`, "TRIAL-DIGEST". Raises RunError where that fails."""
    with checkpoint.writing(workdir):
        artifacts.write(workdir / NAME / (name + _END), dict(artifacts.flat(tree)))


def load(workdir: Path, name: str) -> dict[str, Any] | None:
    """What was saved of a training; None where nothing was, or it cannot be read."""
    try:
        with np.load(workdir / NAME / (name + _END)) as arrays:
            return artifacts.nested({key: arrays[key] for key in arrays.files})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def delete(workdir: Path, trials: Container[int]) -> None:
    """Deletes the trainings of these trials."""
    folder = workdir / NAME
    if folder.is_dir():
        for file in folder.glob("*" + _END):
            if int(file.name.split("-")[0]) in trials:
                file.unlink(missing_ok=True)


def keep(workdir: Path, trials: Container[int]) -> None:
    """Deletes all but the trainings of these trials, and what a killed run was writing. Only while nothing writes."""
    folder = workdir / NAME
    if folder.is_dir():
        for file in folder.iterdir():
            if file.suffix != _END or int(file.name.split("-")[0]) not in trials:
                file.unlink(missing_ok=True)
