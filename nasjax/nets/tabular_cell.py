"""The supernet of NAS-Bench-201, of which every cell is a path.

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

from nasjax.nets.cell_parts import Mode, initialise, wide
from nasjax.nets.numerics import cast, precision
from nasjax.nets.supernet import Supernet, switch
from nasjax.ops.collective import sample_index
from nasjax.ops.conv import conv2d
from nasjax.ops.norm import batch_norm
from nasjax.ops.pool import avg_pool
from nasjax.spaces.tabular_plan import SIZES, STAGES, TabularPlan
from nasjax.types import Key, PyTree

_RESIDUAL = {"first": 2, "second": 1}  # the convolutions of a residual block, and their strides


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

    for s in range(STAGES):
        if s:
            name = f"reduce{s}"
            x, after[name] = _residual(params[name], stats[name], x, mode)
        name = f"stage{s}"
        x, after[name] = jax.lax.scan(cell, x, (params[name], stats[name]), length=plan.form.cells)
    head = params["head"]
    x, last = _norm(head["norm"], stats["head"]["norm"], x, mode)
    after["head"] = {"norm": last}
    x = wide(jax.nn.relu(x)).mean((1, 2))
    if dropout and key is not None:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, sample_index(len(x)))
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - dropout, x.shape[1:]))(keys)
        x = jnp.where(keep, x / (1 - dropout), 0)
    logits = jnp.matmul(x, head["dense"]["kernel"], precision="highest") + head["dense"]["bias"][None]
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


def _conv(params: PyTree, stats: PyTree, x: jax.Array, mode: Mode, stride: int = 1) -> tuple[jax.Array, PyTree]:
    """A convolution and its batch norm."""
    x, kernel = cast(mode.dtype, x, params["kernel"])
    x = conv2d(x, kernel, (stride, stride), precision=precision(mode.dtype))
    y, after = _norm(params.get("norm", {}), stats["norm"], x, mode)
    return y, {"norm": after}


def _norm(params: PyTree, stats: PyTree, x: jax.Array, mode: Mode) -> tuple[jax.Array, PyTree]:
    mean, var = stats["mean"], stats["var"]
    gamma, beta = params.get("gamma", jnp.ones_like(mean)), params.get("beta", jnp.zeros_like(mean))
    y, (mean, var) = batch_norm(x, gamma, beta, mean, var, train=mode.train, momentum=mode.bn_momentum, eps=mode.bn_eps)
    return y, {"mean": mean, "var": var}


def _residual(params: PyTree, stats: PyTree, x: jax.Array, mode: Mode) -> tuple[jax.Array, PyTree]:
    """Two convolutions, the first with stride 2, beside the means of 2x2 pixels and a 1x1 convolution."""
    y, after = x, {}
    for name, stride in _RESIDUAL.items():
        y, after[name] = _conv(params[name], stats[name], jax.nn.relu(y), mode, stride)
    b, h, w, c = x.shape
    means = x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
    means, kernel = cast(mode.dtype, means, params["shortcut"]["kernel"])
    return y + conv2d(means, kernel, precision=precision(mode.dtype)), after


def initial(key: Key, plan: TabularPlan, affine: bool, dtype: Any) -> PyTree:
    """The variables of all operations, the cells of a stage stacked."""

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    def conv(size: int, c_in: int, c_out: int, affine: bool = True) -> PyTree:
        scales = {"norm": {"gamma": array(c_out), "beta": array(c_out)}} if affine else {}
        params = {"kernel": array(size, size, c_in, c_out), **scales}
        return {"params": params, "batch_stats": {"norm": {"mean": array(c_out), "var": array(c_out)}}}

    def together(parts: dict[str, PyTree]) -> PyTree:
        return {kind: {name: part[kind] for name, part in parts.items()} for kind in ("params", "batch_stats")}

    widths = [c for c, _ in plan.stages]
    parts = {"stem": conv(3, plan.image[2], widths[0])}
    for s, c in enumerate(widths):
        if s:
            block = together({"first": conv(3, widths[s - 1], c), "second": conv(3, c, c)})
            block["params"]["shortcut"] = {"kernel": array(1, 1, widths[s - 1], c)}
            parts[f"reduce{s}"] = block
        ops = {op: size for op, size in SIZES.items() if op in plan.space.ops}
        cell = together(
            {
                f"edge{e}": together({op: conv(size, c, c, affine) for op, size in ops.items()})
                for e in range(plan.space.edges)
            }
        )
        parts[f"stage{s}"] = {kind: [cell[kind]] * plan.form.cells for kind in cell}
    shapes = together(parts)
    last = conv(1, widths[-1], widths[-1])
    dense = {"kernel": array(widths[-1], plan.classes), "bias": array(plan.classes)}
    shapes["params"]["head"] = {"norm": last["params"]["norm"], "dense": dense}
    shapes["batch_stats"]["head"] = last["batch_stats"]
    values = initialise(key, shapes, dtype)
    for kind in values:
        for s in range(STAGES):
            values[kind][f"stage{s}"] = jax.tree.map(lambda *cells: jnp.stack(cells), *values[kind][f"stage{s}"])
    return values
