"""The networks of the DARTS family as static tables: shapes, parameters, multiply-adds.

Liu et al. 2019 (arXiv:1806.09055), section 2.1 and appendix A, and their code; Xu et al. 2020 (PC-DARTS,
arXiv:1907.05737) for partial channels. Host side, exact integers, no arrays: networks are built from these tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from nasjax.spaces.darts_cell.space import CELLS, EDGES, KNOWN, OPERATORS, Genotype, OwnCells

STEM_MULTIPLIER = 3  # the CIFAR stem has 3 C channels
# How many times C channels the stem of a search network has; PC-DARTS searches ImageNet with the wide one.
SEARCH_STEMS = {"cifar": STEM_MULTIPLIER, "imagenet": 1, "imagenet_wide": STEM_MULTIPLIER}
AUXILIARY = (128, 768)  # channels of the auxiliary head's two convolutions
AUXILIARY_WINDOW = 5  # of its average pooling, which leaves 2x2

Size = tuple[int, int]
Stem = Literal["cifar", "imagenet"]
SearchStem = Literal["cifar", "imagenet", "imagenet_wide"]
EdgeOperators = Mapping[str, Sequence[Sequence[str]]]  # {"normal": 14 tuples of names, "reduce": 14 tuples}


class Weights(NamedTuple):
    """The weights of one operator. All its convolutions give maps of the same size."""

    kernels: int  # weights of convolutions
    normalised: int  # channels of batch norms


class CellPlan(NamedTuple):
    """One cell of a network."""

    kind: str  # of CELLS
    follows_reduction: bool  # its first input has twice the height and width of the second
    inputs: tuple[int, int]  # channels of the outputs of the cells k-2 and k-1
    channels: int  # of each node; the output has four times as many
    in_size: Size  # of the second input, and of both after preprocessing
    out_size: Size


def operator_weights(name: str, channels: int, stride: int) -> Weights:
    """Weights of one operator on this many channels (Liu et al. 2019, section 3.1; docs/methods/darts.md).

    Example:
      >>> operator_weights("sep_conv_3x3", 36, 1)
      Weights(kernels=3240, normalised=72)
    """
    if name not in KNOWN:
        raise ValueError(f"unknown operator {name!r}; choose from {', '.join(KNOWN)}")
    if name == "skip_connect":
        return Weights(channels**2, channels) if stride == 2 else Weights(0, 0)
    if name.startswith(("sep", "dil")):
        repeats = 2 if name.startswith("sep") else 1
        return Weights(repeats * (int(name[-1]) ** 2 * channels + channels**2), repeats * channels)
    return Weights(0, 0)


def stride_of(kind: str, source: int) -> int:
    """The stride of an edge: 2 where it leaves an input of a reduction cell, else 1."""
    return 2 if kind == "reduce" and source < 2 else 1


def half(size: Size) -> Size:
    """The size after a stride of 2 with symmetric padding."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def cell_plans(channels: int, layers: int, stem: tuple[int, int], size: Size, after_stem: bool) -> tuple[CellPlan, ...]:
    """The cells of a network: channels double at the reduction cells, which are those at a third and two thirds.

    Args:
      channels: C.
      layers: L.
      stem: channels of the two tensors that the first cell reads.
      size: of the second of them.
      after_stem: whether the first of them is twice as large.
    """
    plans: list[CellPlan] = []
    inputs, reduced = stem, after_stem
    for k in range(layers):
        kind = CELLS[k in (layers // 3, 2 * layers // 3)]
        if kind == "reduce":
            channels *= 2
        out_size = half(size) if kind == "reduce" else size
        plans.append(CellPlan(kind, reduced, inputs, channels, size, out_size))
        inputs, size, reduced = (inputs[1], 4 * channels), out_size, kind == "reduce"
    return tuple(plans)


@dataclass(frozen=True)
class DartsPlan:
    """An evaluation network: a genotype's cells, trained from scratch.

    Attributes:
      genotype: its cells.
      channels: C of the first cells.
      layers: L, number of cells.
      classes: number of logits.
      stem: "cifar" (one 3x3 convolution) or "imagenet" (three of stride 2: the cells start at an eighth of the size).
      image: height, width, channels of the input.
      auxiliary: whether a second classifier reads the cell at two thirds, in training only.

    Raises:
      ValueError: sizes that cannot be built; an auxiliary head that does not fit the image.

    Example:
      >>> from nasjax.spaces.darts_cell.space import genotype
      >>> from nasjax.catalog import named
      >>> DartsPlan(genotype(named("DARTS_V2")), channels=36, layers=20).params
      3349342
    """

    genotype: Genotype | OwnCells
    channels: int = 36
    layers: int = 20
    classes: int = 10
    stem: Stem = "cifar"
    image: tuple[int, int, int] = (32, 32, 3)
    auxiliary: bool = False

    def __post_init__(self) -> None:
        _check(self.channels, self.layers, self.classes)
        _known(self.stem, ("cifar", "imagenet"))
        if isinstance(self.genotype, OwnCells) and (count := len(self.genotype.cells)) != self.layers:
            raise ValueError(
                f"the architecture has {count} cells, the network {self.layers}; in the command write "
                f"--set form.layers={count}"
            )
        if min(self.image) < 1:
            raise ValueError(f"image is (height, width, channels), all positive; got {self.image}")
        if self.auxiliary and self.auxiliary_pooled != (2, 2):
            raise ValueError(
                f"the auxiliary head needs maps of 8x8 (stem cifar) or 7x7 (stem imagenet), this network has "
                f"{self.auxiliary_cell.out_size}; write auxiliary=False, in the command --set form.auxiliary=false"
            )

    @cached_property
    def cells(self) -> tuple[CellPlan, ...]:
        """The table that the network is built from."""
        if self.stem == "cifar":
            width = STEM_MULTIPLIER * self.channels
            return cell_plans(self.channels, self.layers, (width, width), self.image[:2], False)
        size = half(half(half(self.image[:2])))
        return cell_plans(self.channels, self.layers, (self.channels, self.channels), size, True)

    @property
    def auxiliary_index(self) -> int:
        """The cell whose output the auxiliary head reads."""
        return 2 * self.layers // 3

    @property
    def auxiliary_cell(self) -> CellPlan:
        return self.cells[self.auxiliary_index]

    @property
    def auxiliary_stride(self) -> int:
        """Stride of the auxiliary head's pooling. It reads 8x8 maps in CIFAR networks, 7x7 in those for 224x224."""
        return 3 if self.stem == "cifar" else 2

    @property
    def auxiliary_pooled(self) -> Size:
        height, width = ((n - AUXILIARY_WINDOW) // self.auxiliary_stride + 1 for n in self.auxiliary_cell.out_size)
        return height, width

    @cached_property
    def params(self) -> int:
        """Trainable parameters, batch-norm scales and shifts included, the auxiliary head excluded as is customary."""
        kernels, normalised = _stem(self.stem, self.channels, self.image[2])
        total = kernels + 2 * normalised + _dense(4 * self.cells[-1].channels, self.classes)
        for cell, operators in zip(self.cells, self._operators, strict=True):
            for weights in (_preprocessing(cell), *operators):
                total += weights.kernels + 2 * weights.normalised
        return total

    @property
    def auxiliary_params(self) -> int:
        """Parameters of the auxiliary head, 0 without one."""
        if not self.auxiliary:
            return 0
        first, second = AUXILIARY
        kernels = 4 * self.auxiliary_cell.channels * first + 4 * first * second
        normalised = first + (second if self.stem == "cifar" else 0)  # the published ImageNet head lacks the second
        return kernels + 2 * normalised + _dense(second, self.classes)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the convolutions and the dense layer for one image, the auxiliary head excluded."""
        total = _stem_macs(self.stem, self.channels, self.image) + 4 * self.cells[-1].channels * self.classes
        for cell, operators in zip(self.cells, self._operators, strict=True):
            total += _preprocessing(cell).kernels * _positions(cell.in_size)
            total += sum(weights.kernels for weights in operators) * _positions(cell.out_size)
        return total

    @property
    def _operators(self) -> list[list[Weights]]:
        """Of every cell."""
        return [
            [
                operator_weights(name, cell.channels, stride_of(cell.kind, source))
                for name, source in self.genotype.of(k, cell.kind)
            ]
            for k, cell in enumerate(self.cells)
        ]


@dataclass(frozen=True)
class SearchPlan:
    """A search network: every operator on every edge. Architecture parameters are not counted.

    Attributes:
      channels, layers, classes, image: as in `DartsPlan`.
      operators: names for every edge, or {"normal": 14 tuples, "reduce": 14 tuples} (P-DARTS's later stages).
      partial: K of PC-DARTS: one channel in K goes through the operators.
      stem: "cifar", one 3x3 convolution of 3 C channels; "imagenet", three of stride 2 and of C / 2, C and C channels,
        after which the cells start at an eighth of the size (MSR-DARTS's code); "imagenet_wide", the same with 3 C / 2,
        3 C and 3 C (PC-DARTS's code).

    Raises:
      ValueError: sizes that cannot be built.

    Example:
      >>> SearchPlan().params, SearchPlan(partial=4).params
      (1930618, 299578)
    """

    channels: int = 16
    layers: int = 8
    classes: int = 10
    operators: Sequence[str] | EdgeOperators = OPERATORS
    partial: int = 1
    image: tuple[int, int, int] = (32, 32, 3)
    stem: SearchStem = "cifar"

    def __post_init__(self) -> None:
        _check(self.channels, self.layers, self.classes)
        _known(self.stem, SEARCH_STEMS)
        if self.partial < 1 or self.channels % self.partial:
            raise ValueError(f"partial must divide the {self.channels} channels, got {self.partial}")

    @cached_property
    def cells(self) -> tuple[CellPlan, ...]:
        """The cells, as in an evaluation network."""
        if self.stem == "cifar":
            return cell_plans(self.channels, self.layers, (self.width, self.width), self.image[:2], False)
        size = half(half(half(self.image[:2])))
        return cell_plans(self.channels, self.layers, (self.width, self.width), size, True)

    @property
    def width(self) -> int:
        """Channels of the tensors that the first cell reads."""
        return SEARCH_STEMS[self.stem] * self.channels

    @property
    def _stem(self) -> tuple[Stem, int]:
        """What `_stem` takes."""
        return ("cifar", self.channels) if self.stem == "cifar" else ("imagenet", self.width)

    @cached_property
    def params(self) -> int:
        """Trainable parameters; only the stem's batch norms have scales and shifts."""
        kernels, normalised = _stem(*self._stem, self.image[2])
        total = kernels + 2 * normalised + _dense(4 * self.cells[-1].channels, self.classes)
        return total + sum(_preprocessing(cell).kernels + self._kernels(cell) for cell in self.cells)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the convolutions and the dense layer for one image."""
        total = _stem_macs(*self._stem, self.image) + 4 * self.cells[-1].channels * self.classes
        for cell in self.cells:
            total += _preprocessing(cell).kernels * _positions(cell.in_size)
            total += self._kernels(cell) * _positions(cell.out_size)
        return total

    def _kernels(self, cell: CellPlan) -> int:
        edges = self.operators[cell.kind] if isinstance(self.operators, Mapping) else [self.operators] * len(EDGES)
        return sum(
            operator_weights(name, cell.channels // self.partial, stride_of(cell.kind, source)).kernels
            for (source, _), names in zip(EDGES, edges, strict=True)
            for name in names
        )


def _check(channels: int, layers: int, classes: int) -> None:
    if channels < 2 or channels % 2:
        raise ValueError(f"channels must be even (FactorizedReduce halves them), got {channels}")
    if layers < 1 or classes < 1:
        raise ValueError(f"layers and classes must be at least 1, got {layers} and {classes}")


def _known(stem: str, stems: Collection[str]) -> None:
    if stem not in stems:
        raise ValueError(f"unknown stem {stem!r}; choose {' or '.join(stems)}")


def _stem(stem: str, channels: int, colours: int) -> Weights:
    if stem == "cifar":
        return Weights(9 * colours * STEM_MULTIPLIER * channels, STEM_MULTIPLIER * channels)
    middle = channels // 2
    return Weights(9 * (colours * middle + middle * channels + channels**2), middle + 2 * channels)


def _stem_macs(stem: str, channels: int, image: tuple[int, int, int]) -> int:
    if stem == "cifar":
        return _stem(stem, channels, image[2]).kernels * _positions(image[:2])
    widths, size, total = (image[2], channels // 2, channels, channels), image[:2], 0
    for c_in, c_out in itertools.pairwise(widths):
        size = half(size)
        total += 9 * c_in * c_out * _positions(size)
    return total


def _preprocessing(cell: CellPlan) -> Weights:
    """Both inputs to C channels by 1x1 convolutions; a FactorizedReduce holds as many weights."""
    return Weights(sum(cell.inputs) * cell.channels, 2 * cell.channels)


def _dense(features: int, classes: int) -> int:
    return (features + 1) * classes


def _positions(size: Size) -> int:
    return size[0] * size[1]
