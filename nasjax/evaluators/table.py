"""Evaluator `table`: looks results up instead of training, so that a search takes milliseconds and 200 seeds one vmap.

Dong & Yang 2020, "NAS-Bench-201", section 2: every cell of the space was trained and its results were recorded.
Two layouts of `.npz` file are read, both plain arrays:

* the benchmark layout: `ops` (N, edges) numbers into `op_names`, and any number of (N,) columns to choose from. Every
  architecture of the space must be there once.
* a plain table: `arch` (N, edges) operation numbers or names, or (N,) strings `|op~0|+|op~0|op~1|+...`; `fitness` (N,)
  and `cost` (N,). It may hold a part of the space: proposals that it lacks are rejected, with fitness NaN.

The column's name or the user says whether an accuracy is a percent or a fraction; it is never guessed from the values,
as a mark for failures (such as -1) or one high value would mislead.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Evaluator, Key, Proposal, Status

# The protocol of the paper's section 5 in the benchmark layout: reward after 12 epochs of training on half of CIFAR-10
# (whose time is 12 / 200 of the 200 epochs'), reported result the test accuracy after 200 epochs on all of it.
FITNESS, COST, RESULT = "hp12_cifar10valid_val", "hp200_train_time_cifar10valid", "hp200_cifar10_test"
COST_SCALE = 12 / 200
# Accuracies of the benchmark, which are percents.
_BENCHMARK = re.compile(r"hp\d+_(cifar10|cifar10valid|cifar100|imagenet16)_(train|val|test|valtest)(_nats|_seeds)?")
_PERCENT, _FRACTION = {"percent", "percents", "percentage", "pct", "%"}, {"fraction", "fractions", "frac"}


class Table(NamedTuple):
    """Results of a TabularCell's architectures; row `space.index(arch)`, R = space.size() rows."""

    fitness: np.ndarray  # f32[R], what the searcher sees; NaN = failed, or not in the table
    cost: np.ndarray  # f32[R], seconds; 0 where not in the table
    result: np.ndarray  # f32[R], the paper's reported result of a search's best; NaN where not in the table
    known: np.ndarray  # bool[R], whether the file has the architecture


def load_table(
    path: str | os.PathLike[str],
    space: TabularCell,
    *,
    fitness: str | None = None,
    cost: str | None = None,
    result: str | None = None,
    cost_scale: float | None = None,
    percent: bool | None = None,
    setting: str = "table.percent",
    sealed: bool = False,
) -> Table:
    """Reads an `.npz` table of architectures and their results.

    Args:
      path: the file, in either layout of this module's docstring.
      space: which architectures it is about.
      fitness, cost, result: names of columns; "NAME[1]" is the second of the runs that a column (N, runs) holds.
        Defaults: the paper's protocol (FITNESS, COST, RESULT) in the benchmark layout; `fitness`, `cost` and again
        `fitness` in a plain table.
      cost_scale: factor that turns the cost column into seconds; default COST_SCALE with the default cost column of
        the benchmark layout, else 1.
      percent: whether fitness and result are percents, to be turned into fractions; false keeps them as they are. None
        takes it from each column's name: those of NAS-Bench-201's accuracies are percents, and a name with the word
        percent (or pct, or %) or fraction says so itself.
      setting: the command line's name of `percent`, for the error.
      sealed: the reported results stay closed, NaN in their place; their column must be there.

    Returns:
      The table in the order of `space.index`.

    Raises:
      ValueError: no such file, not an .npz of plain arrays, a column missing or of another shape or unknown unit, an
        architecture outside the space, repeated or (benchmark layout) missing.
    """
    columns = _read(path)
    benchmark = "ops" in columns
    if not benchmark and "arch" not in columns:
        raise ValueError(f"{path}: neither a column 'ops' nor 'arch' (plain table); it has {_names(columns)}")
    if cost_scale is None:
        cost_scale = COST_SCALE if benchmark and cost is None else 1.0
    fitness = fitness or (FITNESS if benchmark else "fitness")
    cost = cost or (COST if benchmark else "cost")
    result = result or (RESULT if benchmark else fitness)

    rows = _rows(path, space, columns)
    known = np.bincount(rows, minlength=space.size())
    if known.max(initial=0) > 1:
        twice = space.encode(_arch(space, int(known.argmax())))["ops"]
        raise ValueError(f"{path}: {int((known > 1).sum())} architectures are repeated, the first is {twice}")
    if benchmark and not known.all():
        lacking = space.encode(_arch(space, int(known.argmin())))["ops"]
        raise ValueError(f"{path}: {int((known == 0).sum())} of {space.size()} architectures missing, first {lacking}")

    def column(name: str, fill: float) -> np.ndarray:
        name, run = _run_of(name)
        if name not in columns:
            raise ValueError(f"{path}: no column {name!r}; it has {_names(columns)}")
        values = columns[name]
        if run is not None and values.ndim == 2 and run < values.shape[1]:
            values = values[:, run]
        if values.shape != rows.shape or values.dtype.kind not in "fiu":
            raise ValueError(f"{path}: column {name!r} must hold {len(rows)} numbers, got {values.dtype}{values.shape}")
        out = np.full(space.size(), fill, np.float32)
        out[rows] = values
        return out

    def accuracy(name: str) -> np.ndarray:
        values = column(name, np.nan)
        is_percent = _is_percent(name) if percent is None else percent
        if is_percent is None:
            raise ValueError(
                f"{path}: whether column {name!r} holds percents is not known; write --set {setting}=true (93.5 is "
                f"93.5 %) or --set {setting}=false (0.935 is 93.5 %)"
            )
        return values / np.float32(100) if is_percent else values

    seconds = column(cost, 0.0) * np.float32(cost_scale)
    if not (seconds >= 0).all() or np.isinf(seconds).any():
        raise ValueError(f"{path}: column {cost!r} must hold finite seconds, 0 or more")
    if sealed and _run_of(result)[0] not in columns:
        raise ValueError(f"{path}: no column {result!r}; it has {_names(columns)}")
    reported = np.full(space.size(), np.nan, np.float32) if sealed else accuracy(result)
    return Table(accuracy(fitness), seconds, reported, known > 0)


def table(space: TabularCell, table: Table) -> Evaluator:
    """An Evaluator that looks architectures up; traceable, deterministic, without artifacts.

    Dong & Yang 2020, section 2.

    Args:
      space: the space of the proposals.
      table: its results, from `load_table`.

    Returns:
      `evaluate(key, Proposal, inherited)`, which ignores its key. Evaluation.info has "result" f32[N]. A row whose
      fitness is NaN is FAILED, an architecture that the table does not have is REJECTED, at no cost.

    Raises:
      ValueError: the table is of another space.
    """
    if table.fitness.shape != (space.size(),):
        raise ValueError(f"the table has {len(table.fitness)} rows, the space {space.size()} architectures")

    def evaluate(key: Key, proposal: Proposal, inherited: object = None) -> tuple[Evaluation, None]:
        del key, inherited
        arch = proposal.arch
        inside = ((arch >= 0) & (arch < len(space.ops))).all(-1)
        row = jax.tree.map(lambda column: jnp.asarray(column)[jnp.where(inside, space.index(arch), 0)], table)
        known = inside & row.known
        fitness = jnp.where(known, row.fitness, jnp.nan)
        status = jnp.where(known, jnp.where(jnp.isnan(fitness), Status.FAILED, Status.OK), Status.REJECTED)
        info = {"result": jnp.where(known, row.result, jnp.nan)}
        return Evaluation(fitness, jnp.where(known, row.cost, 0.0), status.astype(jnp.int8), info), None

    return Evaluator(evaluate)


def check_accuracies(table: Table, path: str | os.PathLike[str], setting: str = "table.percent") -> None:
    """Raises ValueError where an accuracy is above 1, as its unit must be wrong; `setting` is the one to change."""
    highest = max(float(np.nanmax(column, initial=0.0)) for column in (table.fitness, table.result))
    if highest > 1:
        raise ValueError(
            f"{path}: with the unit that was said an accuracy is {highest:.0%}; write --set {setting}=true if the "
            "column holds percents, or choose another column"
        )


def _run_of(name: str) -> tuple[str, int | None]:
    """A column's name, and which of its runs is meant: "val_seeds[1]" is ("val_seeds", 1)."""
    found = re.fullmatch(r"(.+)\[(\d+)\]", name)
    return (found[1], int(found[2])) if found else (name, None)


def _is_percent(name: str) -> bool | None:
    """Whether a column's name says percent (true) or fraction (false); None = neither."""
    name = _run_of(name)[0]
    if _BENCHMARK.fullmatch(name):
        return True
    words = set(re.findall(r"%|[a-z]+", name.lower()))
    said = [kind for kind, of in ((True, _PERCENT), (False, _FRACTION)) if words & of]
    return said[0] if len(said) == 1 else None


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
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


def _text(column: np.ndarray) -> np.ndarray:
    """A column of bytes as one of text."""
    return np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column


def _rows(path: str | os.PathLike[str], space: TabularCell, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Which row of the lattice each row of the file is: i32[N]."""
    column = "ops" if "ops" in columns else "arch"
    arch = columns[column]
    names: tuple[str, ...] = space.ops
    if column == "ops" and "op_names" in columns:
        names = tuple(str(name) for name in columns["op_names"])
    try:
        if arch.dtype.kind == "U" and arch.ndim == 1:
            arch = np.array([space.parse(str(text)) for text in arch]).reshape(-1, space.edges)
        elif arch.dtype.kind not in "Uiu" or arch.ndim != 2 or arch.shape[1] != space.edges:
            raise ValueError(f"needs the shape (N, {space.edges}), got {arch.dtype}{arch.shape}")
        elif arch.dtype.kind == "U":
            arch = np.stack([space.decode({"space": space.name, "ops": row}) for row in arch.tolist()])
        elif arch.min(initial=0) < 0 or arch.max(initial=0) >= len(names):
            raise ValueError(f"operation numbers must be 0..{len(names) - 1}")
        elif names != space.ops:
            arch = np.array([space._numbers([names[op]])[0] for op in range(len(names))])[arch]
    except ValueError as error:
        raise ValueError(f"{path}: column {column!r}: {error}") from None
    return np.asarray(arch, np.int64) @ np.array([len(space.ops) ** e for e in reversed(range(space.edges))])


def _arch(space: TabularCell, row: int) -> np.ndarray:
    return np.array(np.unravel_index(row, (len(space.ops),) * space.edges))


def _names(columns: dict[str, np.ndarray]) -> str:
    return ", ".join(sorted(columns))
