"""P-DARTS: three searches, each in a deeper network with fewer operators per edge.

Chen et al. 2019, "Progressive Differentiable Architecture Search" (arXiv:1904.12760), sections 3.2 and 3.3; details
follow the authors' code (docs/methods/p_darts.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.learners.architecture_gradient import ArchitectureGradient, first_order
from nasjax.learners.bilevel import BilevelState, bilevel
from nasjax.learners.darts import probabilities, softmax_relaxation
from nasjax.learners.descent import Adam
from nasjax.spaces.darts_cell.derivation import Names, architecture, every_edge, kept_pairs
from nasjax.spaces.darts_cell.space import CELLS
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.sgd import Sgd
from nasjax.types import Learner, Network, Stages

Facts = Mapping[str, Names]  # 14 lists of operator names for each of "normal" and "reduce"; JSON


def p_darts(
    network: Callable[[int, Any], Network],
    *,
    depths: Sequence[int] = (5, 11, 17),
    operators: Sequence[int] = (8, 5, 3),
    dropout: Sequence[float] = (0.0, 0.4, 0.7),
    epochs: int = 25,
    frozen_epochs: int = 10,
    sgd: Sgd | None = None,
    adam: Adam | None = None,
    architecture_gradient: ArchitectureGradient = first_order,
    names: Mapping[str, Names] | None = None,
    objective: Objective = CLASSIFICATION,
    accumulate: int = 1,
    devices: int | None = None,
) -> Stages:
    """The stages of P-DARTS, CIFAR settings (batch 96, width 16). Weights and alpha start anew at each stage.

    Args:
      network: (depth, operators) -> search network of `depth` cells; `operators` are {"normal": 14 tuples of names,
        "reduce": 14 tuples}, as `edge_operators` gives them.
      depths: cells of each stage.
      operators: candidates per edge in each stage.
      dropout: initial rate after identity skips in each stage; the authors' README starts with 0.1.
      epochs, frozen_epochs: of each stage. `bilevel` explains the other arguments.
      names: the first stage's operators of each edge; None = all on every edge.

    Returns:
      Stages; the facts of a stage are the operators kept on each edge.

    Raises:
      ValueError: the stages do not fit together.

    Example:
      >>> stages = p_darts(lambda depth, operators: darts_search(layers=depth, operators=operators))
      >>> facts = stages.facts(0, None, None)
      >>> learner = stages.learner(0, facts)  # train it, then:
      >>> facts = stages.facts(1, facts, state)
    """
    if not len(depths) == len(operators) == len(dropout):
        raise ValueError(f"give every stage a depth, operators and dropout; got {depths}, {operators}, {dropout}")
    first = names or every_edge()
    most = len(first[CELLS[0]][0])
    if operators[0] != most or list(operators) != sorted(operators, reverse=True) or operators[-1] < 2:
        raise ValueError(f"operators must fall from the space's {most} to at least 2, got {operators}")

    def facts(i: int, previous: Facts | None, state: BilevelState | None) -> Facts | None:
        if i == len(depths):
            return None
        if i == 0:
            return {cell: [list(of) for of in first[cell]] for cell in CELLS}
        assert previous is not None and state is not None
        return {cell: keep(p, previous[cell], operators[i]) for cell, p in probabilities(state).items()}

    def learner(i: int, facts: Facts) -> Learner:
        rate = dropout[i]
        return bilevel(
            network(depths[i], edge_operators(facts)),
            softmax_relaxation(operators[i]),
            epochs=epochs,
            frozen_epochs=frozen_epochs,
            sgd=sgd or Sgd(final_rate=0.0),
            adam=adam or Adam(learning_rate=6e-4, clip=5.0),
            architecture_gradient=architecture_gradient,
            drop_rate=(lambda epoch: skip_dropout(rate, epoch, epochs, frozen_epochs)) if rate else None,
            objective=objective,
            accumulate=accumulate,
            devices=devices,
        )

    return Stages(facts, learner)


def edge_operators(facts: Facts) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The operators of a stage as the network takes them."""
    return {cell: tuple(map(tuple, facts[cell])) for cell in CELLS}


def skip_dropout(rate: float, epoch: int, epochs: int = 25, frozen_epochs: int = 10) -> float:
    """Dropout after skips: falls linearly while alpha is frozen, then starts again and decays exponentially."""
    if epoch < frozen_epochs:
        return rate * (epochs - epoch - 1) / epochs
    return rate * math.exp(-0.2 * (epoch - frozen_epochs))


def keep(p: np.ndarray, names: Names, count: int) -> list[list[str]]:
    """The `count` likeliest operators of each edge, in their old order; `none` competes. Ties drop the lower index.

    Args:
      p: f[14, O], probabilities.
      names: 14 lists of O operators.
    """
    kept = np.sort(np.argsort(p, axis=1, kind="stable")[:, p.shape[1] - count :], axis=1)
    return [[of[o] for o in row] for of, row in zip(names, kept, strict=True)]


def derive(state: BilevelState, facts: Facts, *, max_skips: int | None = 2) -> dict[str, Any]:
    """The discrete architecture after the last stage, as JSON; a node's pairs are in the order of their edges.

    Args:
      state: of the last stage.
      facts: of the last stage.
      max_skips: most skip connections in the normal cell (section 3.3): while there are more, the least likely one
        of those chosen gets probability 0 and the choice is made again. Edges that have nothing else (a small subset of
        operators) keep theirs. None = no limit.
    """
    p = {cell: np.array(values) for cell, values in probabilities(state).items()}
    pairs = {cell: sorted(kept_pairs(p[cell], facts[cell])) for cell in CELLS}
    if max_skips is not None:
        while len(skips := [(e, o) for e, o in pairs["normal"] if facts["normal"][e][o] == "skip_connect"]) > max_skips:
            if not (left := [pair for pair in skips if p["normal"][pair] > 0]):
                break
            p["normal"][min(left, key=lambda pair: p["normal"][pair])] = 0.0
            pairs["normal"] = sorted(kept_pairs(p["normal"], facts["normal"]))
    return architecture(pairs, facts)
