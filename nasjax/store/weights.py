"""Weights of a supernet as others take them: out of a workdir, and out of and into a .safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.store import checkpoint
from nasjax.store.artifacts import flat, nested

END = ".safetensors"
NAMES = ("params", "batch_stats")  # of a network's variables


def read(source: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The weights of a supernet.

    Args:
      source: the workdir of a one-shot search, whose newest checkpoint is read, or a .safetensors file.

    Returns:
      {"params": nested dicts of arrays, "batch_stats": likewise, {} for none}, and what is known of them: of ours
      "data", the sha256 of what they were trained on.

    Raises:
      ValueError: there are none, they cannot be read, or the library for such files is not installed.
    """
    path = Path(source)
    if path.suffix == END:
        return _of_file(path)
    folder = path / "supernet" / "checkpoints"
    names = checkpoint.numbered(folder)
    if not names:
        raise ValueError(
            f"{path} has no trained supernet (no supernet/checkpoints); give the workdir of a one-shot search, or a "
            f"{END} file"
        )
    state = checkpoint.read(folder, names[-1])["state"]
    try:
        weights = {name: state[name] or {} for name in NAMES}
        digest = str(json.loads((path / "config.json").read_text())["dataset"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no workdir of a one-shot search: {' '.join(str(error).split())[:200]}") from error
    return weights, {"data": digest}


def write(path: str | Path, weights: Mapping[str, Any], facts: Mapping[str, str]) -> Path:
    """Writes weights in the form of `read` to a .safetensors file, in which names are joined by "/".

    Raises:
      ValueError: another ending, or the library is not installed; RunError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != END:
        raise ValueError(f"{path}: write a name that ends in {END}")
    library = _library()
    temporary = path.with_suffix(".tmp")
    arrays = {name: np.ascontiguousarray(array) for name, array in flat(weights)}
    with checkpoint.writing(path.parent):
        try:
            library.numpy.save_file(arrays, str(temporary), metadata=dict(facts))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _of_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    library = _library()
    if not path.exists():
        raise ValueError(f"{path} does not exist; give the workdir of a one-shot search, or a {END} file")
    try:
        with library.safe_open(str(path), framework="numpy") as file:
            facts = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except Exception as error:  # the library has a type of its own, which derives from Exception
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return {**{name: {} for name in NAMES}, **nested(arrays)}, facts


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ValueError(f'{END} needs a library that is not installed; pip install "nasjax[safetensors]"') from error
    return safetensors
