"""A table as a problem: what a search may see of it, and the test values, which are opened at the end.

The reward of a table with several runs of every architecture (a column of two axes) is one of them, drawn by the
referee for every seed; what is compared in the end is another column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.table import Table, load_columns, load_table, table
from nasjax.referee.draws import told_run
from nasjax.types import Evaluator


class Seen(NamedTuple):
    """What searches see of a table: R architectures, K runs of each."""

    space: Any
    runs: np.ndarray  # f32[R, K], the rewards; NaN = failed, or not in the table
    table: Table  # its fitness is that of the first run, its results are NaN


def seen(space: Any, settings: Any, reward: str | None = None) -> Seen:
    """Reads rewards and costs, not the test values, by a method's settings of its table. Raises ValueError.

    `reward` is a column to be read in the place of the settings'.
    """
    reward = reward or settings.fitness
    count = _runs(settings.path, reward)
    columns = [reward] if count is None else [f"{reward}[{k}]" for k in range(count)]
    tables = [_table(space, settings, fitness=name, sealed=True) for name in columns]
    return Seen(space, np.stack([one.fitness for one in tables], 1), tables[0])


def opened(space: Any, settings: Any) -> np.ndarray:
    """The test values as fitness, f32[R], larger is better; for the end of a comparison. Raises ValueError."""
    first = settings.fitness if _runs(settings.path, settings.fitness) is None else f"{settings.fitness}[0]"
    found: np.ndarray = _table(space, settings, fitness=first).result
    return -found if settings.smaller else found


def _table(space: Any, settings: Any, **options: Any) -> Table:
    names = ("cost", "cost_scale", "result", "percent", "metric", "smaller", "fidelities")
    return load_table(settings.path, space, **{name: getattr(settings, name) for name in names} | options)


def _runs(path: str, column: str | None) -> int | None:
    """How many runs a column has; None where it has one axis, or is not named."""
    if column is None:
        return None
    values = load_columns(path).get(column)
    return values.shape[1] if values is not None and values.ndim == 2 else None


def rewards(seen: Seen, seed: jax.Array | int) -> jax.Array:
    """f32[R]: the run of every architecture that is told in the search with this seed of noise; traceable."""
    return _told(jnp.asarray(seen.runs), jnp.asarray(seed, jnp.uint32))


@jax.jit  # once for all comparisons of a process
def _told(runs: jax.Array, seed: jax.Array) -> jax.Array:
    if runs.shape[1] == 1:
        return runs[:, 0]
    return jnp.take_along_axis(runs, told_run(seed, jnp.isfinite(runs))[:, None], axis=1)[:, 0]


@jax.jit
def _tops(runs: jax.Array, seeds: jax.Array) -> jax.Array:
    return jax.lax.map(lambda seed: jnp.nanmax(_told(runs, seed)), seeds)


def tops(seen: Seen, noise: Sequence[int]) -> np.ndarray:
    """The best reward of the table as it is told on every seed of noise: f64[S]."""
    return np.asarray(_tops(jnp.asarray(seen.runs), jnp.asarray(np.array(noise, np.uint32))), np.float64)


def evaluator(seen: Seen, reward: jax.Array) -> Evaluator:
    """Looks up rewards; the test value of everything is NaN."""
    return table(seen.space, seen.table._replace(fitness=reward))  # type: ignore[arg-type]


def places(seen: Seen, arch: np.ndarray) -> np.ndarray:
    """The row of every architecture i32[..., S] of the table: i64[...], -1 where it has none."""
    counts = np.array([len(site.choices) for site in seen.space.sites])
    inside = np.all((arch >= 0) & (arch < counts), axis=-1)
    row = np.asarray(seen.space.index(np.where(np.expand_dims(inside, -1), arch, 0)))
    return np.where(inside, row, -1).astype(np.int64)
