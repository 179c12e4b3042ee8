"""Fidelities of a table: results after fewer epochs, and what going on from them costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Proposal

_FORM = re.compile(r"(?P<epochs>\d+):(?P<fitness>[^:]+):(?P<cost>[^:*]+)(?:\*(?P<scale>[0-9.eE+-]+))?")


class Fidelity(NamedTuple):
    """Epochs of training, the columns with what they come to, and the factor of the costs."""

    epochs: int
    fitness: str
    cost: str  # of all these epochs
    cost_scale: float = 1.0


def parsed(texts: Sequence[str]) -> list[Fidelity]:
    """Fidelities from texts "EPOCHS:FITNESS:COST" or "EPOCHS:FITNESS:COST*FACTOR", epochs rising.

    Raises ValueError where they are none.

    Example:
      >>> parsed(["12:short:seconds*0.06", "200:long:seconds"])[0]
      Fidelity(epochs=12, fitness='short', cost='seconds', cost_scale=0.06)
    """
    found = []
    for text in texts:
        if not (match := _FORM.fullmatch(text)):
            raise ValueError(f"table.fidelities: {text!r} is no EPOCHS:FITNESS:COST or EPOCHS:FITNESS:COST*FACTOR")
        scale = match["scale"]
        try:
            found.append(Fidelity(int(match["epochs"]), match["fitness"], match["cost"], float(scale or 1)))
        except ValueError:
            raise ValueError(f"table.fidelities: {scale!r} in {text!r} is no number") from None
    epochs = [one.epochs for one in found]
    if epochs != sorted(set(epochs)) or (epochs and epochs[0] < 1):
        raise ValueError(f"table.fidelities: epochs must rise from 1 on, got {', '.join(map(str, epochs))}")
    return found


class Rungs(NamedTuple):
    """Results by fidelity."""

    epochs: np.ndarray  # i32[F], rising
    fitness: np.ndarray  # f32[R, F]
    cost: np.ndarray  # f32[R, F], seconds from the first epoch on

    def of(self, proposal: Proposal, at: Callable[[Any], jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """bool[N], f32[N], f32[N]: whether there is the fidelity, its fitness, and the seconds that are added.

        `at` takes the rows of the proposals. One with a parent goes on from the next lower fidelity.
        """
        same = jnp.asarray(proposal.fidelity)[:, None] == jnp.asarray(self.epochs)[None]
        number = same.argmax(1)

        def of(column: np.ndarray, which: jax.Array) -> jax.Array:
            return jnp.take_along_axis(at(column), which[:, None], 1)[:, 0]

        goes_on = (jnp.asarray(proposal.parent) >= 0) & (number > 0)
        before = jnp.where(goes_on, of(self.cost, jnp.maximum(number - 1, 0)), 0.0)
        return same.any(1), of(self.fitness, number), of(self.cost, number) - before
