"""The network of one `conv_chain` architecture as a static table: shapes, inputs, parameters, multiply-adds.

Host side, exact integers, no arrays: the specialised network and the counts read this one table, so they cannot
disagree. Zoph & Le 2017, section 3.3 (compile rules); docs/methods/reinforce.md says what the paper leaves open.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nasjax.spaces.conv_chain.space import ConvChain

IMAGE = -1


class Source(NamedTuple):
    """One tensor that a layer (or the classifier) reads."""

    layer: int  # network layer, IMAGE = the image
    pools: int  # 2x2 max-poolings between it and its reader
    channels: int
    size: tuple[int, int]  # height, width after those poolings, before zero-padding


class LayerPlan(NamedTuple):
    """One layer of the network."""

    type: str  # of conv_chain.TYPES
    kernel: tuple[int, int]  # 1, 1 for norms
    stride: tuple[int, int]
    filters: int  # output channels
    sources: tuple[Source, ...]  # concatenated along channels, in this order
    in_channels: int
    in_size: tuple[int, int]  # the largest source; smaller ones are zero-padded to it
    out_size: tuple[int, int]
    params: int
    macs: int


class Plan(NamedTuple):
    """A whole network for images of the shape `image` (height, width, channels)."""

    image: tuple[int, int, int]
    classes: int
    layers: tuple[LayerPlan, ...]
    head: tuple[Source, ...]  # outputs that no layer reads: concatenated, averaged over `head_size`, then dense
    head_size: tuple[int, int]
    head_channels: int
    learning_rate: float | None
    params: int
    macs: int


def plan(space: ConvChain, arch: np.ndarray, image: tuple[int, int, int], classes: int) -> Plan:
    """Compiles an Arch by the rules of docs/methods/reinforce.md.

    Args:
      space: its space.
      arch: int32[S].
      image: height, width, channels of the input.
      classes: number of logits.

    Returns:
      The network's table. "params" counts convolution kernels, batch-norm gamma and beta and the dense layer;
      "macs" counts multiply-adds of convolutions and the dense layer for one image.

    Raises:
      ValueError: `arch` is not in `space`.
    """
    space.validate(arch)
    blocks, per = space.min_layers + int(arch[0]), space.block_layers
    pools_before = [sum(p < b for p in space.pool_after) for b in range(blocks)]  # pooling points in front of block b
    out: list[tuple[int, tuple[int, int]]] = []  # per network layer: channels, size
    layers: list[LayerPlan] = []
    consumed: set[int] = set()

    def source(layer: int, reader_block: int) -> Source:
        block = -1 if layer == IMAGE else layer // per
        channels, size = (image[2], (image[0], image[1])) if layer == IMAGE else out[layer]
        made_at = 0 if block < 0 else pools_before[block]
        pools = pools_before[reader_block] - made_at
        if not space.pool_skips:  # only the chain is pooled: the tensor right before a pooling point
            pools = int(block in space.pool_after and layer % per == per - 1 and reader_block > block)
        for _ in range(pools):
            size = (size[0] // 2, size[1] // 2)
        if min(size) < 1:
            raise ValueError(f"images of {image[0]}x{image[1]} are too small for {pools} poolings")
        return Source(layer, pools, channels, size)

    for i in range(blocks * per):
        block, k = divmod(i, per)
        block_inputs = [per * j + per - 1 for j in space._inputs(np.asarray(arch), block)] or [IMAGE]
        inputs = block_inputs + [per * block + m for m in range(k)]
        consumed.update(inputs)
        sources = tuple(source(j, block) for j in inputs)
        in_channels = sum(s.channels for s in sources)
        in_size = (max(s.size[0] for s in sources), max(s.size[1] for s in sources))

        def value(token: str, default: int, block: int = block) -> int:
            found = space.value(np.asarray(arch), f"layer{block}/{token}")
            return default if found is None else found

        kind = space.value(np.asarray(arch), f"layer{block}/type") or "conv"
        kernel = (value("filter_height", 1), value("filter_width", 1))
        # Only the first layer of a block moves the window, so that a block strides once.
        stride = (value("stride_height", 1), value("stride_width", 1)) if k == 0 else (1, 1)
        filters = value("num_filters", 0) + space.extra_filters if kind == "conv" else in_channels
        out_size = ((in_size[0] - 1) // stride[0] + 1, (in_size[1] - 1) // stride[1] + 1)
        weights = kernel[0] * kernel[1] * in_channels * filters if kind == "conv" else 0
        params = weights + (2 * filters if kind in ("conv", "batch_norm") else 0)
        macs = weights * out_size[0] * out_size[1]
        layers.append(LayerPlan(kind, kernel, stride, filters, sources, in_channels, in_size, out_size, params, macs))
        out.append((filters, out_size))
    head = tuple(
        Source(j, 0, *out[j]) if j // per == blocks - 1 else source(j, blocks - 1)
        for j in range(len(layers))
        if j not in consumed
    )
    head_channels = sum(s.channels for s in head)
    dense = head_channels * classes
    return Plan(
        image=image,
        classes=classes,
        layers=tuple(layers),
        head=head,
        head_size=(max(s.size[0] for s in head), max(s.size[1] for s in head)),
        head_channels=head_channels,
        learning_rate=space.value(np.asarray(arch), "learning_rate"),
        params=sum(layer.params for layer in layers) + dense + classes,
        macs=sum(layer.macs for layer in layers) + dense,
    )


def count_params(space: ConvChain, arch: np.ndarray, image: tuple[int, int, int], classes: int) -> int:
    """Trainable parameters, batch-norm gamma and beta included, running statistics excluded."""
    return plan(space, arch, image, classes).params


def count_macs(space: ConvChain, arch: np.ndarray, image: tuple[int, int, int], classes: int) -> int:
    """Multiply-adds of the convolutions and the dense layer for one image."""
    return plan(space, arch, image, classes).macs
