"""The search network of DARTS and PC-DARTS over NAS-Bench-201's cells: every edge mixes its operations.

Dong & Yang 2020, "NAS-Bench-201" (arXiv:2001.00326), section 4.2 and its code; partial channels and weights of edges
after Xu et al. 2020, "PC-DARTS" (arXiv:1907.05737), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import Mode
from nasjax.nets.darts_search import shuffle_channels
from nasjax.nets.numerics import precision
from nasjax.nets.tabular_cell import branch, forward
from nasjax.nets.tabular_parts import initial
from nasjax.spaces.tabular_plan import TabularPlan
from nasjax.types import Key, Network, PyTree


def tabular_mixed(plan: TabularPlan, *, partial: int = 1, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The search network; variables are those of `tabular_supernet` without scales and shifts on the edges.

    `choice` = {"cell": f32[edges, ops]}, the weight of each operation on each edge of all cells; where it also has
    {"cell_edges": f32[edges]}, the edges are weighted, too. There is no dropout.

    Args:
      plan: space, form, image and classes.
      partial: K of PC-DARTS: one channel in K goes through the operations, the others pass by.
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
    ops = plan.space.ops

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        return initial(key, plan, False, jnp.result_type(x, jnp.float32), partial)

    def apply(
        variables: PyTree,
        choice: Mapping[str, jax.Array],
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[jax.Array, PyTree]:
        mode = Mode(train, bn_momentum, bn_eps, dtype)
        weights, of_edges = choice["cell"], choice.get("cell_edges")
        if weights.shape != (plan.space.edges, len(ops)):
            raise ValueError(
                f"the choice is {weights.shape}, but this network has {plan.space.edges} edges with {len(ops)} "
                "operations each"
            )

        def edge(e: int, params: PyTree, stats: PyTree, x: jax.Array) -> tuple[jax.Array, PyTree]:
            c = x.shape[-1] // partial
            through, total = x[..., :c], jnp.zeros_like(x[..., :c])
            for o, op in enumerate(ops):
                if op != "none":
                    y, stats = branch(op, mode, (params, through), stats)
                    total = total + y * weights[e, o].astype(y.dtype)
            if partial > 1:
                total = shuffle_channels(jnp.concatenate([total, x[..., c:]], -1), partial)
            return (total if of_edges is None else total * of_edges[e].astype(total.dtype)), stats

        return forward(plan, edge, variables, x, mode, None, 0.0)

    return Network(init, apply)
