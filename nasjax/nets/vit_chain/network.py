"""One architecture of `vit_chain` as a network of its own, and how it begins with weights of another one.

AutoFormer: Chen et al. 2021 (arXiv:2107.00651) and its code.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.numerics import precision
from nasjax.nets.vit_chain import blocks as vit_blocks
from nasjax.nets.vit_chain.blocks import Mode, Size
from nasjax.ops.collective import sample_keys
from nasjax.spaces.vit_chain.plan import VitPlan
from nasjax.types import Key, Network, PyTree


def vit_chain(
    plan: VitPlan, arch: np.ndarray, *, deviation: float = 0.02, bn_eps: float = 1e-5, dtype: str = "float32"
) -> Network:
    """The network of one architecture.

    variables = {"params": {"patch", "token", "position", "layer0", ..., "norm", "head"}}; there are no running
    statistics. `choice` and `bn_momentum` are not used. `drop_rate` is that of the last layer's stochastic depth per
    sample, which grows linearly from 0 at the first layer.

    Args:
      plan: space, image and classes.
      arch: i32[S], an architecture of plan.space.
      deviation: of initial weights.
      bn_eps: epsilon of layer norms.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; all else stays float32.

    Returns:
      Network: x [B, H, W, colours] -> logits [B, classes].

    Raises:
      ValueError: another dtype, or no architecture of the space; at the call: a drop_rate without key.
    """
    precision(dtype)
    space, mode = plan.space, Mode(bn_eps, dtype)
    space.validate(arch)
    shapes = shapes_of(plan, arch)
    layers = [name for name in shapes if name.startswith("layer")]

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        return {"params": vit_blocks.initialise(key, shapes, jnp.result_type(x, jnp.float32), deviation)}

    def apply(
        variables: PyTree,
        choice: Any,
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[jax.Array, PyTree]:
        params = variables["params"]
        keep: Any = np.ones((len(layers), 2))
        if train and not (isinstance(drop_rate, (int, float)) and not drop_rate):
            if key is None:
                raise ValueError("stochastic depth needs randomness: give key, or drop_rate=0")
            keep = _keep(key, drop_rate, x.shape[0], len(layers))
        x = vit_blocks.embed(plan, params, x, Size(), mode)
        for name, (first, second) in zip(layers, keep, strict=True):
            x = vit_blocks.layer(plan, params[name], x, Size(), mode, (first, second))
        return vit_blocks.answer(params, x, Size(), mode), variables

    return Network(init, apply)


def shapes_of(plan: VitPlan, arch: np.ndarray) -> PyTree:
    """The shapes of an architecture's parameters."""
    space = plan.space
    depth, width, heads, ratio = space.chosen(np.asarray(arch))
    around, layer = vit_blocks.axes(plan)
    shapes = dict(vit_blocks.shaped(around, vit_blocks.lengths(plan, space.widths[width])))
    for i in range(space.depths[depth]):
        sizes = space.widths[width], space.heads[heads[i]], int(plan.hidden[width, ratio[i]])
        shapes[f"layer{i}"] = vit_blocks.shaped(layer, vit_blocks.lengths(plan, *sizes))
    return shapes


def inherit(fresh: PyTree, old: PyTree) -> tuple[PyTree, float]:
    """A child's initial variables with the leading slice that each array has in common with its parent's.

    Weights of a supernet are shared so (section 3.2: a smaller choice is the first part of a larger one). Layers beyond
    the parent's depth stay fresh. Runs on numpy and compiles nothing.

    Returns:
      The variables, numpy arrays, and the part of the child's weights that is the parent's, 0..1.
    """
    copied = total = 0

    def merged(own: PyTree, theirs: PyTree) -> PyTree:
        nonlocal copied, total
        if isinstance(own, dict):
            return {name: merged(value, theirs.get(name, {})) for name, value in own.items()}
        value = np.array(own)
        total += value.size
        if not isinstance(theirs, dict):
            corner = tuple(slice(min(sizes)) for sizes in zip(value.shape, np.shape(theirs), strict=True))
            value[corner] = np.asarray(theirs)[corner]
            copied += value[corner].size
        return value

    variables = merged(fresh, old)
    return variables, copied / max(total, 1)


def _keep(key: Key, rate: float | jax.Array, batch: int, layers: int) -> jax.Array:
    """What both additions of every layer are multiplied by, [layers, 2, batch, 1, 1]: 0 or 1 / (1 - layer's rate)."""
    rates = rate * jnp.linspace(0, 1, layers)[:, None, None]
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (layers, 2)))(sample_keys(key, batch)).transpose(1, 2, 0)
    return jnp.where(drawn >= rates, 1 / (1 - rates), 0.0)[..., None, None]
