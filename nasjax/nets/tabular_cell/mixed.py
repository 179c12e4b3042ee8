"""The search network of DARTS and PC-DARTS over NAS-Bench-201's cells: every edge mixes its operations.

Dong & Yang 2020, "NAS-Bench-201" (arXiv:2001.00326), section 4.2 and its code; partial channels and weights of edges
after Xu et al. 2020, "PC-DARTS" (arXiv:1907.05737), sections 3.2 and 3.3.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import ZEROS, Mode, UnscaledNorm
from nasjax.nets.darts_cell.mixed import shuffle_channels
from nasjax.nets.numerics import cast, precision
from nasjax.nets.parts import Line, assemble
from nasjax.nets.tabular_cell.network import frame
from nasjax.ops.conv import conv2d
from nasjax.ops.pool import avg_pool
from nasjax.spaces.tabular_cell.plan import SIZES, TabularPlan
from nasjax.types import Network

Choice = Mapping[str, jax.Array]


def tabular_mixed(plan: TabularPlan, *, partial: int = 1, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The search network, of parts: an edge is one, and the equal edges of a stage share a program.

    `choice` = {"cell": f32[edges, ops]}, the weight of each operation on each edge of all cells; where it also has
    {"cell_edges": f32[edges]}, the edges are weighted, too. There is no dropout.

    params["stage1"]["cell0"]["edge4"]["nor_conv_3x3"] is {"kernel"}: batch norms on edges have no scale and shift.

    Args:
      plan: space, form, image and classes.
      partial: K of PC-DARTS: one channel in K goes through the operations, the others bypass them.
      bn_eps: epsilon of batch norm.
      dtype: of the convolutions, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network: x [B, H, W, colours] -> logits [B, classes].

    Raises:
      ValueError: another dtype, or channels that `partial` does not divide.
    """
    precision(dtype)
    if partial < 1 or plan.form.channels % partial:
        raise ValueError(f"search.partial={partial} must divide form.channels={plan.form.channels}")
    edge = _Edge(plan.space.ops, partial)

    def cell(path: tuple[str, ...], before: str) -> tuple[list[Line], str]:
        name, lines, nodes = ".".join(path), list[Line](), [before]
        for to in range(1, plan.space.nodes):
            total: tuple[str, ...] = ()
            for e, (source, target) in enumerate(plan.pairs):
                if target == to:
                    pick = functools.partial(_mixing, e=e, shape=(plan.space.edges, len(plan.space.ops)))
                    lines.append(Line((*path, f"edge{e}"), edge, (nodes[source], *total), (f"{name}.edge{e}",), pick))
                    total = (f"{name}.edge{e}",)
            nodes.append(total[0])
        return lines, nodes[-1]

    return assemble(tuple(frame(plan, cell)), bn_eps=bn_eps, dtype=dtype)


def _mixing(choice: Choice, *, e: int, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array | None]:
    """The weights of an edge's operations [ops], and its own if edges have any."""
    weights, of_edges = choice["cell"], choice.get("cell_edges")
    if weights.shape != shape:
        raise ValueError(
            f"the choice is {weights.shape}, but this network has {shape[0]} edges of {shape[1]} operations"
        )
    return weights[e], None if of_edges is None else of_edges[e]


class _Edge(nn.Module):
    """All operations of an edge, plus its node's sum so far."""

    ops: tuple[str, ...]
    partial: int

    @nn.compact
    def __call__(
        self, reads: Any, choice: tuple[jax.Array, jax.Array | None], mode: Mode, key: Any, drop_rate: Any
    ) -> tuple[jax.Array]:
        (x, *more), (weights, of_edge) = reads, choice
        c = x.shape[-1] // self.partial
        through, y = x[..., :c], jnp.zeros_like(x[..., :c])
        for op, weight in zip(self.ops, weights, strict=True):
            match op:
                case "none":
                    continue
                case "skip_connect":
                    term = through
                case "avg_pool_3x3":
                    term = avg_pool(through, (3, 3))
                case _:
                    term = _Conv(SIZES[op], name=op)(through, mode)
            y = y + term * weight.astype(term.dtype)
        if self.partial > 1:
            y = shuffle_channels(jnp.concatenate([y, x[..., c:]], -1), self.partial)
        y = y if of_edge is None else y * of_edge.astype(y.dtype)
        return (more[0] + y if more else y,)


class _Conv(nn.Module):
    """ReLU, convolution, batch norm without scale and shift."""

    size: int

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        kernel = self.param("kernel", ZEROS, (self.size, self.size, x.shape[-1], x.shape[-1]))
        x, kernel = cast(mode.dtype, nn.relu(x), kernel)
        return UnscaledNorm(name="norm")(conv2d(x, kernel, precision=precision(mode.dtype)), mode)
