"""How the graphs of `resolution_graph` become networks, and UNet, UNet++ and its supervised form by name."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from nasjax.nets.resolution_graph.inherit import inherit
from nasjax.nets.resolution_graph.network import resolution_graph
from nasjax.spaces.resolution_graph.form import Graph, check, from_tree, to_tree
from nasjax.spaces.resolution_graph.indicators import indicators
from nasjax.spaces.resolution_graph.named import NAMED
from nasjax.spaces.resolution_graph.plan import GraphPlan, edge_counts
from nasjax.spaces.resolution_graph.space import ResolutionGraph
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe, Recipes
from nasjax.types import Builder, Built, PyTree, Signature


def _build(space: ResolutionGraph, form: None, tree: dict[str, Any], signature: Signature) -> Built:
    """Any valid graph, of this space or not: the baselines have operators that a search does not choose."""
    graph = from_tree(tree)
    check(graph)
    plan = GraphPlan(graph, signature.inputs.shape, signature.outputs)
    return Built(
        arch=to_tree(graph),
        params=plan.params,
        macs=plan.macs,
        plan=plan,
        network=lambda *, bn_eps, dtype: resolution_graph(plan, bn_eps=bn_eps, dtype=dtype),
        learning_rate=graph.learning_rate,
        layers=len(graph.nodes) + len(graph.edges),
        indicators=_indicators(graph),
    )


@functools.lru_cache(maxsize=1024)
def _indicators(graph: Graph) -> dict[str, float]:
    """What the report compares graphs by."""
    shape, counts = indicators(graph), edge_counts(graph)
    return {
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        **{f"{way}_edges": counts[way] for way in ("down", "same", "up")},
        "bottlenecks": int(shape["n_bottlenecks"]),
        "elongation": round(shape["elongation"], 6),
    }


def _inherit(child: Built, parent: Built, fresh: PyTree, old: PyTree) -> tuple[PyTree, float]:
    return inherit(child.plan, parent.plan, fresh, old)


SMALL = ResolutionGraph(
    levels=3, max_nodes=16, max_edges=40, channels=(8,), min_params=5_000, max_params=60_000, extra_nodes=2
)
RECIPE = Recipe(
    epochs=100,
    batch_size=16,
    learning_rate=1e-3,
    nesterov=False,
    schedule="cosine",
    final_rate=1e-5,
    augment=Augment(crop="none", rotate=True, colour=0.1),
)

# The blog article on asynchronous evolution of segmentation graphs (docs/methods/evolution.md), and its baseline.
PUBLISHED = {
    "dataset": "the Data Science Bowl 2018",
    "model": "the best graph of an asynchronous evolution, 120 epochs",
    "params": None,
    "test_iou": 0.868,
    "unlike": "its split is not published and its search saw the test part: not comparable",
    "source": "the blog article on this search",
    "baselines": {
        "UNETPP": {"model": "UNet++, 240 epochs", "params": 9_163_329, "test_iou": 0.843},
    },
}


def _recipes(augment: Augment) -> Recipes:
    """The article's, with its augmentation. In a demo by Adam: 200 steps of SGD at this rate learn nothing."""
    return Recipes(search=RECIPE, last=RECIPE, demo=dataclasses.replace(RECIPE, optimizer="adam"))


BUILDER = Builder(
    ResolutionGraph(),
    _build,
    ("segmentation",),
    named=NAMED,
    small=(SMALL, None),
    inherit=_inherit,
    datasets=("nuclei", "nuclei_folder"),
    recipes=_recipes,
    published=lambda config: PUBLISHED,
)
