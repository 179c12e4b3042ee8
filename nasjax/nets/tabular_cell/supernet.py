"""The supernet of NAS-Bench-201, in which every cell is a path.

Dong & Yang 2020, "NAS-Bench-201" (arXiv:2001.00326), section 2.1 and its code. A cell is data to the supernet's
program: each edge branches at run time into its operation, and the equal cells of a stage are one scan. So 15,625 cells
train alone after one compilation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import Mode, classify, normalise
from nasjax.nets.numerics import cast, precision
from nasjax.nets.supernet import Supernet, switch
from nasjax.nets.tabular_cell.network import Residual, initial
from nasjax.ops.conv import conv2d
from nasjax.ops.pool import avg_pool
from nasjax.spaces.tabular_cell.plan import SIZES, STAGES, TabularPlan
from nasjax.types import Key, PyTree


def tabular_supernet(
    plan: TabularPlan, *, affine: bool = True, dropout: float = 0.0, bn_eps: float = 1e-5, dtype: str = "float32"
) -> Supernet:
    """All operations of all edges; an Arch i32[edges], given as data, uses one per edge.

    params["stage1"]["edge4"]["nor_conv_3x3"]["kernel"] is [N, 3, 3, c, c]: the operation on that edge of the N cells of
    the stage. Kernels start uniform within 1 / sqrt(fan-in), as in the benchmark's code; the bias at 0 (ours). A path
    leaves parameters and running statistics of all other operations exactly as they are.

    Args:
      plan: space, form, image and classes.
      affine: whether the batch norms on the edges scale and shift; those elsewhere always do.
      dropout: before the classifier, in training, if `apply` has a key; the benchmark has none.
      bn_eps: epsilon of batch norm.
      dtype: of the convolutions, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Supernet: x [B, H, W, colours] -> logits [B, classes]. `scores` is f32[edges, ops + 1]: an operation without batch
      norm has the score 0, so that BN-NAS's indicator prefers any convolution to it.

    Raises:
      ValueError: another dtype.
    """
    precision(dtype)
    ops = plan.space.ops
    edges = {f"edge{e}": pair for e, pair in enumerate(plan.pairs)}
    trained = [op for op in ops if op in SIZES]

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        return initial(key, plan, affine, jnp.result_type(x, jnp.float32))

    def apply(
        variables: PyTree,
        choice: jax.Array,
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[jax.Array, PyTree]:
        mode = Mode(train, bn_momentum, bn_eps, dtype)

        def edge(e: int, params: PyTree, stats: PyTree, x: jax.Array) -> tuple[jax.Array, PyTree]:
            branches = [functools.partial(_branch, op, mode) for op in ops]
            return switch(branches)(choice[e], (params, x), stats)

        return _forward(plan, edge, variables, x, mode, key if train else None, dropout)

    def select(archs: jax.Array, new: PyTree, old: PyTree) -> PyTree:
        out = dict(new)
        for stage in (f"stage{s}" for s in range(STAGES)):
            out[stage] = {
                name: {
                    op: jax.tree.map(functools.partial(jnp.where, (archs[:, e] == ops.index(op)).any()), *both)
                    for op in trained
                    for both in [(new[stage][name][op], old[stage][name][op])]
                }
                for e, name in enumerate(edges)
            }
        return out

    def scores(params: PyTree) -> jax.Array:
        table = jnp.zeros((len(edges), len(ops) + 1))
        for e, name in enumerate(edges):
            for op in trained:
                found = [jnp.abs(params[f"stage{s}"][name][op]["norm"]["gamma"]).mean() for s in range(STAGES)]
                table = table.at[e, ops.index(op)].set(sum(found) / STAGES)
        return table

    def last_norm(path: tuple[str, ...]) -> bool:
        return path[0].startswith("stage") and path[-1] in ("gamma", "beta")

    return Supernet(init, apply, select, scores, last_norm)


def _forward(
    plan: TabularPlan,
    edge: Callable[..., tuple[jax.Array, PyTree]],
    variables: PyTree,
    x: jax.Array,
    mode: Mode,
    key: Key | None,
    dropout: float,
) -> tuple[jax.Array, PyTree]:
    """Stem, stages and classifier around `edge`(number, params, stats, x) -> (y, stats)."""
    params, stats, after = variables["params"], variables["batch_stats"], dict[str, Any]()
    x, after["stem"] = _conv(params["stem"], stats["stem"], x, mode)

    def cell(x: jax.Array, xs: tuple[PyTree, PyTree]) -> tuple[jax.Array, PyTree]:
        params, stats = xs
        nodes, after = [x], {}
        for to in range(1, plan.space.nodes):
            total: Any = 0
            for e, pair in enumerate(plan.pairs):
                if pair[1] == to:
                    name = f"edge{e}"
                    y, after[name] = edge(e, params[name], stats[name], nodes[pair[0]])
                    total = total + y
            nodes.append(total)
        return nodes[-1], after

    for s, (channels, _) in enumerate(plan.stages):
        if s:
            name = f"reduce{s}"
            own = {"params": params[name], "batch_stats": stats[name]}
            (x,), moved = Residual(channels).apply(own, (x,), (), mode, None, 0.0, mutable=["batch_stats"])
            after[name] = moved["batch_stats"]
        name = f"stage{s}"
        x, after[name] = jax.lax.scan(cell, x, (params[name], stats[name]), length=plan.form.cells)
    head = params["head"]
    x, last = normalise(head["norm"], stats["head"]["norm"], x, mode)
    after["head"] = {"norm": last}
    dense = {"dense": head["dense"]["kernel"], "bias": head["dense"]["bias"]}
    logits = classify(dense, jax.nn.relu(x), key, dropout)
    return logits, ({**variables, "batch_stats": after} if mode.train else variables)


def _branch(op: str, mode: Mode, moving: PyTree, stats: PyTree) -> tuple[jax.Array, PyTree]:
    """One operation of an edge: its output, and the running statistics of all operations there."""
    params, x = moving
    match op:
        case "none":
            return jnp.zeros_like(x), stats
        case "skip_connect":
            return x, stats
        case "avg_pool_3x3":
            return avg_pool(x, (3, 3)), stats
    y, after = _conv(params[op], stats[op], jax.nn.relu(x), mode)
    return y, {**stats, op: after}


def _conv(params: PyTree, stats: PyTree, x: jax.Array, mode: Mode) -> tuple[jax.Array, PyTree]:
    """A convolution and its batch norm."""
    x, kernel = cast(mode.dtype, x, params["kernel"])
    x = conv2d(x, kernel, precision=precision(mode.dtype))
    y, after = normalise(params.get("norm", {}), stats["norm"], x, mode)
    return y, {"norm": after}
