"""Weights of a released DARTS checkpoint as variables of our evaluation network.

Names and forms are those of quark0/darts, cnn/model.py and operations.py (Liu et al. 2019, arXiv:1806.09055), which
PC-DARTS, P-DARTS and MSR-DARTS took over: a `state_dict` of PyTorch, images [B, C, H, W]. Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nasjax.spaces.darts_cell.plan import AUXILIARY, STEM_MULTIPLIER, DartsPlan, stride_of
from nasjax.types import PyTree

_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # a counter of later releases of PyTorch; nothing reads it


class _Leaf(NamedTuple):
    """One of our arrays, and its source."""

    path: tuple[str, ...]  # in our variables, the collection first
    names: tuple[str, ...]  # of the release's arrays; several are parts of one, output channels side by side
    shape: tuple[int, ...]  # of each of them
    change: Callable[[np.ndarray], np.ndarray] = lambda array: array


def darts_from_release(plan: DartsPlan, arrays: Mapping[str, Any] | str | Path) -> PyTree:
    """The variables of `darts_eval(plan)` with the weights of a released checkpoint.

    Args:
      plan: the release's network: its genotype with the pairs in the order that the release lists (`_ops.K` is pair K),
        channels, layers, classes; auxiliary=True if it was trained with the auxiliary head.
      arrays: the release's arrays by name ("stem.0.weight", "cells.3._ops.2.op.1.weight", ...), or a .npz of them. A
        leading "module." and the counters of batches are left out. Floats of 16 bits become 32.

    Returns:
      {"params", "batch_stats"}; `apply` gives the release's logits. Batch norm's epsilon is its default, 1e-5.

    Raises:
      ValueError: a name is missing or unknown, or an array has another shape or holds no floats; the line names the
        first. The file is no .npz.
      FileNotFoundError: there is no such file.

    Example:
      >>> plan = DartsPlan(genotype(named("DARTS_V2")), auxiliary=True)
      >>> variables = darts_from_release(plan, "cifar10_model.npz")
      >>> logits, _ = darts_eval(plan).apply(variables, None, x)
    """
    if isinstance(arrays, str | Path):
        if Path(arrays).suffix != ".npz":
            raise ValueError(f"{arrays} is no .npz; write one where PyTorch is: numpy.savez(FILE, **state_dict)")
        with np.load(arrays) as file:
            return darts_from_release(plan, dict(file))
    found = {name.removeprefix("module."): array for name, array in arrays.items() if not name.endswith(_COUNTER)}
    leaves = list(_leaves(plan))
    known = {name for leaf in leaves for name in leaf.names}
    for name in found:
        if name not in known:
            hint = "; write DartsPlan(auxiliary=True)" if name.startswith("auxiliary_head.") else ""
            raise ValueError(f"unknown array {name!r}: this genotype, depth and stem have none of that name{hint}")
    variables: PyTree = {"params": {}, "batch_stats": {}}
    for leaf in leaves:
        parts = [_checked(found, name, leaf.shape) for name in leaf.names]
        *path, last = leaf.path
        tree = variables
        for key in path:
            tree = tree.setdefault(key, {})
        tree[last] = jnp.asarray(leaf.change(np.concatenate(parts)))
    return variables


def _checked(found: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in found:
        hint = "; write DartsPlan(auxiliary=False)" if name.startswith("auxiliary_head.") else ""
        raise ValueError(f"array {name!r} is missing{hint}")
    array = np.asarray(found[name])
    if array.shape != shape:
        raise ValueError(f"array {name!r} must be {list(shape)}, got {list(array.shape)}; look at the plan")
    if array.dtype.kind != "f":
        raise ValueError(f"array {name!r} must hold floats, got {array.dtype}")
    return array.astype(np.promote_types(array.dtype, np.float32))


def _leaves(plan: DartsPlan) -> Iterator[_Leaf]:
    c, colours = plan.channels, plan.image[2]
    if plan.stem == "cifar":
        yield from _conv(("stem",), "stem.0", "stem.1", STEM_MULTIPLIER * c, colours, 3)
    else:
        yield from _conv(("stem0",), "stem0.0", "stem0.1", c // 2, colours, 3)
        yield from _conv(("stem1",), "stem0.3", "stem0.4", c, c // 2, 3)
        yield from _conv(("stem2",), "stem1.1", "stem1.2", c, c, 3)
    for k, cell in enumerate(plan.cells):
        name, ours = f"cells.{k}", f"cell{k}"
        first = _factorized if cell.follows_reduction else _relu_conv_norm
        yield from first((ours, "input0"), f"{name}.preprocess0", cell.channels, cell.inputs[0])
        yield from _relu_conv_norm((ours, "input1"), f"{name}.preprocess1", cell.channels, cell.inputs[1])
        for i, (operator, source) in enumerate(plan.genotype.of(k, cell.kind)):
            path, prefix = (ours, f"pair{i}"), f"{name}._ops.{i}"
            if operator == "skip_connect" and stride_of(cell.kind, source) == 2:
                yield from _factorized((*path, "reduce"), prefix, cell.channels, cell.channels)
            elif operator.startswith("dil"):
                yield from _depthwise((*path, "dilated"), prefix, 1, cell.channels, int(operator[-1]))
            elif operator.startswith("sep"):
                yield from _depthwise((*path, "first"), prefix, 1, cell.channels, int(operator[-1]))
                yield from _depthwise((*path, "second"), prefix, 5, cell.channels, int(operator[-1]))
    if plan.auxiliary:
        name, (first_width, width), last = "auxiliary_head", AUXILIARY, 4 * plan.auxiliary_cell.channels
        yield from _conv(("auxiliary", "first"), f"{name}.features.2", f"{name}.features.3", first_width, last, 1)
        yield _kernel(("auxiliary",), (f"{name}.features.5",), width, first_width, 2)
        if plan.stem == "cifar":  # the release's ImageNet head has no batch norm here
            yield from _norm(("auxiliary", "norm"), f"{name}.features.6", width)
        yield from _dense(("auxiliary", "head"), f"{name}.classifier", plan.classes, width)
    yield from _dense(("head",), "classifier", plan.classes, 4 * plan.cells[-1].channels)


def _kernel(path: tuple[str, ...], names: tuple[str, ...], c_out: int, c_in: int, size: int) -> _Leaf:
    """A kernel [size, size, in, out] of one or more [out, in, size, size]; `c_out` is of each."""
    names = tuple(f"{name}.weight" for name in names)
    return _Leaf(("params", *path, "kernel"), names, (c_out, c_in, size, size), lambda a: a.transpose(2, 3, 1, 0))


def _norm(path: tuple[str, ...], name: str, width: int) -> Iterator[_Leaf]:
    for ours, theirs in _NORM.items():
        collection = "params" if ours in ("gamma", "beta") else "batch_stats"
        yield _Leaf((collection, *path, ours), (f"{name}.{theirs}",), (width,))


def _conv(path: tuple[str, ...], conv: str, norm: str, c_out: int, c_in: int, size: int) -> Iterator[_Leaf]:
    yield _kernel(path, (conv,), c_out, c_in, size)
    yield from _norm((*path, "norm"), norm, c_out)


def _relu_conv_norm(path: tuple[str, ...], name: str, c_out: int, c_in: int) -> Iterator[_Leaf]:
    return _conv(path, f"{name}.op.1", f"{name}.op.2", c_out, c_in, 1)


def _factorized(path: tuple[str, ...], name: str, c_out: int, c_in: int) -> Iterator[_Leaf]:
    yield _kernel(path, (f"{name}.conv_1", f"{name}.conv_2"), c_out // 2, c_in, 1)
    yield from _norm((*path, "norm"), f"{name}.bn", c_out)


def _depthwise(path: tuple[str, ...], name: str, at: int, channels: int, size: int) -> Iterator[_Leaf]:
    """ReLU, depthwise, pointwise, batch norm: a separable convolution has two of them, from numbers 1 and 5 on."""
    shape = (channels, 1, size, size)
    yield _Leaf(("params", *path, "kernel"), (f"{name}.op.{at}.weight",), shape, lambda a: a[:, 0].transpose(1, 2, 0))
    yield from _conv((*path, "pointwise"), f"{name}.op.{at + 1}", f"{name}.op.{at + 2}", channels, channels, 1)


def _dense(path: tuple[str, ...], name: str, classes: int, features: int) -> Iterator[_Leaf]:
    yield _Leaf(("params", *path, "kernel"), (f"{name}.weight",), (classes, features), np.transpose)
    yield _Leaf(("params", *path, "bias"), (f"{name}.bias",), (classes,))
