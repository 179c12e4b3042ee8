"""The operators of a chain of choice blocks, as pure functions: ShuffleNetV2 and inverted residual blocks.

SPOS: Guo et al. 2020 (arXiv:1904.00420) and its code. FairNAS: Chu et al. 2021 (arXiv:1907.01845). BN-NAS: Chen et al.
2021 (arXiv:2108.07375). Their blocks: docs/methods/spos.md, fairnas.md, bn_nas.md. Every convolution is followed by a
batch norm, so an operator is a list of such steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import Mode, normalise
from nasjax.nets.numerics import cast, precision
from nasjax.ops.activation import relu, relu6
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.spaces.choice_chain.plan import mid_channels
from nasjax.spaces.choice_chain.space import LayerShape
from nasjax.types import PyTree


class Step(NamedTuple):
    """A convolution and its batch norm."""

    kind: str  # "conv" | "pointwise" | "depthwise"
    c_in: int
    c_out: int
    size: int = 1
    stride: int = 1
    activation: str = "none"  # | "relu" | "relu6"
    widths: tuple[int, ...] = ()  # with channel search: the widths to which c_out may be narrowed, one per factor

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of the kernel: [i, o], [k, k, c], or [k, k, i, o]."""
        if self.kind == "pointwise":
            return (self.c_in, self.c_out)
        channels = (self.c_out,) if self.kind == "depthwise" else (self.c_in, self.c_out)
        return (self.size, self.size, *channels)


class Block(NamedTuple):
    """An operator: its main path, its second path, and how the two are joined."""

    main: tuple[Step, ...]
    branch: tuple[Step, ...]
    join: str  # "split" (half of the channels bypass it) | "branch" (the branch runs beside it) | "add" | "none"


def block(family: str, operator: str, shape: LayerShape, factors: tuple[float, ...] = ()) -> Block:
    """The steps of an operator on a layer.

    Args:
      family: "shuffle" or "mobile".
      operator: of `ChoiceChain.operators`, e.g. "shuffle_k5", "mbconv_k3_e6".
      shape: channels and stride of the layer.
      factors: of channel search; the block is as wide as the widest of them needs.
    """
    c_in, c_out, stride = shape
    widths = tuple(mid_channels(family, operator, shape, factor) for factor in factors)
    mid = max(widths) if widths else mid_channels(family, operator, shape, 1.0)
    if family == "mobile":
        size = int(operator[len("mbconv_k")])
        body = (
            Step("pointwise", c_in, mid, activation="relu6", widths=widths),
            Step("depthwise", mid, mid, size, stride, "relu6", widths),
            Step("pointwise", mid, c_out),
        )
        return Block(body, (), "add" if stride == 1 and c_in == c_out else "none")
    half = c_in if stride == 2 else c_in // 2
    last = Step("pointwise", mid, c_out - half, activation="relu")
    main: tuple[Step, ...]
    if operator == "shuffle_xception":
        size = 3
        main = (
            Step("depthwise", half, half, 3, stride),
            Step("pointwise", half, mid, activation="relu", widths=widths),
            Step("depthwise", mid, mid, 3, widths=widths),
            Step("pointwise", mid, mid, activation="relu", widths=widths),
            Step("depthwise", mid, mid, 3, widths=widths),
            last,
        )
    else:
        size = int(operator[len("shuffle_k")])
        first = Step("pointwise", half, mid, activation="relu", widths=widths)
        main = (first, Step("depthwise", mid, mid, size, stride, widths=widths), last)
    if stride == 1:
        return Block(main, (), "split")
    return Block(
        main, (Step("depthwise", half, half, size, 2), Step("pointwise", half, half, activation="relu")), "branch"
    )


def named_steps(block: Block) -> dict[str, Step]:
    """The steps by their names in the parameters: main0, main1, ..., branch0, ..."""
    paths = (("main", block.main), ("branch", block.branch))
    return {f"{path}{i}": step for path, steps in paths for i, step in enumerate(steps)}


def step_shapes(steps: dict[str, Step], affine: bool, lead: tuple[int, ...] = ()) -> PyTree:
    """Shapes of {"params", "batch_stats"} of some steps; `lead` = leading axes of every array."""
    params: PyTree = {}
    for name, step in steps.items():
        params[name] = {step.kind: (*lead, *step.kernel)}
        if affine:
            params[name] |= {"gamma": (*lead, step.c_out), "beta": (*lead, step.c_out)}
    stats = {name: {"mean": (*lead, step.c_out), "var": (*lead, step.c_out)} for name, step in steps.items()}
    return {"params": params, "batch_stats": stats}


def apply_step(
    step: Step, params: PyTree, stats: PyTree, x: jax.Array, mode: Mode, factor: Any = None
) -> tuple[jax.Array, PyTree]:
    """Convolution, batch norm, activation; also the new running statistics.

    Args:
      params: {kind: kernel} and, if affine, {"gamma", "beta"}.
      stats: {"mean", "var"}.
      x: [B, H, W, C].
      factor: number of the channel factor, traced; None = full width.
    """
    x, kernel = cast(mode.dtype, x, params[step.kind])
    if step.kind == "depthwise":
        x = depthwise_conv2d(x, kernel, step.stride)
    else:
        kernel = kernel[None, None] if step.kind == "pointwise" else kernel
        x = conv2d(x, kernel, (step.stride, step.stride), precision=precision(mode.dtype))
    x, after = normalise(params, stats, x, mode)
    if step.activation != "none":
        x = relu6(x) if step.activation == "relu6" else relu(x)
    if step.widths and factor is not None:  # a narrower kernel is a slice of the widest: other channels do not exist
        keep = jnp.arange(step.c_out) < jnp.asarray(step.widths)[factor]
        x = jnp.where(keep[None, None, None], x, 0)
        after = {name: jnp.where(keep, new, stats[name]) for name, new in after.items()}
    return x, after


def apply_block(
    block: Block, params: PyTree, stats: PyTree, x: jax.Array, mode: Mode, factor: Any = None
) -> tuple[jax.Array, PyTree]:
    """One operator: [B, H, W, C] -> [B, H', W', C'], and its new running statistics."""
    after = {}
    paths = {"main": x, "branch": x}
    if block.join == "split":  # even and odd channels, which is the channel shuffle
        paths = {"main": x[..., 1::2], "branch": x[..., 0::2]}
    for path, steps in (("main", block.main), ("branch", block.branch)):
        for i, step in enumerate(steps):
            name = f"{path}{i}"
            paths[path], after[name] = apply_step(step, params[name], stats[name], paths[path], mode, factor)
    if block.join in ("split", "branch"):
        return jnp.concatenate([paths["branch"], paths["main"]], -1), after
    return (paths["main"] + x if block.join == "add" else paths["main"]), after
