"""The own network of a cell of NAS-Bench-201, made of parts: a cell never seen before compiles nothing.

Dong & Yang 2020, "NAS-Bench-201" (arXiv:2001.00326), section 2.1 and its code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import ZEROS, Conv, Dense, Layer, Mode, Norm, initialise, wide
from nasjax.nets.numerics import cast, precision
from nasjax.nets.parts import Line, assemble
from nasjax.ops.conv import conv2d
from nasjax.ops.pool import avg_pool
from nasjax.spaces.tabular_cell.plan import SIZES, STAGES, TabularPlan
from nasjax.types import Key, Network, PyTree


def tabular_cell(plan: TabularPlan, arch: np.ndarray, *, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The network of one cell; `choice` is not used.

    params["stage1"]["cell0"]["edge4"]["nor_conv_3x3"] is {"kernel", "norm"}. It starts with the values of the same
    weights in `tabular_supernet`.

    Args:
      plan: space, form, image and classes.
      arch: i32[edges].
      bn_eps: epsilon of batch norm.
      dtype: of the convolutions, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network of parts: x [B, H, W, colours] -> logits [B, classes].

    Raises:
      ValueError: another dtype.
    """
    precision(dtype)

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        return own(plan, arch, initial(key, plan, True, jnp.result_type(x, jnp.float32)))

    lines = frame(plan, lambda path, before: _cell(path, plan, arch, before))
    return assemble(tuple(lines), bn_eps=bn_eps, dtype=dtype)._replace(init=init)


def own(plan: TabularPlan, arch: np.ndarray, variables: PyTree) -> PyTree:
    """The supernet's variables that a cell uses, as those of its own network."""
    chosen = [plan.space.ops[int(op)] for op in arch]

    def used(part: str, tree: PyTree) -> PyTree:
        if not part.startswith("stage"):
            return tree
        edges = {f"edge{e}": {op: tree[f"edge{e}"][op]} for e, op in enumerate(chosen) if op in SIZES}
        return {f"cell{n}": jax.tree.map(lambda leaf: leaf[n], edges) for n in range(plan.form.cells)} if edges else {}  # noqa: B023

    parts = {kind: {part: used(part, tree) for part, tree in of.items()} for kind, of in variables.items()}
    return {kind: {part: tree for part, tree in of.items() if tree} for kind, of in parts.items()}


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


def frame(plan: TabularPlan, cell: Callable[[tuple[str, ...], str], tuple[list[Line], str]]) -> Iterator[Line]:
    """Stem, stages, classifier, in the order in which they run.

    cell(path, name of its input) -> its lines, name of its output.
    """
    yield Line(("stem",), Layer(Conv(plan.form.channels, 3), image=plan.image), ("x",), ("stem",))
    before = "stem"
    for s, (channels, _) in enumerate(plan.stages):
        if s:
            yield Line((f"reduce{s}",), Residual(channels), (before,), (f"reduce{s}",))
            before = f"reduce{s}"
        for n in range(plan.form.cells):
            lines, before = cell((f"stage{s}", f"cell{n}"), before)
            yield from lines
    yield Line(("head",), _Head(plan.classes), (before,), ("y",))


def _cell(path: tuple[str, ...], plan: TabularPlan, arch: np.ndarray, before: str) -> tuple[list[Line], str]:
    """The lines of one cell, and the name of its output. Every node is the sum of its edges."""
    name, lines, nodes = ".".join(path), list[Line](), [before]
    for to in range(1, plan.space.nodes):
        total: tuple[str, ...] = ()
        for e, (source, target) in enumerate(plan.pairs):
            op = plan.space.ops[int(arch[e])]
            if target != to or op == "none":
                continue
            if op == "skip_connect" and not total:  # nothing to compute
                total = (nodes[source],)
                continue
            lines.append(Line((*path, f"edge{e}"), _Operation(op), (nodes[source], *total), (f"{name}.edge{e}",)))
            total = (f"{name}.edge{e}",)
        if not total:
            lines.append(Line((*path, f"zeros{to}"), _Zeros(), (before,), (f"{name}.zeros{to}",)))
            total = (f"{name}.zeros{to}",)
        nodes.append(total[0])
    read = {value for line in lines for value in line.reads} | {nodes[-1]}
    if idle := tuple(value for line in lines for value in line.writes if value not in read):
        lines.append(Line((*path, "output"), _First(), (nodes[-1], *idle), (name,)))
        return lines, name
    return lines, nodes[-1]


class _Operation(nn.Module):
    """The operation of an edge, plus its node's sum so far."""

    op: str

    @nn.compact
    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        x, *more = reads
        if self.op in SIZES:
            x = Conv(x.shape[-1], SIZES[self.op], name=self.op)(nn.relu(x), mode)
        elif self.op == "avg_pool_3x3":
            x = avg_pool(x, (3, 3))
        return (more[0] + x if more else x,)


class _Zeros(nn.Module):
    """The zeros of a node without inputs."""

    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        return (jnp.zeros_like(reads[0]),)


class _First(nn.Module):
    """The output of a cell that has edges without effect on it: their batch norms see the images all the same."""

    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        return (reads[0],)


class Residual(nn.Module):
    """Two convolutions, the first with stride 2, beside the means of 2x2 pixels and a 1x1 convolution."""

    features: int

    @nn.compact
    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        (x,) = reads
        y = Conv(self.features, 3, 2, name="first")(nn.relu(x), mode)
        y = Conv(self.features, 3, name="second")(nn.relu(y), mode)
        return (y + _Shortcut(self.features, name="shortcut")(x, mode),)


class _Shortcut(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        b, h, w, c = x.shape
        kernel = self.param("kernel", ZEROS, (1, 1, c, self.features))
        x, kernel = cast(mode.dtype, x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4)), kernel)
        return conv2d(x, kernel, precision=precision(mode.dtype))


class _Head(nn.Module):
    """Batch norm, ReLU, mean, classifier."""

    classes: int

    @nn.compact
    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        x = nn.relu(Norm(name="norm")(reads[0], mode))
        return (Dense(self.classes, name="dense")(wide(x).mean((1, 2))),)
