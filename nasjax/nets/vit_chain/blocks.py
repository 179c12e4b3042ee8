"""What the transformers of `vit_chain` are made of; sizes may be traced, so that a choice is a corner of the largest.

AutoFormer: Chen et al. 2021 (arXiv:2107.00651) and its code: layers that normalise first, GELU, relative positions of
rows and columns (Shaw et al. 2018, arXiv:1803.02155) added to keys and values, the mean over patches before the
classifier. What lies beyond a traced size is 0 wherever it is read, so its gradient is 0 exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import classify, wide
from nasjax.nets.initial import draws
from nasjax.nets.numerics import cast, precision
from nasjax.spaces.vit_chain.plan import VitPlan
from nasjax.types import Key, PyTree


class Size(NamedTuple):
    """How much of a layer's arrays counts, i32[] each; None = all of it."""

    width: Any = None
    heads: Any = None
    hidden: Any = None


class Mode(NamedTuple):
    """What every layer of one pass must know."""

    eps: float  # of layer norms
    dtype: str


def axes(plan: VitPlan) -> tuple[PyTree, PyTree]:
    """The names of all arrays' axes: what surrounds the layers, and one layer.

    Position and class token are called biases: weight decay leaves them alone, as in the release.
    """

    def norm() -> PyTree:
        return {"gamma": ("width",), "beta": ("width",)}

    def dense(inputs: str, outputs: str) -> PyTree:
        return {"pointwise": (inputs, outputs), "bias": (outputs,)}

    around = {
        "patch": dense("pixels", "width"),
        "token": {"bias": ("width",)},
        "position": {"bias": ("tokens", "width")},
        "norm": norm(),
        "head": {"dense": ("width", "classes"), "bias": ("classes",)},
    }
    layer = {
        "norm0": norm(),
        "query": dense("width", "inner"),
        "key": dense("width", "inner"),
        "value": dense("width", "inner"),
        "out": dense("inner", "width"),
        "norm1": norm(),
        "expand": dense("width", "hidden"),
        "contract": dense("hidden", "width"),
    }
    if plan.space.distance:
        table = ("distances", "head_width")
        layer["relative"] = {"key_rows": table, "key_columns": table, "value_rows": table, "value_columns": table}
    return around, layer


def lengths(plan: VitPlan, width: int, heads: int = 0, hidden: int = 0) -> dict[str, int]:
    """How long the axes are where a layer has these sizes."""
    space = plan.space
    return {
        "pixels": space.patch**2 * plan.image[2],
        "tokens": plan.tokens,
        "classes": plan.classes,
        "distances": 2 * space.distance + 2,
        "head_width": space.head_width,
        "width": width,
        "inner": heads * space.head_width,
        "hidden": hidden,
    }


def shaped(named: PyTree, length: Mapping[str, int], count: tuple[int, ...] = ()) -> PyTree:
    """Arrays' shapes by their axes; with `count` = (L,) of so many layers together."""
    return jax.tree.map(
        lambda names: jax.ShapeDtypeStruct((*count, *(length[name] for name in names)), jnp.float32),
        named,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def initialise(key: Key, shapes: PyTree, dtype: Any, deviation: float) -> PyTree:
    """Initial parameters: normal of this deviation, positions and class token too; scales 1, the other biases 0.

    The embedding of patches is that of a convolution, of deviation 1 / sqrt(3 inputs).
    """
    leaves = jax.tree.leaves_with_path(shapes)
    drawn = draws(jax.random.normal, key, sum(leaf.size for _, leaf in leaves), dtype)
    values, end = [], 0
    for path, leaf in leaves:
        names = [part.key for part in path]
        end += leaf.size
        part = drawn[end - leaf.size : end].reshape(leaf.shape)
        if names[-1] in ("gamma", "beta") or (names[-1] == "bias" and names[0] not in ("token", "position")):
            part = part * 0 + (names[-1] == "gamma")
        else:
            part = part * ((3 * leaf.shape[-2]) ** -0.5 if names == ["patch", "pointwise"] else deviation)
        values.append(jnp.asarray(part, dtype))
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


def embed(plan: VitPlan, params: PyTree, images: jax.Array, size: Size, mode: Mode) -> jax.Array:
    """Images [B, H, W, C] as tokens [B, N, width], the class token first.

    Raises:
      ValueError: images of another shape than the plan's.
    """
    if images.shape[1:] != plan.image:
        raise ValueError(f"the plan is for images {plan.image}, got {images.shape[1:]}; set VitPlan(image=...)")
    (rows, columns), side = plan.grid, plan.space.patch
    x = images.reshape(-1, rows, side, columns, side, images.shape[-1]).swapaxes(2, 3)
    x = dense(params["patch"], x.reshape(images.shape[0], rows * columns, -1), mode.dtype)
    token = jnp.broadcast_to(params["token"]["bias"], (x.shape[0], 1, x.shape[-1])).astype(x.dtype)
    return kept(jnp.concatenate([token, x], 1) + params["position"]["bias"][None], size.width)


def layer(
    plan: VitPlan, params: PyTree, x: jax.Array, size: Size, mode: Mode, keep: tuple[Any, Any] = (1.0, 1.0)
) -> jax.Array:
    """Attention and MLP, each added to the tokens [B, N, width]; `keep` multiplies what is added (stochastic depth)."""
    y = normalise(params["norm0"], x, size.width, mode.eps)
    x = x + keep[0] * attend(plan, params, y, size, mode)
    y = normalise(params["norm1"], x, size.width, mode.eps)
    y = kept(jax.nn.gelu(dense(params["expand"], y, mode.dtype), approximate=False), size.hidden)
    return x + keep[1] * kept(dense(params["contract"], y, mode.dtype), size.width)


def attend(plan: VitPlan, params: PyTree, x: jax.Array, size: Size, mode: Mode) -> jax.Array:
    """Self-attention over [B, N, width] with the relative positions of the release's code."""
    width = plan.space.head_width
    q, k, v = (
        dense(params[name], x, mode.dtype).reshape(*x.shape[:2], -1, width) for name in ("query", "key", "value")
    )

    def product(terms: str, *operands: jax.Array) -> jax.Array:
        operands = cast(mode.dtype, *operands)
        return jnp.einsum(terms, *operands, precision=precision(mode.dtype), preferred_element_type=x.dtype)

    logits = product("bqhw,bkhw->bhqk", q, k)
    if "relative" in params:
        rows, columns = distances(plan)
        key, value = (
            params["relative"][f"{of}_rows"][rows] + params["relative"][f"{of}_columns"][columns]
            for of in ("key", "value")
        )
        logits = logits + product("bqhw,qkw->bhqk", q, key)
    weights = jax.nn.softmax(logits * width**-0.5)
    y = product("bhqk,bkhw->bqhw", weights, v)
    if "relative" in params:
        y = y + product("bhqk,qkw->bqhw", weights, value)
    if size.heads is not None:
        y = jnp.where(jnp.arange(y.shape[2])[None, None, :, None] < size.heads, y, 0)
    return kept(dense(params["out"], y.reshape(*x.shape[:2], -1), mode.dtype), size.width)


def distances(plan: VitPlan) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the tables of relative positions, i32[N, N] of queries and keys: vertical, and horizontal.

    Row 0 is of pairs with the class token; row distance + 1 is of equal places. Larger distances count as the largest.
    """
    rows, columns = np.divmod(np.arange(plan.tokens - 1), plan.grid[1])
    most = plan.space.distance
    apart = (np.clip(place[None] - place[:, None], -most, most) + most + 1 for place in (rows, columns))
    vertical, horizontal = (np.pad(found, ((1, 0), (1, 0))) for found in apart)
    return vertical, horizontal


def answer(
    params: PyTree, x: jax.Array, size: Size, mode: Mode, key: Key | None = None, dropout: float = 0.0
) -> jax.Array:
    """Logits [B, classes] of the mean over the patches of [B, N, width]; with a key `dropout` before the classifier."""
    x = normalise(params["norm"], x, size.width, mode.eps)
    return classify(params["head"], x[:, None, 1:], key, dropout)


def normalise(params: PyTree, x: jax.Array, width: Any, eps: float) -> jax.Array:
    """Layer norm over the features that count, in at least float32."""
    count = x.shape[-1] if width is None else width
    centred = kept(wide(x) - wide(x).sum(-1, keepdims=True) / count, width)
    scale = jax.lax.rsqrt(jnp.square(centred).sum(-1, keepdims=True) / count + eps)
    return kept(centred * scale * params["gamma"][None, None] + params["beta"][None, None], width)


def dense(params: PyTree, x: jax.Array, dtype: str) -> jax.Array:
    """x W + b of x [B, N, C]; multiplied in `dtype`, added up in the type of x."""
    operands = cast(dtype, x, params["pointwise"])
    return (
        jnp.matmul(*operands, precision=precision(dtype), preferred_element_type=x.dtype) + params["bias"][None, None]
    )


def kept(x: jax.Array, count: Any) -> jax.Array:
    """x [B, N, C] with 0 behind its first `count` features; None = as it is."""
    return x if count is None else jnp.where(jnp.arange(x.shape[-1])[None, None] < count, x, 0)
