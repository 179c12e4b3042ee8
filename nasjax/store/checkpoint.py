"""What a run saves so that it can resume: Orbax checkpoints and JSON-lines files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax.types import PyTree


class RunError(Exception):
    """The run cannot continue; the message is one line for the user (exit code 1)."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A full disk or a lost permission as a RunError, one line for the user."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}") from error


def save(folder: Path, name: str, tree: PyTree, *, keep: int = 2) -> None:
    """Writes `folder/name` atomically and deletes all but the `keep` last numbered checkpoints.

    Of several processes of a run only the first writes more than the folder (`runtime.hosts`).

    Args:
      folder: the checkpoints' folder.
      name: digits of fixed width for a numbered checkpoint, else a name that `latest` ignores.
      tree: a pytree of arrays, numbers and typed keys.
      keep: numbered checkpoints to keep.

    Raises:
      RunError: nothing was written (full disk, lost permission).
    """
    if jax.process_index():
        (folder / name).mkdir(parents=True, exist_ok=True)
        return
    host = _to_host(tree)
    try:
        _reserve(folder, sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(host)) + 2**16)
        _write(folder.absolute() / name, host)
    except Exception as error:  # Orbax and TensorStore raise many types; for a user they are all the same thing
        raise RunError(f"cannot write the checkpoint {folder / name}: {' '.join(str(error).split())[:200]}") from error
    if name.isdigit():
        for old in numbered(folder)[:-keep]:
            shutil.rmtree(folder / old, ignore_errors=True)


def _reserve(folder: Path, size: int) -> None:
    """Fails at once where `size` bytes cannot be written; Orbax would first wait for its own threads."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def latest(folder: Path, like: PyTree) -> tuple[str, PyTree] | None:
    """The last numbered checkpoint that can be read in the structure of `like`, or None if there is none.

    Raises:
      ValueError: checkpoints are there but none can be read as `like`.
    """
    error: ValueError | None = None
    for name in reversed(numbered(folder)):
        try:
            tree = restore(folder, name, like)
        except ValueError as damage:
            error = error or damage
            continue
        if error is not None:
            print(f"warning: {error}; resuming from {name}", file=sys.stderr)
        return name, tree
    if error is not None:
        raise error
    return None


def restore(folder: Path, name: str, like: PyTree) -> PyTree:
    """Reads `folder/name` into the structure, dtypes and key types of `like`. Raises ValueError if that fails."""
    path = folder.absolute() / name
    try:
        host = _read(path, _to_host(like))
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise ValueError(f"the checkpoint {folder / name} is damaged or of another run: {detail}") from error

    def back(leaf: Any, value: Any) -> Any:
        if _is_key(leaf):
            return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array):
            if leaf.size == 0:
                return leaf
            return jax.numpy.asarray(value, leaf.dtype)
        return np.asarray(value, leaf.dtype) if isinstance(leaf, np.ndarray) else type(leaf)(value)

    return jax.tree.map(back, like, host)


def read(folder: Path, name: str) -> dict[str, Any]:
    """`folder/name` as nested dicts and lists of numpy arrays, whatever its structure. Raises ValueError likewise."""
    from orbax.checkpoint import v1 as ocp

    try:
        return dict(ocp.load(folder.absolute() / name))
    except Exception as error:
        raise ValueError(f"the checkpoint {folder / name} is damaged: {' '.join(str(error).split())[:200]}") from error


def _write(path: Path, host: PyTree) -> None:
    from orbax.checkpoint import v1 as ocp

    if jax.process_count() == 1:
        ocp.save(path, host, overwrite=True)
        return
    import orbax.checkpoint as v0  # v1 reads what this writes, but can save only if all processes save at once

    alone = v0.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    handler = v0.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with v0.Checkpointer(handler, multiprocessing_options=alone) as writer:
        writer.save(path, args=v0.args.PyTreeSave(host), force=True)


def _read(path: Path, like: PyTree) -> PyTree:
    from orbax.checkpoint import v1 as ocp

    if jax.process_count() == 1:
        return ocp.load(path, like)
    context, own = ocp.Context(), jax.process_index()
    context.multiprocessing.primary_host, context.multiprocessing.active_processes = own, {own}
    with context:
        return ocp.load(path, like)


def _to_host(tree: PyTree) -> PyTree:
    """Arrays as numpy: a checkpoint knows no devices. Orbax refuses empty ones: a zero stands for them."""

    def host(x: Any) -> np.ndarray:
        array = np.asarray(jax.random.key_data(x) if _is_key(x) else x)
        return array if array.size else np.zeros(1, array.dtype)

    return jax.tree.map(host, tree)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def numbered(folder: Path) -> list[str]:
    """The names of the numbered checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p.name for p in folder.iterdir() if p.name.isdigit()), key=int)


def write_json(path: Path, tree: Any) -> None:
    """Replaces `path` by the JSON of `tree`, atomically."""
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("w") as file:
            file.write(json.dumps(tree, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Appends one JSON line per row, safely on disk; without a row makes no file. NaN is refused: write None."""
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    if not text:
        return
    with path.open("a") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replaces a file's content by one JSON line per row, atomically; does nothing if it already holds just that."""
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    if text and (not path.exists() or path.read_bytes() != text):
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(text)
        os.replace(temporary, path)
    elif not text:
        path.unlink(missing_ok=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines; an incomplete last line is left out. Raises ValueError if an earlier line is not JSON."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: line {number} is not JSON") from error
    return rows


def truncate_lines(path: Path, count: int) -> None:
    """Keeps the first `count` lines, so that what was written after the last checkpoint is written again."""
    if not path.exists() and count == 0:
        return
    if not path.exists():
        raise ValueError(f"{path} is missing, the checkpoint counts {count} lines of it; choose another --workdir")
    lines = path.read_bytes().split(b"\n")[:-1]
    if len(lines) < count:
        raise ValueError(f"{path} is damaged: {len(lines)} lines, the checkpoint counts {count}")
    with path.open("r+b") as file:
        file.truncate(sum(len(line) + 1 for line in lines[:count]))
