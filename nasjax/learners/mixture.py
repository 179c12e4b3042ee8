"""A search network whose cells are mixtures: every edge is a weighted sum of operators, and how its cells are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nasjax.spaces.darts_cell.derivation import Edges, Names
from nasjax.spaces.darts_cell.plan import SearchStem
from nasjax.types import Network, PyTree

Stem = SearchStem  # what images enter a network of stacked cells by

Scores = Mapping[str, np.ndarray]  # cell type -> f[E, O]


class Mixture(NamedTuple):
    """A search network, and how its cells are read.

    network(dtype) -> Network; `choice` = {cell: f32[E, O]}, perhaps with the weights of edges {cell_edges: f32[E]}
    derive(scores) -> architecture as JSON
    discrete(tree, names, like) -> the choice that computes the derived cell alone, shaped as `like`
    written(tree) -> the architecture in the field's own notation
    skips(tree) -> its skip connections, of the normal cell where there are two
    """

    network: Callable[[str], Network]
    edges: Edges
    names: Mapping[str, Names]  # operators of each edge
    derive: Callable[[Scores], dict[str, Any]]
    discrete: Callable[[Mapping[str, Any], Mapping[str, Any], PyTree], PyTree]
    written: Callable[[Mapping[str, Any]], str]
    skips: Callable[[Mapping[str, Any]], int]
    params: int
    macs: int
    plan: Any = None  # the tables of its layers, for learners that read its weights

    @property
    def operators(self) -> int:
        """How many each edge has."""
        return len(next(iter(self.names.values()))[0])
