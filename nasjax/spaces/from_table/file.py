"""A table of architectures and their results: an `.npz` of plain arrays, and the sites that it is about."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Columns = Mapping[str, np.ndarray]


class Sites(NamedTuple):
    """The decisions of a table, one per column of `ops`."""

    names: tuple[str, ...]
    ops: tuple[tuple[str, ...], ...]  # what each chooses from
    edges: tuple[tuple[int, int], ...]  # nodes (from, to) of each, where the sites are edges of a graph; else ()


class Declared(NamedTuple):
    """What a table says of itself."""

    metric: str = "accuracy"
    column: str = ""  # of the metric
    percent: bool | None = None  # None = not said, or neither percents nor fractions
    smaller: bool = False  # a smaller metric is better
    fidelities: tuple[str, ...] = ()


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, bytes as text. Raises ValueError where it is none of plain arrays."""
    if not os.path.isfile(path):
        raise ValueError(f"no table at {path}; it must be an .npz file")
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is a single array")
            return {name: _text(file[name]) for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not an .npz of plain arrays: {str(error).splitlines()[0]}") from None


def sites(path: str | os.PathLike[str], columns: Columns) -> Sites:
    """The sites of a table with `ops` (N, S) numbers into `op_names`, (k,) for all or (S, k), "" beyond a site's own.

    `site_names` (S,) and `edges` (S, 2) may be there as well. Raises ValueError where these do not fit each other.
    """
    for name in ("ops", "op_names"):
        if name not in columns:
            raise ValueError(f"{path}: no column {name!r}; a table needs ops (N, sites), numbers into op_names")
    ops = columns["ops"]
    if ops.ndim != 2 or ops.dtype.kind not in "iu" or not ops.size:
        raise ValueError(
            f"{path}: column 'ops' needs the shape (N, sites) and whole numbers, got {ops.dtype}{ops.shape}"
        )
    count = ops.shape[1]
    edges = _edges(path, columns["edges"], count) if "edges" in columns else ()
    return Sites(_names(path, columns, count), _op_names(path, columns["op_names"], ops), edges)


def declared(path: str | os.PathLike[str], columns: Columns) -> Declared:
    """Metric and fidelities of a table that names them. Raises ValueError for a metric of unknown unit."""
    said = Declared(
        fidelities=tuple(str(one) for one in np.ravel(columns["fidelities"])) if "fidelities" in columns else ()
    )
    if "metric" not in columns:
        return said
    metric, unit = str(columns["metric"]), str(columns.get("unit", ""))
    percent = {"percent": True, "fraction": False, "plain": None}
    if unit not in percent:
        raise ValueError(f"{path}: beside 'metric' the file must say its 'unit': {', '.join(percent)}; got {unit!r}")
    return Declared(metric, metric, percent[unit], bool(columns.get("smaller_is_better", False)), said.fidelities)


def rows(columns: Columns) -> np.ndarray:
    """The architectures of a table, i32[N, S], in the file's order."""
    return columns["ops"].astype(np.int32)


def sorted_rows(path: str) -> np.ndarray:
    """The same in lexicographic order; kept in memory as long as the file does not change."""
    state = os.stat(path)
    return _sorted_rows(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=8)
def _sorted_rows(path: str, changed: int, size: int) -> np.ndarray:
    archs = rows(read(path))
    return archs[np.lexsort(archs.T[::-1])]


def repeated(archs: np.ndarray) -> np.ndarray:
    """The architectures that are there more than once, i32[., S]."""
    found, counts = np.unique(archs, axis=0, return_counts=True)
    return found[counts > 1]


def _op_names(path: str | os.PathLike[str], given: np.ndarray, ops: np.ndarray) -> tuple[tuple[str, ...], ...]:
    count = ops.shape[1]
    if given.ndim not in (1, 2) or (given.ndim == 2 and len(given) != count):
        raise ValueError(f"{path}: 'op_names' needs the shape (k,), for all sites, or ({count}, k), got {given.shape}")
    shared = np.broadcast_to(given, (count, given.shape[-1]))
    found = []
    for site, (row, numbers) in enumerate(zip(shared, ops.T, strict=True)):
        names = [str(name) for name in row]
        while names and not names[-1]:
            names.pop()
        if not all(names) or len(set(names)) != len(names):
            raise ValueError(f"{path}: 'op_names' of site {site} must be distinct and not empty, got {names}")
        if numbers.min() < 0 or numbers.max() >= len(names):
            raise ValueError(f"{path}: column 'ops': operation numbers of site {site} must be 0..{len(names) - 1}")
        found.append(tuple(names))
    return tuple(found)


def _names(path: str | os.PathLike[str], columns: Columns, count: int) -> tuple[str, ...]:
    if "site_names" not in columns:
        return tuple(f"{'edge' if 'edges' in columns else 'site'}{site}" for site in range(count))
    names = tuple(str(name) for name in columns["site_names"].ravel())
    if len(names) != count or len(set(names)) != count or not all(names):
        raise ValueError(f"{path}: 'site_names' must hold {count} distinct names, got {', '.join(names) or 'none'}")
    return names


def _edges(path: str | os.PathLike[str], given: np.ndarray, count: int) -> tuple[tuple[int, int], ...]:
    if given.shape != (count, 2) or given.dtype.kind not in "iu" or (given[:, 0] >= given[:, 1]).any():
        raise ValueError(
            f"{path}: 'edges' needs the shape ({count}, 2), nodes (from, to) with from < to, got {given.shape}"
        )
    return tuple((int(start), int(end)) for start, end in given)


def _text(column: np.ndarray) -> np.ndarray:
    """A column of bytes as one of text."""
    return np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column
