"""The parts that all paths of a chain of choice blocks share: stem, tail, classifier, and initial weights.

SPOS: Guo et al. 2020 (arXiv:1904.00420) and its code. docs/methods/spos.md, fairnas.md and bn_nas.md have the chains.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import Mode
from nasjax.nets.choice_chain.blocks import Step, apply_step
from nasjax.nets.initial import draws
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import ChoiceChain
from nasjax.types import Key, PyTree


def frame_steps(plan: ChoicePlan) -> tuple[dict[str, Step], dict[str, Step]]:
    """The convolutions before and after the choice layers."""
    space, colours = plan.space, plan.image[2]
    active = "relu" if space.family == "shuffle" else "relu6"
    before = {"stem": Step("conv", colours, space.stem, 3, space.stem_stride, active)}
    if space.first:
        before["first0"] = Step("depthwise", space.stem, space.stem, 3, activation=active)
        before["first1"] = Step("pointwise", space.stem, space.first)
    return before, {"tail": Step("pointwise", space.channels[-1], space.tail, activation=active)}


def run_steps(
    steps: dict[str, Step], params: PyTree, stats: PyTree, x: jax.Array, mode: Mode
) -> tuple[jax.Array, PyTree]:
    """Some steps one after the other; also their new running statistics."""
    after = {}
    for name, step in steps.items():
        x, after[name] = apply_step(step, params[name], stats[name], x, mode)
    return x, after


def head_shapes(plan: ChoicePlan) -> dict[str, tuple[int, ...]]:
    """Of the classifier; SPOS has no bias."""
    kernel = {"dense": (plan.space.tail, plan.classes)}
    return kernel | ({"bias": (plan.classes,)} if plan.bias else {})


def initialise(key: Key, space: ChoiceChain, shapes: PyTree, dtype: Any) -> PyTree:
    """Initial values, on the host unless `key` is traced, all kernels from one draw.

    As in the released codes: kernels normal, in the SPOS space with standard deviation 1 / (input channels of a
    group), 0.01 in stem and classifier; else sqrt(2 / (k k outputs)), and the classifier uniform within
    1 / sqrt(inputs), or 1 / sqrt(classes) where `space.classifier` says so. Scales and variances are 1, the rest 0
    (SPOS's release has shifts of 1e-4).

    Args:
      space: of the chain.
      shapes: of the variables, tuples as leaves; the last part of a leaf's path says what it is.
    """
    leaves, tree = jax.tree.flatten_with_path(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    sizes = [math.prod(shape) for _, shape in leaves]
    key_normal, key_uniform = jax.random.split(key)
    kinds = [path[-1].key for path, _ in leaves]
    drawn = np.array(
        [
            size if kind in ("conv", "pointwise", "depthwise", "dense") else 0
            for kind, size in zip(kinds, sizes, strict=True)
        ]
    )
    normal = draws(jax.random.normal, key_normal, int(drawn.sum()), dtype)
    xp: Any = jnp if isinstance(normal, jax.core.Tracer) else np
    values = []
    for kind, (_, shape), size, end in zip(kinds, leaves, drawn.tolist(), np.cumsum(drawn).tolist(), strict=True):
        if not size:
            values.append(xp.full(shape, float(kind in ("gamma", "var")), dtype))
        elif kind == "dense" and space.family == "mobile":
            reach = shape[0 if space.classifier == "inputs" else 1] ** -0.5
            values.append(xp.asarray(jax.random.uniform(key_uniform, shape, dtype, -reach, reach)))
        else:
            values.append(normal[end - size : end].reshape(shape) * _deviation(space.family, kind, shape))
    return jax.tree.map(jax.device_put, jax.tree.unflatten(tree, values))


def _deviation(family: str, kind: str, shape: tuple[int, ...]) -> float:
    if family == "shuffle":
        if kind in ("conv", "dense"):
            return 0.01
        return 1.0 if kind == "depthwise" else 1 / shape[-2]
    taps = math.prod(shape[-3:-1]) if kind == "depthwise" else math.prod(shape[:2]) if kind == "conv" else 1
    return math.sqrt(2 / (taps * shape[-1]))
