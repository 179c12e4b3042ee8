"""The network of a graph over resolutions as a table, with exact counts per node, edge and head.

MobileNetV2 blocks: Sandler et al. 2018 (arXiv:1801.04381), section 3; residual blocks: He et al. 2016
(arXiv:1512.03385), section 3; UNet++: Zhou et al. 2018 (arXiv:1807.10165) and the public PyTorch code on nuclei.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from nasjax.spaces.resolution_graph.form import (
    EXPANSION,
    KERNEL,
    MBV2,
    MBV2_S2,
    RESNET,
    TRANSCONV,
    UPSAMPLE,
    VGG,
    Edge,
    Graph,
    Node,
)


class Conv(NamedTuple):
    """A convolution with its norm and activation."""

    kind: str  # "conv" | "pointwise" | "depthwise" | "transposed" (2x2, stride 2)
    c_in: int
    c_out: int
    size: int = 1
    stride: int = 1
    bias: bool = False
    norm: bool = True
    activation: str = "none"  # | "relu" | "relu6"

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of the kernel: [i, o], [k, k, c], [k, k, i, o]."""
        if self.kind == "pointwise":
            return (self.c_in, self.c_out)
        channels = (self.c_out,) if self.kind == "depthwise" else (self.c_in, self.c_out)
        return (self.size, self.size, *channels)

    @property
    def params(self) -> int:
        """Kernel, bias, and scale and shift of batch norm."""
        return math.prod(self.kernel) + self.c_out * (self.bias + 2 * self.norm)

    def macs(self, places: int) -> int:
        """Multiply-adds of the kernel alone, for `places` outputs."""
        return math.prod(self.kernel) * places // (4 if self.kind == "transposed" else 1)


@functools.lru_cache(maxsize=4096)
def convolutions(op: str | None, c_in: int, c_out: int, kernel: int | None, expansion: int | None) -> tuple[Conv, ...]:
    """The convolutions of an operator of a node or an edge, in order; () for pooling, interpolation and identity."""
    match op:
        case "mbv2" | "mbv2_s2":
            mid, size = (expansion or EXPANSION) * c_in, kernel or KERNEL
            return (
                Conv("pointwise", c_in, mid, activation="relu6"),
                Conv("depthwise", mid, mid, size, 2 if op == MBV2_S2 else 1, activation="relu6"),
                Conv("pointwise", mid, c_out),
            )
        case "resnet":
            return (Conv("conv", c_in, c_out, 3, activation="relu"), Conv("conv", c_out, c_out, 3))
        case "vgg":
            first = Conv("conv", c_in, c_out, 3, bias=True, activation="relu")
            return (first, first._replace(c_in=c_out))
        case "transconv":
            return (Conv("transposed", c_in, c_out, 2, 2, bias=True, norm=False),)
        case None:
            return (Conv("conv", c_in, c_out, 3, activation="relu"),)
    return ()


@functools.lru_cache(maxsize=4096)
def merge(op: str, c_in: int, c_out: int) -> Conv:
    """The 1x1 kernel with which an edge of operator `op` enters the sum of its destination."""
    return Conv("pointwise", c_out if op in (MBV2_S2, TRANSCONV) else c_in, c_out, norm=False)


class Counts(NamedTuple):
    """Of one part of the network."""

    params: int
    macs: int


@dataclass(frozen=True)
class GraphPlan:
    """The network of a graph on images of one size.

    The input node is a stem: 3x3 convolution, batch norm, ReLU. Every other node sums the outputs of its edges, each
    through a 1x1 kernel of its own, then applies batch norm, ReLU and its operator at constant width. This equals
    concatenation and a 1x1 convolution, but a kernel per edge stays valid when another edge is added or removed. The
    kernel of an up-sampling edge acts before the interpolation, with which it commutes, at a quarter of the cost. Nodes
    with the baselines' operator "vgg" concatenate the outputs of their edges instead, so that edges need no kernels.

    A side that cannot be halved `graph.depth` times is padded at its end by repeating the last row or column, and the
    outputs are cropped back; counts are those of the padded image.

    Attributes:
      graph: valid, see `resolution_graph_form.check`.
      image: height, width, channels of the input.
      outputs: channels of the mask.

    Example:
      >>> from nasjax.spaces.resolution_graph.form import from_tree
      >>> from nasjax.spaces.resolution_graph.named import NAMED
      >>> GraphPlan(from_tree(NAMED["UNETPP"]), (96, 96, 3)).params
      9163329
    """

    graph: Graph
    image: tuple[int, int, int] = (96, 96, 3)
    outputs: int = 1

    def __post_init__(self) -> None:
        if len(self.image) != 3 or min(*self.image, self.outputs) < 1:
            raise ValueError(f"image is (height, width, channels), all positive, and so are outputs; got {self}")

    @cached_property
    def depth(self) -> int:
        """The deepest level."""
        return self.graph.depth

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.graph.channels << level

    def places(self, level: int) -> int:
        """Positions of a level, padding included."""
        height, width = (-(-side // (1 << self.depth)) << self.depth for side in self.image[:2])
        return (height >> level) * (width >> level)

    @property
    def heads(self) -> tuple[int, ...]:
        """Ids of the nodes with a head, the output last."""
        return (*self.graph.supervised, self.graph.nodes[-1].id)

    def node(self, node: Node) -> tuple[Conv, ...]:
        """The convolutions of a node."""
        width = read = self.width(node.level)
        if node is self.graph.nodes[0]:
            read = self.image[2]
        elif node.op == VGG:
            read = sum(edge_width(self.graph, self._levels, edge) for edge in self._sources[node.id])
        return convolutions(node.op, read, width, node.kernel, node.expansion)

    def edge(self, edge: Edge) -> tuple[tuple[Conv, ...], Conv | None]:
        """The convolutions of an edge's operator, and the 1x1 kernel of its merge if it has one."""
        src, dst = (self.width(self._levels[node]) for node in (edge.src, edge.dst))
        plain = self._ops[edge.dst] == VGG
        return convolutions(edge.op, src, dst, None, None), None if plain else merge(edge.op, src, dst)

    @cached_property
    def blocks(self) -> dict[str, Counts]:
        """Counts of "node0", ..., "edge0", ..., "head7", ... by their ids; a node's merge norm is its own."""
        found = {}
        for node in self.graph.nodes:
            steps, places, merged = self.node(node), self.places(node.level), node.op in (MBV2, RESNET)
            params = sum(step.params for step in steps) + 2 * self.width(node.level) * merged
            found[f"node{node.id}"] = Counts(params, sum(step.macs(places) for step in steps))
        for edge in self.graph.edges:
            found[f"edge{edge.id}"] = self._edge_counts(edge)
        for node_id in self.heads:
            weights = self.width(0) * self.outputs
            found[f"head{node_id}"] = Counts(weights + self.outputs, weights * self.places(0))
        return found

    def _edge_counts(self, edge: Edge) -> Counts:
        steps, kernel = self.edge(edge)
        src, dst = (self.places(self._levels[node]) for node in (edge.src, edge.dst))
        params, macs = sum(step.params for step in steps), 0
        for i, step in enumerate(steps):  # the first convolution of MBV2_S2 is before its stride
            macs += step.macs(src if edge.op == MBV2_S2 and i == 0 else dst)
        if kernel is not None:
            params, macs = params + kernel.params, macs + kernel.macs(src if edge.op == UPSAMPLE else dst)
        return Counts(params, macs)

    @cached_property
    def params(self) -> int:
        """Parameters of the network."""
        return sum(counts.params for counts in self.blocks.values())

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return sum(counts.macs for counts in self.blocks.values())

    @cached_property
    def _levels(self) -> dict[int, int]:
        return {node.id: node.level for node in self.graph.nodes}

    @cached_property
    def _ops(self) -> dict[int, str | None]:
        return {node.id: node.op for node in self.graph.nodes}

    @cached_property
    def _sources(self) -> dict[int, list[Edge]]:
        return self.graph.sources()


def edge_width(graph: Graph, levels: dict[int, int], edge: Edge) -> int:
    """Channels that an edge's operator gives."""
    learnt = edge.op in (MBV2_S2, TRANSCONV)
    return graph.channels << levels[edge.dst if learnt else edge.src]


def count_params(graph: Graph, colours: int = 3, outputs: int = 1) -> int:
    """Parameters of the network of a graph, for images and masks of these channels."""
    side = 1 << graph.depth
    return GraphPlan(graph, (side, side, colours), outputs).params


def edge_counts(graph: Graph) -> dict[str, int]:
    """How many edges lead {"down", "same", "up"}: an encoder has the first, a decoder the last."""
    level = {node.id: node.level for node in graph.nodes}
    steps = [level[edge.dst] - level[edge.src] for edge in graph.edges]
    return {"down": steps.count(1), "same": steps.count(0), "up": steps.count(-1)}
