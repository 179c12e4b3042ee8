"""Evaluator `table`: looks results up instead of training, so that a search takes milliseconds and 200 seeds one vmap.

Dong & Yang 2020, "NAS-Bench-201", section 2: every cell of the space was trained and its results were recorded.
Two layouts of `.npz` file are read, both plain arrays:

* the benchmark layout: `ops` (N, sites) numbers into `op_names`, and any number of (N,) columns to choose from. Every
  architecture of the space must be there once. With the space `from_table`, which is made of such a file, it may be of
  any search space, and hold a part of it.
* a plain table, of `tabular_cell`: `arch` (N, edges) operation numbers or names, or (N,) strings
  `|op~0|+|op~0|op~1|+...`; `fitness` (N,) and `cost` (N,). It may hold a part of the space.

Proposals that a table lacks are rejected, with fitness NaN. A file may say itself what its figures are: `metric`
(text), the name of the metric and of its column, `unit` ("percent", "fraction" or "plain"), `smaller_is_better` (bool)
and `fidelities` (texts as of the setting).

The column's name or the user says whether an accuracy is a percent or a fraction; it is never guessed from the values,
as a mark for failures (such as -1) or one high value would mislead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.fidelities import Rungs, parsed
from nasjax.spaces.from_table import file
from nasjax.spaces.from_table.space import TableSpace, table_space
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
    """Results of a space's architectures; row `space.index(arch)`, R = space.size() rows."""

    fitness: np.ndarray  # f32[R], what the searcher sees, larger is better; NaN = failed, or not in the table
    cost: np.ndarray  # f32[R], seconds; 0 where not in the table
    result: np.ndarray  # f32[R], the paper's reported result of a search's best; NaN where not in the table
    known: np.ndarray  # bool[R], whether the file has the architecture
    rungs: Rungs | None = None  # what proposals with a fidelity get


def load_table(
    path: str | os.PathLike[str],
    space: TabularCell | TableSpace,
    *,
    fitness: str | None = None,
    cost: str | None = None,
    result: str | None = None,
    cost_scale: float | None = None,
    percent: bool | None = None,
    setting: str = "table.percent",
    metric: str | None = None,
    smaller: bool | None = None,
    fidelities: Sequence[str] | None = None,
    sealed: bool = False,
) -> Table:
    """Reads an `.npz` table of architectures and their results.

    Args:
      path: the file, in either layout of this module's docstring.
      space: which architectures it is about.
      fitness, cost, result: names of columns; "NAME[1]" is the second of the runs that a column (N, runs) holds.
        Defaults: the column of the file's own `metric` for the fitness, where it has one; the paper's protocol
        (FITNESS, COST, RESULT) in the benchmark layout that has its columns; else `fitness`, `cost` and again the
        column of the fitness.
      cost_scale: factor that turns the cost column into seconds; default COST_SCALE with the default cost column of
        the benchmark layout, else 1.
      percent: whether fitness and result are percents, to be turned into fractions; false keeps them as they are. None
        takes it from the file's own `unit`, else from each column's name: those of NAS-Bench-201's accuracies are
        percents, and a name with the word percent (or pct, or %) or fraction says so itself.
      setting: the command line's name of `percent`, for the error.
      metric: what the fitness is; any but an accuracy keeps its unit where `percent` is None. None = the file's, else
        an accuracy.
      smaller: whether a smaller metric is better; the fitness is then its negative. None = as the file says, else not.
      fidelities: epochs and columns for proposals that have a fidelity, as `fidelities.parsed` reads them. None = as
        the file says, else none.
      sealed: the reported results stay closed, NaN in their place; their column must be there.

    Returns:
      The table in the order of `space.index`.

    Raises:
      ValueError: no such file, not an .npz of plain arrays, a column missing or of another shape or unknown unit, an
        architecture outside the space, repeated or (benchmark layout) missing.
    """
    columns = file.read(path)
    benchmark, said = "ops" in columns, file.declared(path, columns)
    if not benchmark and "arch" not in columns:
        raise ValueError(f"{path}: neither a column 'ops' nor 'arch' (plain table); it has {_names(columns)}")
    protocol = _protocol(space, columns, said)
    if cost_scale is None:
        cost_scale = COST_SCALE if protocol and cost is None else 1.0
    cost = cost or (COST if protocol else "cost")
    fitness, result = _chosen(space, columns, said, fitness, result)
    wanted = {"fitness": fitness, "cost": cost}
    smaller = said.smaller if smaller is None else smaller
    fidelities = said.fidelities if fidelities is None else fidelities
    percent = said.percent if percent is None else percent
    keep = (metric or said.metric) != "accuracy"

    rows = _rows(path, space, columns)
    known = np.bincount(rows, minlength=space.size())
    if known.max(initial=0) > 1:
        twice = _ops(space, int(known.argmax()))
        raise ValueError(f"{path}: {int((known > 1).sum())} architectures are repeated, the first is {twice}")
    if benchmark and not known.all():
        lacking = _ops(space, int(known.argmin()))
        raise ValueError(f"{path}: {int((known == 0).sum())} of {space.size()} architectures missing, first {lacking}")

    def column(name: str, fill: float) -> np.ndarray:
        name, run = _run_of(name)
        if name not in columns:
            lacking = {f"table.{what}": own for what, own in wanted.items() if _run_of(own)[0] not in columns}
            if isinstance(space, TableSpace) and name in lacking.values():  # all that is to be written, at once
                write = " ".join(f"--set {what}=COLUMN" for what in lacking)
                write += " (seconds, or ones)" if "table.cost" in lacking else ""
                if percent is None and not keep and "table.fitness" in lacking:
                    write += f" and, where the fitness's name says neither percent nor fraction, {_unit(setting)}"
                elif percent is None and not keep and _is_percent(fitness) is None:
                    write += f" and {_unit(setting)}"
                told = " and no column ".join(map(repr, dict.fromkeys(lacking.values())))
                raise ValueError(f"{path}: no column {told}; {_results(columns)}; write {write}")
            raise ValueError(f"{path}: no column {name!r}; {_results(columns)}")
        values = columns[name]
        if run is not None and values.ndim == 2 and run < values.shape[1]:
            values = values[:, run]
        if values.shape != rows.shape or values.dtype.kind not in "fiu":
            form, several = f"{values.dtype}{values.shape}", values.ndim == 2 and len(values) == len(rows)
            one = f"; write {name}[0] for the first of its runs" if several else ""
            raise ValueError(f"{path}: column {name!r} must hold {len(rows)} numbers, got {form}{one}")
        out = np.full(space.size(), fill, np.float32)
        out[rows] = values
        return out

    def accuracy(name: str) -> np.ndarray:
        values = column(name, np.nan)
        values = np.where(np.isfinite(values), values, np.float32(np.nan))
        is_percent = percent if percent is not None or keep else _is_percent(name)
        if is_percent is None and not keep:
            raise ValueError(f"{path}: whether column {name!r} holds percents is not known; write {_unit(setting)}")
        return values / np.float32(100) if is_percent else values

    def seconds(name: str, scale: float) -> np.ndarray:
        values = column(name, 0.0) * np.float32(scale)
        if not (values >= 0).all() or np.isinf(values).any():
            raise ValueError(f"{path}: column {name!r} must hold finite seconds, 0 or more")
        return values

    sign = np.float32(-1 if smaller else 1)
    rungs = None
    if fidelities:
        each = parsed(fidelities)
        rungs = Rungs(
            np.array([one.epochs for one in each], np.int32),
            np.stack([sign * accuracy(one.fitness) for one in each], 1),
            np.stack([seconds(one.cost, one.cost_scale) for one in each], 1),
        )
        if (np.diff(rungs.cost, axis=1) < 0).any():
            raise ValueError(f"{path}: table.fidelities: more epochs must not cost less; got {', '.join(fidelities)}")
    spent = seconds(cost, cost_scale)
    if sealed and _run_of(result)[0] not in columns:
        raise ValueError(f"{path}: no column {result!r}; {_results(columns)}")
    reported = np.full(space.size(), np.nan, np.float32) if sealed else accuracy(result)
    return Table(sign * accuracy(fitness), spent, reported, known > 0, rungs)


def chosen_columns(
    path: str | os.PathLike[str], space: TabularCell | TableSpace, fitness: str | None, result: str | None
) -> tuple[str, str]:
    """The names of the columns of fitness and reported result that `load_table` reads with these arguments."""
    columns = file.read(path)
    return _chosen(space, columns, file.declared(path, columns), fitness, result)


def require_cost(path: str | os.PathLike[str], space: TabularCell | TableSpace, fitness: str | None) -> None:
    """Raises ValueError where seconds are a budget, and those of another training than the fitness would be counted.

    `fitness` is the column that was said, without one for the cost: the seconds are then those of the paper's protocol.
    """
    columns = file.read(path)
    if fitness not in (None, FITNESS) and _protocol(space, columns, file.declared(path, columns)):
        raise ValueError(
            f"{path}: the seconds of {fitness!r} are not known, and those of {FITNESS} would be counted; write --set "
            f"table.cost=COLUMN ({COST} are those of 200 epochs)"
        )


def load_columns(path: str | os.PathLike[str], space: TabularCell | TableSpace | None = None) -> dict[str, np.ndarray]:
    """The columns of numbers of a table, as they are in the file: for what no searcher may see.

    Args:
      path: the file, in either layout.
      space: orders the rows by `space.index`, with NaN where the file lacks an architecture; None = as in the file.

    Returns:
      {name: (N,) or (N, K)}, f64[R] or f64[R, K] with a space. A column with a second axis holds several runs of each
      architecture, NaN where there are fewer, as `hp200_cifar10valid_val_seeds` of NAS-Bench-201 does: how far their
      results differ is the noise of the truth. Units are the file's.

    Raises:
      ValueError: as `load_table`.
    """
    columns = file.read(path)
    if "ops" not in columns and "arch" not in columns:
        raise ValueError(f"{path}: neither a column 'ops' nor 'arch' (plain table); it has {_names(columns)}")
    found = _numbers(columns)
    if space is None:
        return found
    rows = _rows(path, space, columns)
    ordered = {}
    for name, values in found.items():
        ordered[name] = np.full((space.size(), *values.shape[1:]), np.nan)
        ordered[name][rows] = values
    return ordered


def table(space: TabularCell | TableSpace, table: Table) -> Evaluator:
    """An Evaluator that looks architectures up; traceable, deterministic, without artifacts.

    Dong & Yang 2020, section 2.

    Args:
      space: the space of the proposals.
      table: its results, from `load_table`.

    Returns:
      `evaluate(key, Proposal, inherited)`, which ignores its key. Evaluation.info has "result" f32[N]. A row whose
      fitness is NaN is FAILED, an architecture or fidelity that the table does not have is REJECTED, at no cost.
      A proposal with a fidelity gets fitness and seconds of those epochs; with a parent, from which it goes on, only
      the seconds since the table's next lower fidelity.

    Raises:
      ValueError: the table is of another space, or a proposal has a fidelity and the table has none.
    """
    if table.fitness.shape != (space.size(),):
        raise ValueError(f"the table has {len(table.fitness)} rows, the space {space.size()} architectures")
    counts = np.array([len(site.choices) for site in space.sites], np.int32)

    def evaluate(key: Key, proposal: Proposal, inherited: object = None) -> tuple[Evaluation, None]:
        del key, inherited
        arch = proposal.arch
        inside = ((arch >= 0) & (arch < np.broadcast_to(counts, arch.shape))).all(-1)
        place = jnp.where(inside, space.index(arch), -1)

        def at(column: Any) -> jax.Array:
            return jnp.asarray(column)[jnp.maximum(place, 0)]

        known = (place >= 0) & at(table.known)
        fitness, cost = at(table.fitness), at(table.cost)
        if proposal.fidelity is not None:
            if table.rungs is None:
                raise ValueError("the table has one fidelity; name the columns of others: --set table.fidelities=...")
            there, fitness, cost = table.rungs.of(proposal, at)
            known &= there
        fitness = jnp.where(known, fitness, jnp.nan)
        status = jnp.where(known, jnp.where(jnp.isnan(fitness), Status.FAILED, Status.OK), Status.REJECTED)
        info = {"result": jnp.where(known, at(table.result), jnp.nan)}
        return Evaluation(fitness, jnp.where(known, cost, 0.0), status.astype(jnp.int8), info), None

    return Evaluator(evaluate)


def check_accuracies(table: Table, path: str | os.PathLike[str], setting: str = "table.percent") -> None:
    """Raises ValueError where an accuracy is above 1, as its unit must be wrong; `setting` is the one to change."""
    columns = (table.fitness, table.result, *([] if table.rungs is None else [table.rungs.fitness]))
    highest = max(float(np.nanmax(column, initial=0.0)) for column in columns)
    if highest > 1:
        raise ValueError(
            f"{path}: with the unit that was said an accuracy is {highest:.0%}; write --set {setting}=true if the "
            "column holds percents, or choose another column"
        )


def _protocol(space: TabularCell | TableSpace, columns: file.Columns, said: file.Declared) -> bool:
    """Whether the protocol of the paper decides what is not said."""
    return "ops" in columns and not said.column and (isinstance(space, TabularCell) or FITNESS in columns)


def _chosen(
    space: TabularCell | TableSpace, columns: file.Columns, said: file.Declared, fitness: str | None, result: str | None
) -> tuple[str, str]:
    protocol = _protocol(space, columns, said)
    fitness = fitness or said.column or (FITNESS if protocol else "fitness")
    return fitness, result or (RESULT if protocol else fitness)


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


def _rows(path: str | os.PathLike[str], space: TabularCell | TableSpace, columns: file.Columns) -> np.ndarray:
    """Which row of the space each row of the file is: i32[N]."""
    if isinstance(space, TableSpace):
        found = np.asarray(space.index(file.rows(columns))) if table_space(path) == space else np.array([-1])
        if (found < 0).any() or len(found) != space.size():
            raise ValueError(f"{path} has other sites or architectures than --space={space.name} was made of")
        return found
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


def _ops(space: TabularCell | TableSpace, row: int) -> list[str]:
    """The names of a row's operations."""
    numbers = np.unravel_index(row, [len(site.choices) for site in space.sites])
    return [site.choices[int(op)] for site, op in zip(space.sites, numbers, strict=True)]


def _numbers(columns: file.Columns) -> dict[str, np.ndarray]:
    """The columns with a number, or several, for each architecture."""
    archs = "ops" if "ops" in columns else "arch"
    count = len(columns[archs])
    return {
        name: values
        for name, values in columns.items()
        if name != archs and values.ndim in (1, 2) and len(values) == count and values.dtype.kind in "fiu"
    }


def _results(columns: file.Columns) -> str:
    """The names that a setting may take, in words."""
    runs = {name: values.shape[1] if values.ndim == 2 else 0 for name, values in sorted(_numbers(columns).items())}
    names = [f"{name}[0]{f' to {name}[{k - 1}]' * (k > 1)}" if k else name for name, k in runs.items()]
    return f"its columns of numbers are {', '.join(names)}" if names else "it has no column of numbers"


def _unit(setting: str) -> str:
    """What to write where the unit of an accuracy is not known, in words."""
    write = f"--set {setting}=true (93.5 is 93.5 %) or --set {setting}=false (0.935 is 93.5 %)"
    return write if setting != "table.percent" else f"{write}, or --set table.metric=NAME where it is no accuracy"


def _names(columns: file.Columns) -> str:
    return ", ".join(sorted(columns))
