"""From scores of operators to a discrete cell: two edges per node, one operator per edge; and back to weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.spaces.darts_cell.space import CELLS, EDGES, NODES, OPERATORS
from nasjax.types import PyTree

Names = Sequence[Sequence[str]]  # for each edge the operators it chooses from
Pair = tuple[int, int]  # (edge, operator)
Edges = Mapping[str, Sequence[tuple[int, int]]]  # of each cell type the nodes (from, to) of its edges, ordered by `to`
DARTS_EDGES: Edges = dict.fromkeys(CELLS, EDGES)


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


def cell_by_cell(pairs: Sequence[list[Pair]], names: Names) -> dict[str, Any]:
    """The JSON form of an architecture whose cells differ: 8 pairs [operator, source] for each of a network."""
    return {"space": "darts_cell", "cells": [[[names[e][o], EDGES[e][0]] for e, o in cell] for cell in pairs]}


def kind_of(k: int, layers: int) -> str:
    """Of cell k of a network: the cells at a third and at two thirds reduce."""
    return CELLS[k in (layers // 3, 2 * layers // 3)]


def discrete_choice(tree: Mapping[str, Any], facts: Mapping[str, Any], like: PyTree) -> PyTree:
    """The search network's `choice` that computes the derived cell alone: 1 for what was kept, 0 elsewhere.

    Args:
      tree: the derived architecture as JSON.
      facts: the operators of each edge.
      like: a choice of the network, by kind of cell or for every cell ("cell0", ...); the weights of edges, where it
        has them, become 1 and 0 as well (ours).
    """
    out, own = dict(like), sorted((name for name in like if name not in CELLS and name.startswith("cell")), key=len)
    for cell in [name for name in like if name in CELLS and "cells" not in tree] + own:
        kind = cell if cell in CELLS else kind_of(int(cell[4:]), len(own))
        kept = np.zeros(np.shape(like[cell]), np.float32)
        for position, (operator, source) in enumerate(tree["cells"][int(cell[4:])] if "cells" in tree else tree[kind]):
            edge = EDGES.index((source, 2 + position // 2))
            kept[edge, list(facts[kind][edge]).index(operator)] = 1.0
        out[cell] = kept
        if f"{cell}_edges" in out:  # partial channels pass by the operators, so 0 for these is not enough
            out[f"{cell}_edges"] = kept.any(1).astype(np.float32)
    return out
