"""Spectral normalisation of chosen convolutions of a network, as pure functions of its parameters.

A search network has hundreds of kernels but few kinds of convolution. Those of one kind are a `Convs`: their power
iterations run side by side, as one wide convolution or one batch of matrices, so that few programs are compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.ops.spectral_norm import estimate, power_iteration
from nasjax.types import Key, PyTree

Path = tuple[str, ...]
Kernels = dict[str, jax.Array]  # arrays of params by their path, joined by "/"
Vectors = dict[str, tuple[jax.Array, jax.Array]]  # u and v by Convs.name


class Convs(NamedTuple):
    """Convolutions of one kind; each array holds several of them."""

    paths: tuple[Path, ...]  # of the arrays in params
    depthwise: bool  # the arrays are [E, kh, kw, C], else, 1x1 convolutions, [E, in, out]; E convolutions each
    size: tuple[int, int] = (1, 1)  # height and width of the input; depthwise only, like the fields below
    stride: int = 1
    dilation: int = 1

    @property
    def name(self) -> str:
        return "/".join(self.paths[0])


def get(params: PyTree, groups: Sequence[Convs]) -> Kernels:
    """The arrays of `groups` in `params`."""

    def at(tree: PyTree, path: Path) -> Any:
        return at(tree[path[0]], path[1:]) if path else tree

    return {"/".join(path): at(params, path) for group in groups for path in group.paths}


def put(params: PyTree, kernels: Kernels) -> PyTree:
    """`params` with these arrays instead."""

    def at(tree: PyTree, prefix: Path) -> PyTree:
        if isinstance(tree, dict):
            return {name: at(inner, (*prefix, name)) for name, inner in tree.items()}
        return kernels.get("/".join(prefix), tree)

    return at(params, ())


def start(key: Key, params: PyTree, groups: Sequence[Convs]) -> Kernels:
    """Random u [E, out] of the dense convolutions, by name."""
    dense = [group for group in groups if not group.depthwise]

    def draw(key: Key, group: Convs) -> jax.Array:
        arrays = list(get(params, [group]).values())
        return jax.random.normal(key, (sum(map(len, arrays)), arrays[0].shape[-1]), arrays[0].dtype)

    return {group.name: draw(k, group) for k, group in zip(jax.random.split(key, len(dense)), dense, strict=True)}


def iterate(key: Key, params: PyTree, groups: Sequence[Convs], kept: Kernels, iterations: int) -> Vectors:
    """u and v of every convolution: dense ones go on from `kept`, depthwise ones start from random vectors.

    A 1x1 convolution acts on each position alone, so its vectors are those of its matrix, whatever the image's size.
    """
    vectors = {}
    for group, k in zip(groups, jax.random.split(key, len(groups)), strict=True):
        linear, like, axes = _maps(group, get(jax.lax.stop_gradient(params), [group]))
        u = kept.get(group.name)
        if u is None:
            u = jax.random.normal(k, jax.eval_shape(linear, like).shape, like.dtype)
        vectors[group.name] = power_iteration(linear, u, like, axes=axes, iterations=iterations)
    return vectors


def normalise(params: PyTree, groups: Sequence[Convs], vectors: Vectors) -> PyTree:
    """`params` with every kernel divided by sigma = u^T W v. Differentiable; the vectors count as constants."""
    kernels: Kernels = {}
    for group in groups:
        of_group, (u, v) = get(params, [group]), vectors[group.name]
        linear, _, axes = _maps(group, of_group)
        w = _joined(of_group)
        sigma = estimate(u, linear(jax.lax.stop_gradient(v)), axes)  # one for each convolution of the group
        # The barriers keep XLA from fusing the joining and cutting of a hundred arrays into every reader's loop.
        scaled = jax.lax.optimization_barrier(w / jnp.expand_dims(sigma, range(1, w.ndim)))
        ends = np.cumsum([len(array) for array in of_group.values()])
        kernels |= dict(zip(of_group, jnp.split(scaled, ends[:-1]), strict=True))
    return put(params, kernels)


def _joined(kernels: Kernels) -> jax.Array:
    """The arrays of a group, one after another."""
    return jax.lax.optimization_barrier(jnp.concatenate(list(kernels.values())))


def _maps(group: Convs, kernels: Kernels) -> tuple[Any, jax.ShapeDtypeStruct, tuple[int, ...]]:
    """The group's linear maps side by side, what they take, and the axes over which one of their vectors extends."""
    w = _joined(kernels)
    if not group.depthwise:
        like = jax.ShapeDtypeStruct(w.shape[:2], w.dtype)
        return lambda x: jnp.einsum("ei,eio->eo", x, w, precision="highest"), like, (1,)
    many, kh, kw, channels = w.shape
    wide = w.transpose(1, 2, 0, 3).reshape(kh, kw, many * channels)

    def linear(x: jax.Array) -> jax.Array:
        flat = x.reshape(*x.shape[:3], many * channels)
        y = depthwise_conv2d(flat, wide, group.stride, group.dilation)
        return y.reshape(*y.shape[:3], many, channels)

    return linear, jax.ShapeDtypeStruct((1, *group.size, many, channels), w.dtype), (0, 1, 2, 4)
