"""From scores of operators to a discrete cell: two edges per node, one operator per edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.spaces.darts_cell import CELLS, EDGES, NODES, OPERATORS

Names = Sequence[Sequence[str]]  # for each edge the operators it chooses from
Pair = tuple[int, int]  # (edge, operator)


def every_edge(operators: Sequence[str] = OPERATORS) -> dict[str, Names]:
    """The same operators on all edges of both cells."""
    return dict.fromkeys(CELLS, [list(operators)] * len(EDGES))


def kept_pairs(p: np.ndarray, names: Names) -> list[Pair]:
    """The two strongest edges of each node, strongest first, each with its likeliest operator; `none` is not eligible.

    Args:
      p: f[14, O], score of each operator of each edge. An edge is as strong as its best eligible operator.
      names: the operators' names, by edge.

    Returns:
      8 pairs, two per node. Ties go to the lower index.
    """
    eligible = np.where(np.array(names) == "none", -np.inf, p)
    strength, best = eligible.max(1), eligible.argmax(1)
    pairs: list[Pair] = []
    for node in NODES:
        edges = [e for e, (_, to) in enumerate(EDGES) if to == node]
        pairs += [(e, int(best[e])) for e in sorted(edges, key=lambda e: -strength[e])[:2]]
    return pairs


def architecture(pairs: Mapping[str, list[Pair]], names: Mapping[str, Names]) -> dict[str, Any]:
    """The JSON form: per cell type 8 pairs [operator, source]."""

    def cell(kind: str) -> list[list[Any]]:
        return [[names[kind][e][o], EDGES[e][0]] for e, o in pairs[kind]]

    return {"space": "darts_cell", **{kind: cell(kind) for kind in CELLS}}
