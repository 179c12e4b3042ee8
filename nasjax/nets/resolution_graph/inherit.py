"""Which of a parent's weights a mutated graph starts from.

The blog post on asynchronous evolution of segmentation graphs says that weights are partly inherited; the rule is ours.
A child keeps its parent's ids for the nodes and edges that it shares with it, so their weights have the same names in
both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nasjax.spaces.resolution_graph.form import Graph
from nasjax.spaces.resolution_graph.plan import GraphPlan
from nasjax.types import PyTree

_KERNEL_AXES = {"conv": 2, "depthwise": 2, "transposed": 2}  # leading axes of a kernel that are height and width


def inherit(child: GraphPlan, parent: GraphPlan, fresh: PyTree, old: PyTree) -> tuple[PyTree, float]:
    """The child's initial variables, with those that it inherits from its parent.

    - A tensor of the same node or edge with the same shape is the parent's.
    - Of another shape (other channels, kernel size or expansion): the slice that both have, leading in channels and
      central in a kernel's height and width, is the parent's, and the rest is fresh.
    - A node or edge whose operator changed, or that the parent does not have, is fresh.
    - The 1x1 kernel of an edge that the parent does not have is zero where it leads to a node that the parent has: so a
      child with more nodes and edges initially computes the same as its parent. Kernels into a new node are not zero,
      because with both kernels of an inserted node at zero no gradient would ever reach it.
    - Running statistics of batch norm are the parent's where its whole layer is, else fresh.

    Runs on numpy and compiles nothing.

    Args:
      child, parent: their networks.
      fresh: the child's initial variables.
      old: the parent's final variables.

    Returns:
      The variables, numpy arrays, and the part of the child's weights that is the parent's, 0..1.

    Example:
      >>> variables, part = inherit(child_plan, parent_plan, network.init(key, None, x), trained)  # doctest: +SKIP
    """
    before, after = _kinds(parent), _kinds(child)
    nodes, edges = {node.id for node in parent.graph.nodes}, {edge.id for edge in parent.graph.edges}
    silent = {f"edge{edge.id}" for edge in child.graph.edges if edge.id not in edges and edge.dst in nodes}
    params: PyTree = {}
    stats: PyTree = dict(fresh["batch_stats"])
    copied = total = 0
    for name, own in fresh["params"].items():
        theirs = old["params"].get(name, {}) if before.get(name) == after[name] else {}
        params[name], count = _merged(own, theirs)
        copied += count
        total += _size(own)
        if name in silent and "merge" in own:
            params[name]["merge"] = {kind: np.zeros_like(kernel) for kind, kernel in params[name]["merge"].items()}
        if name in stats and theirs:
            stats[name] = _statistics(own, theirs, stats[name], old["batch_stats"].get(name, {}))
    return {**fresh, "params": params, "batch_stats": stats}, copied / max(total, 1)


def _kinds(plan: GraphPlan) -> dict[str, Any]:
    """The operator of every node and edge that has variables, by its name in them."""
    graph: Graph = plan.graph
    return {
        **{f"node{node.id}": node.op for node in graph.nodes},
        **{f"edge{edge.id}": edge.op for edge in graph.edges},
        **{f"head{node_id}": "head" for node_id in plan.heads},
    }


def _merged(own: PyTree, theirs: PyTree, kind: str = "") -> tuple[PyTree, int]:
    """Fresh values, replaced by the other tree's where both have them, as numpy arrays; and the number replaced."""
    if isinstance(own, dict):
        found = {name: _merged(value, theirs.get(name, {}), name) for name, value in own.items()}
        return {name: value for name, (value, _) in found.items()}, sum(count for _, count in found.values())
    value = np.array(own)
    if isinstance(theirs, dict) or np.ndim(theirs) != value.ndim:
        return value, 0
    common = [min(sizes) for sizes in zip(value.shape, np.shape(theirs), strict=True)]
    spatial = _KERNEL_AXES.get(kind, 0)

    def place(shape: tuple[int, ...]) -> tuple[slice, ...]:
        margins = [side - size for side, size in zip(shape, common, strict=True)]
        starts = [margin // 2 if axis < spatial else 0 for axis, margin in enumerate(margins)]
        return tuple(slice(start, start + size) for start, size in zip(starts, common, strict=True))

    value[place(value.shape)] = np.asarray(theirs)[place(np.shape(theirs))]
    return value, int(np.prod(common))


def _statistics(own: PyTree, theirs: PyTree, fresh: PyTree, old: PyTree) -> PyTree:
    """Statistics by layer ("conv0", "norm", ...): the old ones where all weights of the layer are the old ones."""
    return {layer: old[layer] if _same(own[layer], theirs.get(layer)) else of for layer, of in fresh.items()}


def _same(a: PyTree, b: PyTree) -> bool:
    """Whether two layers have tensors of the same names and shapes."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    return not isinstance(a, dict) and not isinstance(b, dict) and np.shape(a) == np.shape(b)


def _size(tree: PyTree) -> int:
    return sum(map(_size, tree.values())) if isinstance(tree, dict) else int(np.size(tree))
