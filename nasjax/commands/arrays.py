"""Arrays that a program hands over as its data: kept in the workdir as an .npz, and used by its path from there on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from nasjax.store import checkpoint, workdir


class Arrays(TypedDict, total=False):
    """A data set in memory; what an .npz may hold, under the same rules."""

    x: Any  # [N, H, W] or [N, H, W, C], uint8, uint16 or float
    y: Any  # [N]: numbers or names of classes, or values
    x_valid: Any
    y_valid: Any
    x_test: Any
    y_test: Any
    class_names: Any


def plain(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that are not None, as such.

    Raises ValueError where x or y is missing, one is none of `Arrays`, or one is of objects.
    """
    given = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    if unknown := sorted(set(given) - set(Arrays.__annotations__)):
        raise ValueError(f"unknown array {unknown[0]!r}; give {', '.join(Arrays.__annotations__)}")
    if given and (missing := sorted({"x", "y"} - set(given))):
        raise ValueError(f"{missing[0]} is missing; give x and y")
    for name, array in given.items():
        if array.dtype.kind == "O":
            raise ValueError(f"{name} holds objects; give plain numbers, or names as {name}.astype(str)")
    return given


def name_of(given: Mapping[str, np.ndarray]) -> str:
    """The name of the file that keeps these arrays, by what they hold."""
    digest = hashlib.sha256()
    for name in sorted(given):
        digest.update(f"{name}{given[name].dtype.str}{given[name].shape}".encode())
        digest.update(np.ascontiguousarray(given[name]))
    return f"{workdir.ARRAYS}{digest.hexdigest()[:16]}.npz"


def with_arrays(config: Any, path: Path, arrays: Mapping[str, Any]) -> Any:
    """The settings with these arrays as their data, which are written into the workdir `path` if they are not there.

    Without arrays: the settings as they are.

    Raises:
      ValueError: as `plain`; the folder is no workdir; or it was begun with other arrays, or with arrays where none are
        given.
    """
    given, begun = plain(arrays), _begun(path)
    if not given:
        if begun.startswith(workdir.ARRAYS) and config.data.name != begun:
            raise ValueError(
                f"{path} was begun with arrays, and these settings are of {config.data.name}; give the arrays again, "
                "or the settings nasjax.config_of(workdir)"
            )
        return config
    name = name_of(given)
    if begun and begun != name:
        what = "other arrays" if begun.startswith(workdir.ARRAYS) else begun
        raise ValueError(f"{path} was begun with {what}; give it the same data, or choose another workdir")
    workdir.require(path)
    with checkpoint.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if not (path / name).exists():
            with (temporary := path / f"{name}.tmp").open("wb") as file:
                np.savez(file, **given)  # type: ignore[arg-type]
            temporary.replace(path / name)
    data = dataclasses.replace(config.data, name=name, data_dir=str(path.absolute()))
    return dataclasses.replace(config, data=data)


def _begun(path: Path) -> str:
    """The name of the data that a workdir was begun with, "" where it is none yet, or of a version without data."""
    if not (path / "config.json").is_file():
        return ""
    name: str = workdir.read(path)["config"].get("data", {}).get("name", "")
    return name
