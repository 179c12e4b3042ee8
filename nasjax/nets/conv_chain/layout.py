"""The static and the traced sizes of a `conv_chain` network whose architecture is data.

Static, from the space (`layout`): which tensors a layer may read, and the capacity of every array. Traced, from the
Arch (`resolve`): which of them it does read, types, kernels, sizes, channels. Compile rules: docs/methods/reinforce.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets import initial
from nasjax.spaces.conv_chain.plan import IMAGE
from nasjax.spaces.conv_chain.space import ConvChain

Size = tuple[Any, Any]  # height and width: ints, or traced where strides make them so


class Slot(NamedTuple):
    """A tensor that a layer may read, and its place in the layer's input."""

    source: int  # network layer, IMAGE = the image
    pools: int  # 2x2 max-poolings between it and its reader
    capacity: int  # largest number of channels


class LayerLayout(NamedTuple):
    """Capacities of one network layer."""

    block: int
    slots: tuple[Slot, ...]
    filters: int  # largest number of a convolution's outputs; 0 in a space without convolutions
    capacity: int  # of the output's channels
    frame: tuple[int, int]  # height and width, the most they can be


class Layout(NamedTuple):
    """Capacities of the whole network."""

    image: tuple[int, int, int]
    layers: tuple[LayerLayout, ...]
    traced_sizes: bool  # heights and widths depend on the architecture
    kernel: tuple[int, int]  # the largest

    @property
    def reach(self) -> tuple[int, int]:
        """How far the largest kernel reaches from its centre."""
        return self.kernel[0] // 2, self.kernel[1] // 2


class LayerChoice(NamedTuple):
    """One layer of one architecture; scalars and arrays may be traced."""

    kind: dict[str, jax.Array]  # bool per layer type of the space; all False = the layer does not exist
    kernel: tuple[jax.Array, jax.Array]
    stride: tuple[Any, Any]
    gates: tuple[jax.Array, ...]  # bool per slot: is it read?
    inputs: jax.Array  # bool[in capacity], channels read
    ranks: jax.Array  # i32[in capacity], numbers of the channels among those that their source has
    outputs: jax.Array  # bool[capacity], channels made
    offsets: tuple[Size, ...]  # the start of each slot's map in the zero-padded input
    in_size: Size
    size: Size  # of the output


class HeadChoice(NamedTuple):
    """The input of the classifier."""

    gates: tuple[tuple[tuple[int, jax.Array], ...], ...]  # per layer: (poolings, bool: read after them)
    inputs: jax.Array  # bool[all layers' capacities]
    ranks: jax.Array  # i32[...], as in LayerChoice
    size: Size


def layout(space: ConvChain, image: tuple[int, int, int], depth: int | None = None) -> Layout:
    """Capacities of networks of at most `depth` blocks (None = the space's max_layers).

    A convolution has at most max(filter_counts) channels. A pool or a norm keeps its input's channels, so in a space
    with such types a layer's capacity is the sum over all its possible inputs, and doubles with every layer.
    """
    blocks, per = depth or space.max_layers, space.block_layers
    filters = max(space.filter_counts) + space.extra_filters if "conv" in (space.types or ("conv",)) else 0
    layers: list[LayerLayout] = []
    for i in range(blocks * per):
        block, k = divmod(i, per)
        sources = [per * j + per - 1 for j in (range(block) if space.skips else range(block)[-1:])]
        if space.skips or block == 0:
            sources.insert(0, IMAGE)
        sources += [per * block + m for m in range(k)]
        slots = [Slot(j, count_pools(space, j, block), image[2] if j == IMAGE else layers[j].capacity) for j in sources]
        frames = [halved(image[:2] if s.source == IMAGE else layers[s.source].frame, s.pools) for s in slots]
        frame = (max(h for h, _ in frames), max(w for _, w in frames))
        keeps = set(space.types) - {"conv"}
        capacity = max(filters, sum(s.capacity for s in slots)) if keeps else filters
        layers.append(LayerLayout(block, tuple(slots), filters, capacity, frame))
    traced = bool(space.strides) or bool(space.pool_after and not space.pool_skips)
    return Layout(image, tuple(layers), traced, (max(space.filter_heights), max(space.filter_widths)))


def resolve(space: ConvChain, layout: Layout, arch: jax.Array) -> tuple[list[LayerChoice], HeadChoice]:
    """Decodes an Arch i32[S]; traceable."""
    arch = jnp.asarray(arch, jnp.int32)
    per, layers = space.block_layers, layout.layers
    last = space.min_layers - 1 + arch[0]  # block

    def value(layer: LayerLayout, token: str, default: int) -> Any:
        column = space.columns.get(f"layer{layer.block}/{token}")
        if column is None:
            return default
        values = jnp.asarray(space.sites[column].choices, jnp.int32)
        return jnp.where(arch[column] < 0, default, values[jnp.maximum(arch[column], 0)])

    def reads(layer: LayerLayout) -> list[jax.Array]:
        """Gates of a layer's slots."""
        active = layer.block <= last
        anchors = {
            s.source: active & (arch[space.columns[f"layer{layer.block}/anchor{s.source // per}"]] == 1)
            if space.skips
            else active
            for s in layer.slots
            if s.source != IMAGE and s.source // per < layer.block
        }
        none = active & ~jnp.stack([*anchors.values(), jnp.bool_(False)]).any()
        return [none if s.source == IMAGE else anchors.get(s.source, active) for s in layer.slots]

    choices: list[LayerChoice] = []
    left = [layer.block <= last for layer in layers]  # exists, and no later layer reads it
    for i, layer in enumerate(layers):
        gates = reads(layer)
        made = [choices[s.source].outputs if s.source != IMAGE else jnp.ones(s.capacity, bool) for s in layer.slots]
        sizes = [
            halved(choices[s.source].size if s.source != IMAGE else layout.image[:2], s.pools) for s in layer.slots
        ]
        for slot, gate in zip(layer.slots, gates, strict=True):
            if slot.source != IMAGE:
                left[slot.source] &= ~gate
        kind = {"conv": layer.block <= last}
        if space.types:
            chosen = arch[space.columns[f"layer{layer.block}/type"]]
            kind = {name: kind["conv"] & (chosen == t) for t, name in enumerate(space.types)}
        inputs = jnp.concatenate([gate & m for gate, m in zip(gates, made, strict=True)])
        filters = jnp.where(kind.get("conv", False), value(layer, "num_filters", 0) + space.extra_filters, 0)
        kept = jnp.pad(inputs, (0, max(0, layer.capacity - len(inputs))))[: layer.capacity]
        first = i % per == 0
        stride: Size = (value(layer, "stride_height", 1), value(layer, "stride_width", 1)) if first else (1, 1)
        in_size: Size = layer.frame
        offsets: list[Size] = [(0, 0)] * len(sizes)
        if layout.traced_sizes:
            in_size = _largest(gates, sizes)
            offsets = [tuple((n - m) // 2 for n, m in zip(in_size, size, strict=True)) for size in sizes]
        choices.append(
            LayerChoice(
                kind=kind,
                kernel=(value(layer, "filter_height", 1), value(layer, "filter_width", 1)),
                stride=stride,
                gates=tuple(gates),
                inputs=inputs,
                ranks=jnp.concatenate([jnp.cumsum(m) - 1 for m in made]),
                outputs=jnp.where(kind.get("conv", False), jnp.arange(layer.capacity) < filters, kept),
                offsets=tuple(offsets),
                in_size=in_size,
                size=tuple((n - 1) // s + 1 for n, s in zip(in_size, stride, strict=True)),
            )
        )
    return choices, _head(space, layout, choices, left, last)


def _head(
    space: ConvChain, layout: Layout, choices: list[LayerChoice], left: list[jax.Array], last: jax.Array
) -> HeadChoice:
    gates = []
    for j, layer in enumerate(layout.layers):
        blocks = layout.layers[-1].block + 1
        pools = [count_pools(space, j, max(b, layer.block)) for b in range(blocks)]  # where block b is the last
        reachable = sorted(set(pools[max(space.min_layers - 1, layer.block) :]))
        gates.append(tuple((p, left[j] & (jnp.asarray(pools)[last] == p)) for p in reachable))
    flat = [(gate, halved(choices[j].size, p)) for j, options in enumerate(gates) for p, gate in options]
    return HeadChoice(
        gates=tuple(gates),
        inputs=jnp.concatenate([left[j] & choice.outputs for j, choice in enumerate(choices)]),
        ranks=jnp.concatenate([jnp.cumsum(choice.outputs) - 1 for choice in choices]),
        size=_largest([gate for gate, _ in flat], [size for _, size in flat]),
    )


def count_pools(space: ConvChain, source: int, block: int) -> int:
    """2x2 max-poolings between network layer `source` (or IMAGE) and a reader in `block`."""
    at = -1 if source == IMAGE else source // space.block_layers
    if space.pool_skips:
        return sum(max(at, 0) <= p < block for p in space.pool_after)
    leaves = source % space.block_layers == space.block_layers - 1
    return int(at in space.pool_after and leaves and block > at)


def halved(size: Size, pools: int) -> Size:
    """A height and width after this many 2x2 poolings."""
    return size[0] // 2**pools, size[1] // 2**pools


def links(layer: LayerLayout | Layout, reader: int) -> np.ndarray:
    """First part of the names of a layer's weights (`nets.initial`), u32[in capacity]; of a Layout: of its head's."""
    if isinstance(layer, Layout):
        sources = [(j, layer.layers[j].capacity) for j in range(len(layer.layers))]
    else:
        sources = [(s.source, s.capacity) for s in layer.slots]
    return np.concatenate([np.full(n, initial.link(reader, j), np.uint32) for j, n in sources])


def _largest(gates: list[jax.Array], sizes: list[Size]) -> Size:
    """Height and width of the input; 1 where nothing is read."""
    height, width = (
        jnp.stack([jnp.where(gate, size[axis], 1) for gate, size in zip(gates, sizes, strict=True)]).max()
        for axis in (0, 1)
    )
    return height, width
