"""The parts of the network of a graph over resolutions: stem, edges, nodes and heads, as pure functions.

Each is a value that describes its computation without its place in a graph, so equal ones share one program. The number
of edges into a node needs no program of its own, because they add to their sum one after the other.

MobileNetV2 blocks: Sandler et al. 2018 (arXiv:1801.04381), section 3; residual blocks: He et al. 2016
(arXiv:1512.03385), section 3; the baselines' blocks: Ronneberger et al. 2015, Zhou et al. 2018 (arXiv:1807.10165).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import Mode, wide
from nasjax.nets.numerics import cast, precision
from nasjax.ops.activation import relu, relu6
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.ops.norm import batch_norm
from nasjax.ops.pool import halve
from nasjax.ops.resize import double, transposed_conv2d
from nasjax.spaces.resolution_graph.form import MAXPOOL, RESNET, UPSAMPLE
from nasjax.spaces.resolution_graph.plan import Conv
from nasjax.types import PyTree

Shapes = dict[str, Any]  # of {"params", "batch_stats"}, tuples as leaves
Values = tuple[jax.Array, ...]


class Piece(Hashable, Protocol):
    """Static and hashable; equal pieces compute the same."""

    def shapes(self) -> Shapes: ...
    def run(self, params: PyTree, stats: PyTree, inputs: Values, mode: Mode) -> tuple[tuple[PyTree, ...], PyTree]: ...


@dataclass(frozen=True)
class Stem:
    """The images, padded at the end so that `multiple` divides both sides, through the input's convolutions."""

    steps: tuple[Conv, ...]
    multiple: int

    def shapes(self) -> Shapes:
        return shapes_of(self.steps)

    def run(self, params: PyTree, stats: PyTree, inputs: Values, mode: Mode) -> tuple[Values, PyTree]:
        (x,) = inputs
        pads = [(0, -side % self.multiple) for side in x.shape[1:3]]
        if pads != [(0, 0), (0, 0)]:
            x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode="edge")
        x, after = run_steps(self.steps, params, stats, x, mode)
        return (x,), after


@dataclass(frozen=True)
class Link:
    """An edge: its operator, its 1x1 kernel, and the sum of the edges before it, which is a second input."""

    op: str
    steps: tuple[Conv, ...]
    merge: Conv

    def shapes(self) -> Shapes:
        return shapes_of(self.steps, merge=self.merge)

    def run(self, params: PyTree, stats: PyTree, inputs: Values, mode: Mode) -> tuple[Values, PyTree]:
        x, *total = inputs
        if self.op == MAXPOOL:
            x = halve(x)
        x, after = run_steps(self.steps, params, stats, x, mode)
        x = convolve(self.merge, params["merge"], x, mode)
        x = double(x) if self.op == UPSAMPLE else x  # after the kernel, with which it commutes
        return (total[0] + x if total else x,), after


@dataclass(frozen=True)
class Spot:
    """A node: the sum of its edges normalised and rectified, then its operator, "mbv2" or "resnet"."""

    op: str
    steps: tuple[Conv, ...]
    width: int

    def shapes(self) -> Shapes:
        return shapes_of(self.steps, norm=self.width)

    def run(self, params: PyTree, stats: PyTree, inputs: Values, mode: Mode) -> tuple[Values, PyTree]:
        x, norm = normalise(params["norm"], stats["norm"], inputs[0], mode)
        x = relu(x)
        y, after = run_steps(self.steps, params, stats, x, mode)
        y = x + y
        return (relu(y) if self.op == RESNET else y,), {"norm": norm, **after}


@dataclass(frozen=True)
class Concatenation:
    """A node of the baselines: concatenates the outputs of its edges, then applies its convolutions."""

    ops: tuple[tuple[str, tuple[Conv, ...]], ...]  # operator and convolutions of each edge
    steps: tuple[Conv, ...]

    def shapes(self) -> Shapes:
        shapes = shapes_of(self.steps)
        for i, (_, steps) in enumerate(self.ops):
            if steps:
                for kind, of in shapes_of(steps).items():
                    shapes[kind][f"edge{i}"] = of
        return shapes

    def run(self, params: PyTree, stats: PyTree, inputs: Values, mode: Mode) -> tuple[Values, PyTree]:
        brought, after = [], {}
        for i, ((op, steps), x) in enumerate(zip(self.ops, inputs, strict=True)):
            x = halve(x) if op == MAXPOOL else double(x) if op == UPSAMPLE else x
            if steps:
                x, after[f"edge{i}"] = run_steps(steps, params[f"edge{i}"], stats.get(f"edge{i}", {}), x, mode)
            brought.append(x)
        x, more = run_steps(self.steps, params, stats, jnp.concatenate(brought, -1), mode)
        return (x,), {**after, **more}


@dataclass(frozen=True)
class Head:
    """1x1 convolution to logits in at least float32, cropped to the sides of the images, its second input."""

    width: int
    outputs: int

    def shapes(self) -> Shapes:
        return {"params": {"pointwise": (self.width, self.outputs), "bias": (self.outputs,)}, "batch_stats": {}}

    def run(self, params: PyTree, stats: PyTree, inputs: Values, mode: Mode) -> tuple[Values, PyTree]:
        x, images = inputs
        y = conv2d(wide(x), params["pointwise"][None, None], precision="highest")
        y = y + params["bias"][None, None, None]
        return (y[:, : images.shape[1], : images.shape[2]],), {}


@dataclass(frozen=True)
class Gather:
    """Logits of several heads: all of them in training, where each has its loss, else their mean."""

    def shapes(self) -> Shapes:
        return {"params": {}, "batch_stats": {}}

    def run(self, params: PyTree, stats: PyTree, inputs: Values, mode: Mode) -> tuple[tuple[PyTree], PyTree]:
        return (inputs if mode.train else sum(inputs[1:], inputs[0]) / len(inputs),), {}


def shapes_of(steps: Iterable[Conv], norm: int = 0, merge: Conv | None = None) -> Shapes:
    """Shapes of the variables of some convolutions "conv0", ..., a batch norm "norm" and a kernel "merge"."""
    params: Shapes = {}
    stats: Shapes = {}
    for i, step in enumerate(steps):
        params[f"conv{i}"] = {step.kind: step.kernel} | ({"bias": (step.c_out,)} if step.bias else {})
        if step.norm:
            params[f"conv{i}"] |= {"gamma": (step.c_out,), "beta": (step.c_out,)}
            stats[f"conv{i}"] = {"mean": (step.c_out,), "var": (step.c_out,)}
    if norm:
        params["norm"], stats["norm"] = {"gamma": (norm,), "beta": (norm,)}, {"mean": (norm,), "var": (norm,)}
    if merge is not None:
        params["merge"] = {merge.kind: merge.kernel}
    return {"params": params, "batch_stats": stats}


def run_steps(
    steps: Iterable[Conv], params: PyTree, stats: PyTree, x: jax.Array, mode: Mode
) -> tuple[jax.Array, PyTree]:
    """Convolutions one after the other, each with its batch norm and activation; also their new statistics."""
    after = {}
    for i, step in enumerate(steps):
        name = f"conv{i}"
        x = convolve(step, params[name], x, mode)
        if step.norm:
            x, after[name] = normalise(params[name], stats[name], x, mode)
        if step.activation != "none":
            x = relu6(x) if step.activation == "relu6" else relu(x)
    return x, after


def convolve(step: Conv, params: PyTree, x: jax.Array, mode: Mode) -> jax.Array:
    """One convolution, with its bias if it has one."""
    x, kernel = cast(mode.dtype, x, params[step.kind])
    how = precision(mode.dtype)
    match step.kind:
        case "depthwise":
            y = depthwise_conv2d(x, kernel, step.stride)
        case "transposed":
            y = transposed_conv2d(x, kernel, precision=how)
        case _:
            kernel = kernel[None, None] if step.kind == "pointwise" else kernel
            y = conv2d(x, kernel, (step.stride, step.stride), precision=how)
    return y + params["bias"].astype(y.dtype)[None, None, None] if step.bias else y


def normalise(params: PyTree, stats: PyTree, x: jax.Array, mode: Mode) -> tuple[jax.Array, PyTree]:
    """Batch norm; also its new statistics."""
    old = (params["gamma"], params["beta"], stats["mean"], stats["var"])
    x, (mean, var) = batch_norm(x, *old, train=mode.train, momentum=mode.bn_momentum, eps=mode.bn_eps)
    return x, {"mean": mean, "var": var}
