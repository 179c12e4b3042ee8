"""A `conv_chain` network whose architecture is a traced array, so that a population of children is one `vmap`.

Computes what `nets.conv_chain.network` computes (Zoph & Le 2017, section 3.3) by masks: every layer has room
for the largest kernel, the most filters and every source, and the unused rest is zero. The convolutions are spectral:
their cost does not depend on the kernel's size, nothing becomes a grouped convolution under vmap, and a tensor is
transformed once for all its readers. Where sizes depend on the architecture (strides), a map lies at the top left of a
frame of the largest size, and zero-padding it to its reader's size is a phase of its spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets import initial
from nasjax.nets.conv_chain.layout import (
    HeadChoice,
    LayerChoice,
    LayerLayout,
    Layout,
    Size,
    Slot,
    halved,
    layout,
    links,
    resolve,
)
from nasjax.nets.numerics import cast, precision
from nasjax.ops import pool, spectral
from nasjax.ops.norm import batch_norm, local_contrast_norm
from nasjax.spaces.conv_chain.plan import IMAGE
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.types import Key, Network, PyTree


def conv_chain_masked(
    space: ConvChain,
    image: tuple[int, int, int],
    classes: int,
    *,
    depth: int | None = None,
    bn_eps: float = 1e-5,
    dtype: str = "float32",
) -> Network:
    """The networks of a whole space as one.

    variables = {"params": {"layer0": {"kernel", "gamma", "beta"}, ..., "head": {"kernel", "bias"}}, "batch_stats":
    {"layer0": {"mean", "var"}, ...}} with arrays of the largest size; unused weights are 0 and get no gradient.
    `conv_chain_pack` maps them to and from the specialised form. `key` and `drop_rate` are not used.

    Args:
      space: its pools and norms, if any, make capacities double with every layer.
      image: height, width, channels.
      classes: number of logits.
      depth: largest number of blocks of the architectures; None = the space's max_layers.
      bn_eps, dtype: as in `nets.conv_chain.network`.

    Returns:
      Network: choice = Arch i32[S], x [B, H, W, C] -> logits [B, classes].

    Raises:
      ValueError: depth out of the space's range, another dtype.

    Example:
      >>> network = conv_chain_masked(space, (8, 8, 1), 10)
      >>> variables = jax.vmap(network.init, (0, 0, None))(keys, archs, x)  # N children
      >>> logits, variables = jax.vmap(lambda v, a: network.apply(v, a, x, train=True))(variables, archs)
    """
    if depth is not None and not space.min_layers <= depth <= space.max_layers:
        raise ValueError(f"depth must be {space.min_layers}..{space.max_layers}, got {depth}")
    precision(dtype)
    static = layout(space, image, depth)
    module = _Chain(static, classes, bn_eps, dtype)

    def init(key: Key, choice: jax.Array, x: jax.Array) -> PyTree:
        dtype = jnp.result_type(x, jnp.float32)
        variables = _initialise(key, static, *resolve(space, static, choice), classes)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), variables)

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
        choices = resolve(space, static, choice)
        outputs: Any
        if not train:
            outputs = module.apply(variables, *choices, x, train=False, bn_momentum=bn_momentum)
            return outputs, variables
        mutable = ["batch_stats"]
        outputs = module.apply(variables, *choices, x, train=True, bn_momentum=bn_momentum, mutable=mutable)
        return outputs[0], {**variables, **outputs[1]}

    return Network(init, apply)


def _initialise(key: Key, static: Layout, choices: list[LayerChoice], head: HeadChoice, classes: int) -> PyTree:
    """The values of `nets.conv_chain.network.initialise`, 0 where unused."""
    names = [links(layer, i) for i, layer in enumerate(static.layers)] + [links(static, initial.HEAD)]
    filters = max(layer.filters for layer in static.layers)
    # One draw for all layers (it compiles once): every row has a kernel's words, then those of the head.
    words = initial.words(static.kernel, filters).reshape(-1), initial.words((1, 1), max(filters, classes)).reshape(-1)
    ranks = jnp.concatenate([choice.ranks for choice in choices] + [head.ranks])
    draws = initial.rows(key, np.concatenate(names), ranks, np.concatenate(words))
    *per_layer, dense = jnp.split(draws, np.cumsum([len(n) for n in names])[:-1])
    dense = dense[:, len(words[0]) :][:, :classes] * head.inputs[:, None] / jnp.sqrt(head.inputs.sum())
    params: dict[str, Any] = {"head": {"kernel": dense, "bias": jnp.zeros(classes)}}
    stats: dict[str, Any] = {}
    for i, (layer, choice) in enumerate(zip(static.layers, choices, strict=True)):
        params[f"layer{i}"] = {"gamma": jnp.ones(layer.capacity), "beta": jnp.zeros(layer.capacity)}
        stats[f"layer{i}"] = {"mean": jnp.zeros(layer.capacity), "var": jnp.ones(layer.capacity)}
        if layer.filters:
            draw = per_layer[i][:, : len(words[0])].reshape(-1, *static.kernel, layer.filters).transpose(1, 2, 0, 3)
            fan_in = choice.kernel[0] * choice.kernel[1] * jnp.maximum(choice.inputs.sum(), 1)
            params[f"layer{i}"]["kernel"] = draw * _used(choice, layer.filters, static.kernel) * jnp.sqrt(2 / fan_in)
    return {"params": params, "batch_stats": stats}


def _used(choice: LayerChoice, filters: int, kernel: tuple[int, int]) -> jax.Array:
    """Which weights of a layer's kernel the architecture has, bool[*kernel, in capacity, filters]."""
    rows, columns = (jnp.abs(jnp.arange(n) - n // 2) <= k // 2 for n, k in zip(kernel, choice.kernel, strict=True))
    outputs = choice.kind["conv"] & choice.outputs[:filters]
    taps = rows[:, None, None, None] & columns[None, :, None, None]
    return taps & choice.inputs[None, None, :, None] & outputs[None, None, None, :]


class _Chain(nn.Module):
    """All layers and the classifier."""

    layout: Layout
    classes: int
    bn_eps: float
    dtype: str

    @nn.compact
    def __call__(
        self,
        choices: list[LayerChoice],
        head: HeadChoice,
        image: jax.Array,
        *,
        train: bool,
        bn_momentum: float | jax.Array,
    ) -> jax.Array:
        maps = {(IMAGE, 0): image}  # (layer, poolings after it): [B, H, W, C], 0 outside its size
        spectra: dict[Any, jax.Array] = {}

        def read(source: int, pools: int) -> jax.Array:
            if (source, pools) not in maps:
                values = pool.halve(read(source, pools - 1))
                if self.layout.traced_sizes:
                    size = self.layout.image[:2] if source == IMAGE else choices[source].size
                    frame = values.shape[1], values.shape[2]
                    values = _inside(frame, halved(size, pools))[None, :, :, None] * values
                maps[source, pools] = values
            return maps[source, pools]

        def spectrum(slot: Slot, period: Any) -> jax.Array:
            name = (slot.source, slot.pools, period)
            if name not in spectra:
                (values,) = cast(self.dtype, read(slot.source, slot.pools))
                spectra[name] = spectral.to_spectrum(values, period, precision=precision(self.dtype))
            return spectra[name]

        for i, (layer, choice) in enumerate(zip(self.layout.layers, choices, strict=True)):
            body = _Layer(layer, self.layout, self.bn_eps, self.dtype, name=f"layer{i}")
            period = tuple(n + reach for n, reach in zip(layer.frame, self.layout.reach, strict=True))
            sources = [spectrum(slot, period) for slot in layer.slots] if layer.filters else []
            inputs = [read(slot.source, slot.pools) for slot in layer.slots]
            maps[i, 0] = body(choice, inputs, sources, train=train, bn_momentum=bn_momentum)
        area = head.size[0] * head.size[1]
        wide = jnp.promote_types(image.dtype, jnp.float32)
        features = [
            sum(jnp.where(gate, read(j, pools).astype(wide).sum((1, 2)), 0) for pools, gate in gates) / area
            for j, gates in enumerate(head.gates)
        ]
        return _Head(self.classes, name="head")(jnp.concatenate(features, -1), head.inputs)


class _Layer(nn.Module):
    """One layer: all its types, of which one is selected."""

    plan: LayerLayout
    layout: Layout
    bn_eps: float
    dtype: str

    @nn.compact
    def __call__(
        self,
        choice: LayerChoice,
        inputs: Sequence[jax.Array],
        spectra: Sequence[jax.Array],
        *,
        train: bool,
        bn_momentum: float | jax.Array,
    ) -> jax.Array:
        plan, kind, frame = self.plan, choice.kind, self.plan.frame
        traced = self.layout.traced_sizes
        mask = _inside(frame, choice.size) if traced else None
        no = jnp.bool_(False)
        y = jnp.zeros((), inputs[0].dtype)

        def option(name: str, values: jax.Array) -> jax.Array:
            """`values` where the layer is of this type, at its stride and with room for all channels; else 0."""
            if traced:
                values = _subsample(values, choice.stride)
            values = jnp.pad(values, [(0, 0)] * 3 + [(0, plan.capacity - values.shape[-1])])
            return jnp.where(kind[name], values, 0)

        if plan.filters:
            shape = (*self.layout.kernel, sum(s.capacity for s in plan.slots), plan.filters)
            kernel = self.param("kernel", nn.initializers.zeros, shape)
            kernel = kernel * _used(choice, plan.filters, self.layout.kernel)
            if traced:
                spectra = [_shift(s, offset) for s, offset in zip(spectra, choice.offsets, strict=True)]
            y += option("conv", _convolve(self.dtype, frame, kernel, tuple(spectra)).astype(inputs[0].dtype))
        if set(kind) - {"conv"}:
            parts = inputs
            if traced:
                parts = [_place(x, frame, offset) for x, offset in zip(inputs, choice.offsets, strict=True)]
            x = jnp.concatenate(parts, -1) * choice.inputs[None, None, None, :]
            valid = _inside(frame, choice.in_size) if traced else None
            (kh, kw), sizes = choice.kernel, self.layout.kernel
            if "max_pool" in kind:
                y += option("max_pool", pool.max_pool_masked(x, kh, kw, sizes, valid))
            if "avg_pool" in kind:
                y += option("avg_pool", pool.avg_pool_masked(x, kh, kw, sizes, valid))
            if "local_contrast_norm" in kind:
                y += option("local_contrast_norm", local_contrast_norm(x, channel_mask=choice.inputs, mask=valid))
            if "batch_norm" in kind:
                y += option("batch_norm", x)
        width = (plan.capacity,)
        gamma = self.param("gamma", nn.initializers.ones, width)
        beta = self.param("beta", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.ones, width)
        normed, statistics = batch_norm(
            y, gamma, beta, mean.value, var.value, train=train, momentum=bn_momentum, eps=self.bn_eps, mask=mask
        )
        if train:
            mean.value, var.value = statistics
        conv = kind.get("conv", no)
        y = jnp.where(conv, nn.relu(normed), jnp.where(kind.get("batch_norm", no), normed, y))
        if mask is not None:
            y = y * mask[None, :, :, None]
        return y * choice.outputs[None, None, None, :]


class _Head(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, used: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.zeros, (x.shape[-1], self.classes)) * used[:, None]
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        return jnp.matmul(x, kernel, precision="highest") + bias[None]


@partial(jax.checkpoint, static_argnums=(0, 1))  # the kernel's spectrum is far larger than the kernel
def _convolve(dtype: str, frame: tuple[int, int], kernel: jax.Array, spectra: tuple[jax.Array, ...]) -> jax.Array:
    half, rows = spectra[0].shape[:2]
    (kernel,) = cast(dtype, kernel)
    weights = spectral.kernel_spectrum(kernel, (rows // 3, 2 * half - 1), precision=precision(dtype))
    product = spectral.multiply(jnp.concatenate(spectra, -1), weights, precision=precision(dtype))
    return spectral.from_spectrum(product, frame, precision=precision(dtype))


def _shift(spectrum: jax.Array, offset: Size) -> jax.Array:
    """Moves the map of a spectrum [Q, 3 P, B, C] down and to the right: a phase of every frequency."""
    half, period = spectrum.shape[0], spectrum.shape[1] // 3
    down = jnp.arange(period) * offset[0] % period / period
    right = jnp.arange(half) * offset[1] % (2 * half - 1) / (2 * half - 1)
    angle = (2 * np.pi * (right[:, None] + down[None, :])).astype(spectrum.dtype)[:, :, None, None]
    re, im, _ = jnp.split(spectrum, 3, 1)
    re, im = re * jnp.cos(angle) + im * jnp.sin(angle), im * jnp.cos(angle) - re * jnp.sin(angle)
    return jnp.concatenate([re, im, re + im], 1)


def _place(x: jax.Array, frame: tuple[int, int], offset: Size) -> jax.Array:
    """[B, H, W, C] in a larger frame, moved down and to the right."""
    for axis, (n, start) in enumerate(zip(frame, offset, strict=True), 1):
        padded = jnp.pad(x, [(0, n if a == axis else 0) for a in range(4)])
        at = (jnp.arange(n) - start) % padded.shape[axis]  # positions before the start wrap to the padding
        x = jnp.take(padded, at, axis, mode="clip")
    return x


def _subsample(x: jax.Array, stride: Size) -> jax.Array:
    """Every stride-th row and column, at the top left of a frame of the same size (the rest repeats the last)."""
    for axis, step in enumerate(stride, 1):
        x = jnp.take(x, jnp.minimum(jnp.arange(x.shape[axis]) * step, x.shape[axis] - 1), axis, mode="clip")
    return x


def _inside(frame: tuple[int, int], size: Size) -> jax.Array:
    """bool[H, W], the positions that a map of this size covers."""
    return (jnp.arange(frame[0]) < size[0])[:, None] & (jnp.arange(frame[1]) < size[1])[None, :]
