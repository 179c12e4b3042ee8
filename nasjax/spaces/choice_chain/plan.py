"""What chains of choice blocks cost: exact tables of parameters and multiply-adds per layer, operator and factor.

SPOS: Guo et al. 2020 (arXiv:1904.00420); FairNAS: Chu et al. 2021 (arXiv:1907.01845); BN-NAS: Chen et al. 2021
(arXiv:2108.07375). The blocks and the counts of published paths are in docs/methods/spos.md, fairnas.md and bn_nas.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.choice_chain.space import ChoiceChain, LayerShape


class Counts(NamedTuple):
    """Counts of one part of a network, or arrays of counts of many parts."""

    weights: Any  # of convolutions and the classifier
    scales: Any  # scales and shifts of batch norms
    macs: Any


def mid_channels(family: str, operator: str, shape: LayerShape, factor: float) -> int:
    """Inner channels of an operator: half of the layer's, or its input's times the expansion; times `factor`.

    Rounded down, as in SPOS's release; but 45 * 1.4, which is 62.99... in floating point, is 63.
    """
    full = shape.c_in * int(operator[-1]) if family == "mobile" else shape.c_out // 2
    return int(full * factor + 1e-6)


def convolution(c_in: int, c_out: int, size: int, places: int, groups: int = 1) -> Counts:
    """A convolution with its batch norm; multiply-adds are those of the convolution alone."""
    weights = c_in // groups * c_out * size**2
    return Counts(weights, 2 * c_out, weights * places)


def dense(c_in: int, classes: int, bias: bool) -> Counts:
    """The classifier. BN-NAS's release counts (2 c_in - 1) * classes multiply-adds instead of c_in * classes."""
    return Counts(c_in * classes + classes * bias, 0, c_in * classes)


@dataclass(frozen=True)
class ChoicePlan:
    """A chain on images of one size.

    Attributes:
      space: the chain.
      image: height, width, channels of the input.
      classes: number of logits.

    Example:
      >>> from nasjax.spaces.choice_chain.space import variant
      >>> plan = ChoicePlan(variant("spos"))
      >>> plan.count(np.zeros(20, int))
      (3154880, 295842496)
    """

    space: ChoiceChain
    image: tuple[int, int, int] = (224, 224, 3)
    classes: int = 1000

    def __post_init__(self) -> None:
        if min(*self.image, self.classes) < 1:
            raise ValueError(f"image is (height, width, channels), all positive, and so are classes; got {self}")
        space = self.space
        smallest = min(space.channel_factors, default=1.0)
        for shape in space.layer_shapes:
            if not all(mid_channels(space.family, operator, shape, smallest) for operator in space.operators):
                raise ValueError(
                    f"channel factor {smallest} leaves no channels inside a layer {tuple(shape)}; raise it"
                )

    @property
    def bias(self) -> bool:
        """Whether the classifier has a bias; SPOS's has none."""
        return self.space.family == "mobile"

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Positions of the feature map after the stem and after every layer: L + 1 numbers."""
        height, width = (_reduced(n, self.space.stem_stride) for n in self.image[:2])
        found = [height * width]
        for shape in self.space.layer_shapes:
            height, width = _reduced(height, shape.stride), _reduced(width, shape.stride)
            found.append(height * width)
        return tuple(found)

    @cached_property
    def fixed(self) -> Counts:
        """The parts of every path: stem, tail, classifier."""
        space, first, last = self.space, self.places[0], self.places[-1]
        parts = [convolution(self.image[2], space.stem, 3, first)]
        if space.first:
            parts += [
                convolution(space.stem, space.stem, 3, first, space.stem),
                convolution(space.stem, space.first, 1, first),
            ]
        parts += [convolution(space.channels[-1], space.tail, 1, last), dense(space.tail, self.classes, self.bias)]
        return _total(parts)

    @cached_property
    def table(self) -> Counts:
        """Counts i64[L, m + 1, F] of every operator of every layer with each of F channel factors (one if none).

        The last operator column is identity and holds 0, as does every column of a removed layer. Entry -1 of a path
        picks the last column, so it means identity here as well.
        """
        space = self.space
        factors = space.channel_factors or (1.0,)
        table = np.zeros((3, space.layers, len(space.operators) + 1, len(factors)), np.int64)
        for i, shape in enumerate(space.layer_shapes):
            for o, operator in enumerate(space.operators):
                for f, factor in enumerate(factors):
                    if i not in space.removed:
                        mid = mid_channels(space.family, operator, shape, factor)
                        table[:, i, o, f] = _operator(space.family, operator, shape, mid, self.places[i : i + 2])
        return Counts(*table)

    def count(self, arch: np.ndarray) -> tuple[int, int]:
        """Parameters and multiply-adds of the network of an Arch, all batch norms affine."""
        self.space.validate(arch)
        layers = np.arange(self.space.layers)
        path, factor = np.asarray(self.space.path(jnp.asarray(arch))), np.zeros(len(layers), int)
        if self.space.channel_factors:
            factor = np.asarray(arch)[len(layers) :]
        weights, scales, macs = (
            int(table[layers, path, factor].sum()) + fixed for table, fixed in zip(self.table, self.fixed, strict=True)
        )
        return weights + scales, macs

    def smallest(self) -> tuple[int, int]:
        """The least parameters and the least multiply-adds that a path can have (of different paths, perhaps)."""
        m = len(self.space.operators)
        skippable = np.array([len(site.choices) > m for site in self.space.sites[: self.space.layers]])
        weights, scales, macs = (np.where(skippable, 0, table[:, :m].min((1, 2))).sum() for table in self.table)
        return int(weights + scales) + self.fixed.weights + self.fixed.scales, int(macs) + self.fixed.macs

    def ends(self) -> np.ndarray:
        """The paths of most and of least multiply-adds, i32[2, S]; of equal ones the first."""
        space, (layers, columns, factors) = self.space, self.table.macs.shape
        costs = self.table.macs.reshape(layers, -1)
        choices = [len(site.choices) * factors for site in space.sites[:layers]]
        found = []
        for best in (np.argmax, np.argmin):
            chosen = np.array([best(row[:count]) for row, count in zip(costs, choices, strict=True)], np.int32)
            path, factor = np.divmod(chosen, factors)
            gone = np.isin(np.arange(layers), space.removed)
            path, factor = np.where(gone, -1, path), np.where(gone | (path == columns - 1), -1, factor)
            found.append(np.concatenate([path, factor]) if space.channel_factors else path)
        return np.stack(found).astype(np.int32)

    def supernet_params(self, affine: bool = True, entangled: bool = False) -> int:
        """Parameters of all operators together, as wide as the widest channel factor; entangled, of the largest."""
        if entangled:
            parts = [self.fixed, *(self._largest(i) for i in range(self.space.layers) if i not in self.space.removed)]
            return int(sum(part.weights + part.scales * affine for part in parts))
        weights, scales = (
            int(table.max(2).sum()) + fixed for table, fixed in zip(self.table[:2], self.fixed[:2], strict=True)
        )
        return weights + scales * affine

    def _largest(self, layer: int) -> Counts:
        """A layer with the largest kernel and the most inner channels of its operators, of the mobile family."""
        space, shape = self.space, self.space.layer_shapes[layer]
        factors = space.channel_factors or (1.0,)
        mid = max(mid_channels(space.family, name, shape, factor) for name in space.operators for factor in factors)
        kernel = max(space.operators, key=lambda name: int(name[len("mbconv_k")]))
        return _operator(space.family, kernel, shape, mid, self.places[layer : layer + 2])


def counter(plan: ChoicePlan, what: str) -> Callable[[jax.Array], jax.Array]:
    """archs i32[..., S] -> i32[...], their "params" or "macs" by table look-up; traceable, for constraints.

    Raises:
      ValueError: the largest count does not fit 32 bits.
    """
    if what not in ("params", "macs"):
        raise ValueError(f"unknown count {what!r}; choose params or macs")
    parts = [plan.table.macs] if what == "macs" else [plan.table.weights, plan.table.scales]
    table, space = sum(parts), plan.space
    fixed = plan.fixed.macs if what == "macs" else plan.fixed.weights + plan.fixed.scales
    if int(table.max((1, 2)).sum()) + fixed >= 2**31:
        raise ValueError(
            f"{what} of this chain reach 2^31, more than a 32-bit count holds; use a smaller image or chain"
        )
    values, layers = jnp.asarray(table, jnp.int32), jnp.arange(space.layers)

    def count(archs: jax.Array) -> jax.Array:
        path = space.path(archs)
        operator = jnp.where(path < 0, values.shape[1] - 1, path)
        factor = jnp.maximum(archs[..., space.layers :], 0) if space.channel_factors else jnp.zeros_like(operator)
        return values[jnp.broadcast_to(layers, operator.shape), operator, factor].sum(-1) + fixed

    return count


def _operator(family: str, operator: str, shape: LayerShape, mid: int, places: tuple[int, ...]) -> Counts:
    c_in, c_out, stride = shape
    before, behind = places
    if family == "mobile":
        return _total([
            convolution(c_in, mid, 1, before),
            convolution(mid, mid, int(operator[len("mbconv_k")]), behind, mid),
            convolution(mid, c_out, 1, behind),
        ])  # fmt: skip
    half = c_in if stride == 2 else c_in // 2
    last = convolution(mid, c_out - half, 1, behind)
    if operator == "shuffle_xception":
        size = 3
        parts = [
            convolution(half, half, 3, behind, half),
            convolution(half, mid, 1, behind),
            convolution(mid, mid, 3, behind, mid),
            convolution(mid, mid, 1, behind),
            convolution(mid, mid, 3, behind, mid),
            last,
        ]
    else:
        size = int(operator[len("shuffle_k")])
        parts = [convolution(half, mid, 1, before), convolution(mid, mid, size, behind, mid), last]
    if stride == 2:
        parts += [convolution(half, half, size, behind, half), convolution(half, half, 1, behind)]
    return _total(parts)


def _total(parts: list[Counts]) -> Counts:
    return Counts(*(sum(column) for column in zip(*parts, strict=True)))


def _reduced(size: int, stride: int) -> int:
    return (size - 1) // stride + 1
