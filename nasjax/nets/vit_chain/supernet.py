"""The supernet of `vit_chain`: every choice is the leading part of the largest (weight entanglement).

AutoFormer: Chen et al. 2021 (arXiv:2107.00651), section 3.2. A choice is data, so one program serves all paths; what a
path leaves out is multiplied all the same, with 0. The layers have equal arrays and are compiled once.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.numerics import precision
from nasjax.nets.supernet import Supernet
from nasjax.nets.vit_chain import blocks as vit_blocks
from nasjax.nets.vit_chain.blocks import Mode, Size
from nasjax.nets.vit_chain.network import shapes_of
from nasjax.spaces.vit_chain.plan import VitPlan
from nasjax.types import Key, PyTree


def vit_supernet(
    plan: VitPlan,
    *,
    affine: bool = True,
    dropout: float = 0.0,
    deviation: float = 0.02,
    bn_eps: float = 1e-5,
    dtype: str = "float32",
) -> Supernet:
    """The supernet of a space; its paths are networks of `nets.vit_chain.network` with leading slices of its arrays.

    params["layers"]["query"]["pointwise"] is [L, largest width, inner]: that of all layers. What no path uses has a
    gradient of 0. There are no batch norms, hence no statistics, `scores` or `last_norm`.

    Args:
      plan: space, image and classes.
      affine: of batch norms, so of nothing here; layer norms always scale and shift.
      dropout: before the classifier, in training, if `apply` has a key.
      deviation: of initial weights.
      bn_eps: epsilon of layer norms.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; all else stays float32.

    Returns:
      Supernet: x [B, H, W, colours] -> logits [B, classes]; `drop_rate` and `bn_momentum` are not used.

    Raises:
      ValueError: another dtype.
    """
    precision(dtype)
    space, mode = plan.space, Mode(bn_eps, dtype)
    around, layer = vit_blocks.axes(plan)
    largest = vit_blocks.lengths(plan, space.widths[-1], space.heads[-1], int(plan.hidden[-1, -1]))
    shapes = {**vit_blocks.shaped(around, largest), "layers": vit_blocks.shaped(layer, largest, (space.layers,))}

    def sizes(arch: jax.Array) -> tuple[jax.Array, Size]:
        """Whether a layer is there, bool[L], and the sizes of all: width i32[], heads and hidden units i32[L]."""
        depth, width, heads, ratio = space.chosen(arch)
        there = jnp.arange(space.layers) < jnp.asarray(space.depths)[depth]
        hidden = jnp.asarray(plan.hidden, jnp.int32)[width, jnp.maximum(ratio, 0)]
        return there, Size(jnp.asarray(space.widths)[width], jnp.asarray(space.heads)[jnp.maximum(heads, 0)], hidden)

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        params = vit_blocks.initialise(key, shapes, jnp.result_type(x, jnp.float32), deviation)
        return {"params": params, "batch_stats": {}}

    def apply(
        variables: PyTree,
        choice: jax.Array,
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[jax.Array, PyTree]:
        params = variables["params"]
        there, (width, heads, hidden) = sizes(choice)

        def step(x: jax.Array, xs: Any) -> tuple[jax.Array, None]:
            own, there, heads, hidden = xs
            y = vit_blocks.layer(plan, own, x, Size(width, heads, hidden), mode)
            return jnp.where(there, y, x), None

        x = vit_blocks.embed(plan, params, x, Size(width), mode)
        x, _ = jax.lax.scan(step, x, (params["layers"], there, heads, hidden))
        return vit_blocks.answer(params, x, Size(width), mode, key if train else None, dropout), variables

    def used(arch: jax.Array) -> PyTree:
        """Which parameters a path uses, bool in shapes that broadcast to theirs."""
        there, size = sizes(arch)
        ends = {"width": size.width, "inner": size.heads * space.head_width, "hidden": size.hidden}

        def within(names: tuple[str, ...], each: bool) -> jax.Array:
            rank = len(names) + each
            mask = there.reshape(-1, *(1,) * len(names)) if each else jnp.ones((1,) * rank, bool)
            for axis, name in enumerate(names, each):
                if name in ends:
                    place = jnp.arange(largest[name]).reshape(*(1,) * axis, -1, *(1,) * (rank - axis - 1))
                    end = ends[name] if ends[name].ndim == 0 else ends[name].reshape(-1, *(1,) * len(names))
                    mask = mask & (place < end)
            return mask

        def masks(named: PyTree, each: bool) -> PyTree:
            return jax.tree.map(lambda names: within(names, each), named, is_leaf=lambda node: isinstance(node, tuple))

        return {**masks(around, False), "layers": masks(layer, True)}

    def select(archs: jax.Array, new: PyTree, old: PyTree) -> PyTree:
        masks = [used(arch) for arch in archs]
        some = jax.tree.map(lambda *each: functools.reduce(operator.or_, each), *masks)
        return jax.tree.map(jnp.where, some, new, old)

    def own(variables: PyTree, arch: np.ndarray) -> PyTree:
        def cut(shape: jax.ShapeDtypeStruct, leaf: Any) -> np.ndarray:
            return np.asarray(leaf)[tuple(slice(size) for size in shape.shape)]

        params, found = variables["params"], dict[str, PyTree]()
        for name, needed in shapes_of(plan, arch).items():
            of = params.get(name)
            if of is None:
                place = int(name.removeprefix("layer"))
                of = jax.tree.map(operator.itemgetter(place), params["layers"])
            found[name] = jax.tree.map(cut, needed, of)
        return {"params": found}

    return Supernet(init, apply, select, own=own)
