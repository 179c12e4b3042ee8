"""A table as a problem: what a search may see of it, and the test values, which are opened at the end.

The reward of a table with several runs of every architecture (a column of two axes) is one of them, drawn by the
referee for every seed; what is compared in the end is another column.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.table import Table, load_table, table
from nasjax.referee.draws import told_run
from nasjax.types import Evaluator


class Seen(NamedTuple):
    """What searches see of a table: R architectures, K runs of each."""

    space: Any
    runs: np.ndarray  # f32[R, K], the rewards; NaN = failed, or not in the table
    cost: np.ndarray  # f32[R]
    known: np.ndarray  # bool[R]


def seen(space: Any, settings: Any, reward: str | None = None) -> Seen:
    """Reads rewards and costs, not the test values, by a method's settings of its table. Raises ValueError.

    `reward` is a column to be read in the place of the settings'.
    """
    options = {name: getattr(settings, name) for name in ("cost", "cost_scale", "percent", "result")}
    reward = reward or settings.fitness
    shape = _shape(settings.path, reward)
    columns = [reward] if len(shape) < 2 else [f"{reward}[{k}]" for k in range(shape[1])]
    tables = [load_table(settings.path, space, fitness=name, sealed=True, **options) for name in columns]
    return Seen(space, np.stack([one.fitness for one in tables], 1), tables[0].cost, tables[0].known)


def _shape(path: str, column: str | None) -> tuple[int, ...]:
    """The shape of a column; () where the file's layout chooses it, or nothing can be read."""
    if column is None or not os.path.isfile(path):
        return ()
    with np.load(path) as file:
        return file[column].shape if column in file.files else ()


def opened(space: Any, settings: Any) -> np.ndarray:
    """The test values, f32[R]; for the end of a comparison. Raises ValueError."""
    options = {name: getattr(settings, name) for name in ("result", "percent")}
    fitness = settings.fitness
    if fitness is not None and len(_shape(settings.path, fitness)) == 2:
        fitness += "[0]"
    found: np.ndarray = load_table(settings.path, space, fitness=fitness, **options).result
    return found


def rewards(seen: Seen, seed: jax.Array) -> jax.Array:
    """f32[R]: the run of every architecture that is told in the search with this seed of noise; traceable."""
    count = seen.runs.shape[1]
    if count == 1:
        return jnp.asarray(seen.runs)[:, 0]
    run = told_run(seed, len(seen.runs), count)
    return jnp.take_along_axis(jnp.asarray(seen.runs), run[:, None], axis=1)[:, 0]


def tops(seen: Seen, noise: Sequence[int]) -> np.ndarray:
    """The best reward of the table as it is told on every seed of noise: f64[S]."""
    program = jax.jit(lambda seeds: jax.lax.map(lambda seed: jnp.nanmax(rewards(seen, seed)), seeds))
    return np.asarray(program(jnp.asarray(np.array(noise, np.uint32))), np.float64)


def evaluator(seen: Seen, reward: jax.Array) -> Evaluator:
    """Looks up rewards; the test value of everything is NaN."""
    sealed: Any = jnp.full(reward.shape, jnp.nan)
    return table(seen.space, Table(reward, seen.cost, sealed, seen.known))  # type: ignore[arg-type]
