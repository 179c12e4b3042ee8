"""Where MSR-DARTS finds its convolutions in the parameters of `nets.darts_cell.mixed`."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from nasjax.learners.msr_darts import LastKernels, Layout
from nasjax.learners.normalised import Convs, Path
from nasjax.spaces.darts_cell.plan import SearchPlan, stride_of
from nasjax.spaces.darts_cell.space import CELLS, EDGES, NODES
from nasjax.types import PyTree


def search_layout(plan: SearchPlan) -> Layout:
    """The layout of `darts_search` with the plan's channels, layers, image, and operators: convolutions for all edges.

    Convolutions of equal shape on maps of equal size are one kind, whatever their cell: a network of 8 cells has 480
    arrays of kernels, but only 23 kinds.
    """
    names = plan.operators
    operators = tuple(names[CELLS[0]][0] if isinstance(names, Mapping) else names)
    pointwise: dict[int, list[Path]] = {}  # by channels
    depthwise: dict[tuple[int, ...], list[Path]] = {}  # by channels, window, map, stride and dilation
    for k, cell in enumerate(plan.cells):
        for source in range(NODES[-1]):
            for operator in operators:
                path = (f"cell{k}", f"source{source}", operator)
                dilation, stride = 2 if operator.startswith("dil") else 1, stride_of(cell.kind, source)
                for stage in (1, 2) if dilation == 1 else (1,):
                    size, step = (cell.in_size, stride) if stage == 1 and stride > 1 else (cell.out_size, 1)
                    kind = (cell.channels, int(operator[-1]), *size, step, dilation)
                    depthwise.setdefault(kind, []).append((*path, f"depthwise{stage}"))
                    pointwise.setdefault(cell.channels, []).append((*path, f"pointwise{stage}"))
    convs = [Convs(tuple(paths), False) for paths in pointwise.values()]
    for (_, _, height, width, step, dilation), paths in depthwise.items():
        convs.append(Convs(tuple(paths), True, (height, width), step, dilation))

    def last(params: PyTree) -> list[LastKernels]:
        return [
            LastKernels(cell.kind, cell.out_size, _by_edge(params[f"cell{k}"], operators))
            for k, cell in enumerate(plan.cells)
        ]

    return Layout(tuple(convs), last, operators)


def _by_edge(cell: PyTree, operators: tuple[str, ...]) -> jnp.ndarray:
    """The last 1x1 kernels of a cell, f32[14, O, c, c]; the parameters hold them by source, operator and edge."""
    order = [e for source in range(NODES[-1]) for e, (start, _) in enumerate(EDGES) if start == source]
    stacks = []
    for source in range(NODES[-1]):
        of = cell[f"source{source}"]
        names = ["pointwise1" if operator.startswith("dil") else "pointwise2" for operator in operators]
        stacks.append(jnp.stack([of[o][name] for o, name in zip(operators, names, strict=True)], 1))
    return jnp.concatenate(stacks)[jnp.argsort(jnp.array(order))]
