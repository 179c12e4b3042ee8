"""Weights of trials as content-addressed files: equal weights are one file; its name shows whether it is complete."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.store import checkpoint

NAME = "artifacts"
_END = ".npz"


def save(workdir: Path, tree: dict[str, Any]) -> str:
    """Writes nested dicts of arrays to `workdir`/artifacts, atomically, and returns the sha256 of their content.

    Raises:
      RunError: they cannot be written.
    """
    arrays = dict(sorted(flat(tree)))
    content = hashlib.sha256()
    for name, array in arrays.items():
        content.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    digest = content.hexdigest()
    with checkpoint.writing(workdir):
        write(workdir / NAME / (digest + _END), arrays)
    return digest


def load(workdir: Path, digest: str) -> dict[str, Any]:
    """The nested dicts of arrays with this sha256. Raises FileNotFoundError where they are gone."""
    with np.load(workdir / NAME / (digest + _END)) as arrays:
        return nested({name: arrays[name] for name in arrays.files})


def delete(workdir: Path, digests: Iterable[str]) -> None:
    """Deletes those that are there."""
    for digest in digests:
        (workdir / NAME / (digest + _END)).unlink(missing_ok=True)


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz in the place of `path`, atomically. Raises OSError."""
    path.parent.mkdir(exist_ok=True)
    handle, temporary = tempfile.mkstemp(".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def stored(workdir: Path) -> set[str]:
    """What is there; pieces that a killed run was writing are deleted. Call it only while nothing writes."""
    folder = workdir / NAME
    for torn in folder.glob("*.tmp"):
        torn.unlink(missing_ok=True)
    return {file.stem for file in folder.glob("*" + _END)}


def flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """("params/stem/conv", array) for every array of nested dicts."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}/")
        else:
            yield f"{before}{name}", np.asarray(value)


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flat`."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return tree
