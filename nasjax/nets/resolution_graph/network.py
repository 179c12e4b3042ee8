"""The network of a graph over resolutions: a mask for every image, as a whole and part by part."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import Mode
from nasjax.nets.numerics import precision
from nasjax.nets.resolution_graph.parts import Concatenation, Gather, Head, Link, Piece, Spot, Stem
from nasjax.ops.parts import part_of, through, with_part
from nasjax.spaces.resolution_graph.form import VGG
from nasjax.spaces.resolution_graph.plan import GraphPlan
from nasjax.types import Key, Network, Part, PyTree

_CHUNK = 2**16  # weights drawn by one call; one program serves networks of all sizes
_IN_PLACE = {"pointwise": -2, "transposed": -2}  # kernels whose fan-in is one axis; of others it is all but the last


def resolution_graph(plan: GraphPlan, *, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The network of a graph, see `GraphPlan`.

    variables = {"params", "batch_stats"} by "node7", "edge3", "head9", ..., named by ids: nodes and edges that a child
    shares with its parent have the same names in both. A part's computation does not depend on ids or on the rest of
    the graph, and there are few pairs of an operator and a level, so a new graph consists of known programs.

    `choice`, `key` and `drop_rate` are not used.

    Args:
      plan: graph, image channels, outputs. Images of other sizes are segmented too.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights, statistics and logits stay float32.

    Returns:
      Network: x [B, H, W, C] -> logits [B, H, W, outputs]. With deep supervision the logits of all heads, a tuple,
      in training; else their mean.

    Raises:
      ValueError: another dtype.

    Example:
      >>> network = resolution_graph(GraphPlan(space.graph(arch), (96, 96, 3)))  # doctest: +SKIP
    """
    precision(dtype)
    lines = tuple(_lines(plan))
    parts = tuple(
        Part((name,), apply_of(piece, bn_eps, dtype), reads, writes, _nothing) for name, piece, reads, writes in lines
    )

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        shapes: PyTree = {"params": {}, "batch_stats": {}}
        for name, piece, _, _ in lines:
            for kind, of in piece.shapes().items():
                shapes[kind] |= {name: of} if of else {}
        return initialise(key, shapes, jnp.result_type(x, jnp.float32))

    def apply(
        variables: PyTree,
        choice: Any,
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[PyTree, PyTree]:
        after = variables

        def run(i: int, part: Part, inputs: PyTree) -> PyTree:
            nonlocal after
            own = part_of(variables, part)
            outputs, own = part.apply(own, (), inputs, train=train, bn_momentum=bn_momentum)
            after = with_part(after, part, own)
            return outputs

        return through(parts, run, x), after

    return Network(init, apply, parts)


def _lines(plan: GraphPlan) -> Iterator[tuple[str, Piece, tuple[str, ...], tuple[str, ...]]]:
    """Name, piece, what it reads, what it writes, in the order in which they run."""
    graph, sources = plan.graph, plan.graph.sources()
    for rank, node in enumerate(graph.nodes):
        name, steps, reads = f"node{node.id}", plan.node(node), tuple(f"node{e.src}" for e in sources[node.id])
        if rank == 0:
            yield name, Stem(steps, 1 << plan.depth), ("x",), (name,)
        elif node.op == VGG:
            ops = tuple((edge.op, plan.edge(edge)[0]) for edge in sources[node.id])
            yield name, Concatenation(ops, steps), reads, (name,)
        else:
            total: tuple[str, ...] = ()
            for edge in sources[node.id]:
                before, kernel = plan.edge(edge)
                assert kernel is not None and node.op is not None
                yield f"edge{edge.id}", Link(edge.op, before, kernel), (f"node{edge.src}", *total), (f"edge{edge.id}",)
                total = (f"edge{edge.id}",)
            assert node.op is not None
            yield name, Spot(node.op, steps, plan.width(node.level)), total, (name,)
        if node.id in plan.heads:
            logits = f"head{node.id}" if len(plan.heads) > 1 else "y"
            yield f"head{node.id}", Head(plan.width(0), plan.outputs), (name, "x"), (logits,)
    if len(plan.heads) > 1:
        yield "heads", Gather(), tuple(f"head{node_id}" for node_id in plan.heads), ("y",)


def _nothing(choice: Any) -> tuple[()]:
    return ()


@functools.lru_cache(maxsize=512)  # equal pieces of all graphs share programs; the least recently used are dropped
def apply_of(piece: Piece, bn_eps: float, dtype: str) -> Callable[..., tuple[PyTree, PyTree]]:
    """The `apply` of parts that compute `piece`."""

    def apply(
        variables: PyTree,
        choice: Any,
        inputs: tuple[jax.Array, ...],
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[tuple[PyTree, ...], PyTree]:
        stats = variables.get("batch_stats", {})
        mode = Mode(train, bn_momentum, bn_eps, dtype)
        outputs, after = piece.run(variables.get("params", {}), stats, inputs, mode)
        return outputs, ({**variables, "batch_stats": after} if train and stats else variables)

    return apply


def initialise(key: Key, shapes: PyTree, dtype: Any) -> PyTree:
    """Initial values: kernels uniform within 1 / sqrt(fan-in), scales and variances 1, the rest 0.

    Drawn in pieces of one size, so that a network of a size never seen before compiles nothing. They stay on the host:
    the first program that reads them transfers them ten times faster than `jnp.asarray` does one by one.

    Args:
      shapes: of the variables, tuples as leaves; the last part of a leaf's path is its kind.
    """
    leaves, tree = jax.tree.flatten_with_path(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    kinds = [path[-1].key for path, _ in leaves]
    kernels = [kind in ("conv", "depthwise", *_IN_PLACE) for kind in kinds]
    sizes = [math.prod(shape) if is_kernel else 0 for (_, shape), is_kernel in zip(leaves, kernels, strict=True)]
    chunks = [_uniform(key, i, dtype) for i in range(-(-sum(sizes) // _CHUNK))]
    traced = any(isinstance(chunk, jax.core.Tracer) for chunk in chunks)
    xp: Any = jnp if traced else np
    draws = xp.concatenate([xp.zeros(0, dtype), *(xp.asarray(chunk) for chunk in chunks)])
    values = []
    for kind, (_, shape), size, end in zip(kinds, leaves, sizes, np.cumsum(sizes).tolist(), strict=True):
        if size:
            fan_in = shape[_IN_PLACE[kind]] if kind in _IN_PLACE else math.prod(shape[:-1])
            values.append(xp.asarray(draws[end - size : end].reshape(shape) * fan_in**-0.5, dtype))
        else:
            values.append(xp.full(shape, float(kind in ("gamma", "var")), dtype))
    return jax.tree.unflatten(tree, values)


@functools.partial(jax.jit, static_argnums=2)
def _uniform(key: Key, i: jax.Array, dtype: Any) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(key, i), (_CHUNK,), dtype, -1.0, 1.0)
