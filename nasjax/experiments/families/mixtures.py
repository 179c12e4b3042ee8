"""The search networks of DARTS and PC-DARTS over each space: every edge of a cell is a weighted sum of operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nasjax.learners.derivation import DARTS_EDGES, Edges, Names, architecture, discrete_choice, kept_pairs
from nasjax.nets.darts_search import darts_search
from nasjax.nets.tabular_mixed import tabular_mixed
from nasjax.spaces.darts_notation import written
from nasjax.spaces.darts_plan import SearchPlan
from nasjax.spaces.tabular_plan import TabularPlan
from nasjax.types import Network, PyTree, Signature

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

    @property
    def operators(self) -> int:
        """How many each edge has."""
        return len(next(iter(self.names.values()))[0])


def mixture(config: Any, signature: Signature, partial: int = 1) -> Mixture:
    """The search network of the configured space; one channel in `partial` goes through the operators."""
    return _OF[config.space.name](config, signature, partial)


def skips(tree: Mapping[str, Any]) -> int:
    """Skip connections in the normal cell of a `darts_cell`."""
    return sum(operator == "skip_connect" for operator, _ in tree["normal"])


def _darts_cell(config: Any, signature: Signature, partial: int) -> Mixture:
    search, names = config.search, config.space.searched

    def network(dtype: str) -> Network:
        return darts_search(
            channels=search.channels,
            layers=search.layers,
            classes=signature.outputs,
            operators=names,
            partial=partial,
            dtype=dtype,
        )

    def derive(scores: Scores) -> dict[str, Any]:
        return architecture({cell: kept_pairs(values, names[cell]) for cell, values in scores.items()}, names)

    plan = SearchPlan(
        search.channels, search.layers, signature.outputs, names, partial=partial, image=signature.inputs.shape
    )
    return Mixture(
        network, DARTS_EDGES, names, derive, discrete_choice, written, skips, params=plan.params, macs=plan.macs
    )


def _tabular_cell(config: Any, signature: Signature, partial: int) -> Mixture:
    """The cell keeps the likeliest operation of every edge; `none` may win, as in the benchmark's code."""
    space = config.space
    plan = TabularPlan(space, config.form, signature.inputs.shape, signature.outputs)

    def derive(scores: Scores) -> dict[str, Any]:
        return space.encode(np.argmax(scores["cell"], axis=1).astype(np.int32))

    def discrete(tree: Mapping[str, Any], names: Mapping[str, Any], like: PyTree) -> PyTree:
        kept = {"cell": np.eye(len(space.ops), dtype=np.float32)[space.decode(tree)]}
        return kept | {name: np.ones_like(values) for name, values in like.items() if name != "cell"}

    params, macs = plan.mixed(partial)
    return Mixture(
        lambda dtype: tabular_mixed(plan, partial=partial, dtype=dtype),
        {"cell": plan.pairs},
        {"cell": [list(space.ops)] * space.edges},
        derive,
        discrete,
        lambda tree: space.format(space.decode(tree)),
        lambda tree: sum(op == "skip_connect" for op in tree["ops"]),
        params,
        macs,
    )


_OF = {"darts_cell": _darts_cell, "tabular_cell": _tabular_cell}
