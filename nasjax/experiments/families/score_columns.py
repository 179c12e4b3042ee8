"""Scores of every architecture of a listed space as one array: columns of a file, parameters, multiply-adds."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.rows import plain
from nasjax.evaluators.scores.named import SCORES
from nasjax.evaluators.scores.ranks import ranks
from nasjax.evaluators.table import chosen_columns
from nasjax.problem.problem import Problem

COUNTS = ("params", "macs")
_MOST = 50_000  # architectures that are counted one by one


def score_columns(problem: Problem, names: Sequence[str], file: str) -> dict[str, np.ndarray]:
    """The scores of all architectures by name, f64[R] in the order of the space's `index`; NaN or -inf without one.

    "params" and "macs" are counted; any other name is a column of the table of results or of `file`. The rows of a file
    without `ops` are those of the table.

    Args:
      problem: whose space can be listed; looked up in a table where a column is asked for.
      names: of the scores.
      file: an .npz of plain arrays, "" = none.

    Raises:
      ValueError: the space cannot be listed, there is no such column, or its length is not the table's.
    """
    space = problem.space
    size = space.size()
    if size is None or size > _MOST or not hasattr(space, "enumerate") or not hasattr(space, "index"):
        raise ValueError(
            f"search.scores and search.start know the scores of all architectures, and those of --space={space.name} "
            "cannot be listed; leave them out (--set candidate_scores=naswot scores candidates as they come)"
        )
    counted = [name for name in names if name in COUNTS]
    columns = dict(zip(counted, _counts(problem, counted), strict=True)) if counted else {}
    if read := [name for name in names if name not in COUNTS]:
        columns |= _read(problem, read, file)
    elif file:
        raise ValueError("search.score_file has no effect: search.scores and search.start name none of its columns")
    return {name: columns[name] for name in names}


def as_features(columns: Sequence[np.ndarray]) -> np.ndarray:
    """K columns [R] as their ranks among all architectures, f32[R, K] from -1 to 1: scores span many magnitudes."""
    return np.stack([2 * ranks(column) - 1 for column in columns], 1).astype(np.float32)


def by_place(space: Any, values: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Arch -> its row of [R, ...]; traceable."""
    table = jnp.asarray(values)
    return lambda arch: table[space.index(arch)]


def in_rows(space: Any, columns: dict[str, np.ndarray]) -> Callable[[np.ndarray], dict[str, float | None]]:
    """Arch -> {name: score, None where it is not finite}, from {name: f64[R]}, for the rows of trials.jsonl."""

    def told(arch: np.ndarray) -> dict[str, float | None]:
        place = int(space.index(arch))
        return {name: plain(column[place]) for name, column in columns.items()}

    return told


def _counts(problem: Problem, names: Sequence[str]) -> np.ndarray:
    """f64[K, R] of parameters and multiply-adds. (R small networks are counted, none is made.)"""
    space = problem.space
    rows = [problem.build(arch) for arch in np.asarray(space.enumerate(), np.int32)]
    return np.array([[getattr(built, name) for built in rows] for name in names], float)


def _read(problem: Problem, names: Sequence[str], file: str) -> dict[str, np.ndarray]:
    """Columns of the table's file and of the file of scores, by name; the latter's come first."""
    space, table = problem.space, problem.config.table.path
    if not table:
        own = f" (--set candidate_scores={names[0]} scores candidates as they come)" if names[0] in SCORES else ""
        raise ValueError(f"search.scores and search.start have columns of a table: add --table=FILE.npz{own}")
    of_table, settings = _arrays(table), problem.config.table
    for name in chosen_columns(table, space, settings.fitness, settings.result):
        if name in names:
            raise ValueError(f"column {name!r} is what the search is to find out, and no score; leave it out")
    row = _index(space, table, of_table)
    found = dict(of_table)
    order = dict.fromkeys(found, row)
    if file:
        scores = _arrays(file)
        own_row = _index(space, file, scores) if "ops" in scores else row
        found |= scores
        order |= dict.fromkeys(scores, own_row)
    columns = {}
    for name in names:
        where = file or table
        if name not in found:
            number = [known for known, values in found.items() if values.ndim == 1 and values.dtype.kind in "fiu"]
            raise ValueError(f"{where}: no column {name!r}; choose from {', '.join(sorted(number) + list(COUNTS))}")
        values = found[name]
        if values.shape != order[name].shape or values.dtype.kind not in "fiu":
            raise ValueError(
                f"{where}: column {name!r} must hold a number for each of the table's {len(row):,} rows, got "
                f"{values.dtype}{values.shape}"
            )
        columns[name], inside = np.full(space.size(), np.nan), order[name] >= 0
        columns[name][order[name][inside]] = values[inside]
    return columns


def _arrays(path: str) -> dict[str, np.ndarray]:
    if not os.path.isfile(path):
        raise ValueError(f"no file of scores at {path}; it must be an .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz of plain arrays: {str(error).splitlines()[0]}") from None


def _index(space: Any, path: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The place of every row of a file with `ops` among the space's architectures, i64[N]; -1 = it is none of them."""
    ops, sites = arrays.get("ops"), space.sites
    if ops is None or ops.dtype.kind not in "iu" or ops.shape[1:] != (len(sites),):
        raise ValueError(f"{path}: scores need a table with a column 'ops' (N, {len(sites)}) of numbers")
    names = arrays.get("op_names")
    most = max(len(site.choices) for site in sites) if names is None else names.shape[-1]
    if ops.min(initial=0) < 0 or ops.max(initial=0) >= most:
        raise ValueError(f"{path}: column 'ops': operation numbers must be 0..{most - 1}")
    if names is not None:
        named = np.broadcast_to(names.astype(str), (len(sites), names.shape[-1]))
        number = np.array(
            [[_number(site.choices, name) for name in row] for site, row in zip(sites, named, strict=True)]
        )
        ops = np.stack([row[column] for row, column in zip(number, ops.T, strict=True)], 1)
    place = np.asarray(space.index(np.asarray(ops, np.int32)), np.int64)
    return np.where((ops >= 0).all(1), place, -1)


def _number(choices: Sequence[Any], name: str) -> int:
    return choices.index(name) if name in choices else -1
