"""What the networks of NAS-Bench-201 cost: exact counts of parameters and multiply-adds of every cell.

Dong & Yang 2020, "NAS-Bench-201" (arXiv:2001.00326), section 2.1: a stem, three stages of N equal cells at C, 2C and 4C
channels, a residual block that halves the image between stages, a classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.tabular_cell.space import NAS_BENCH_201_OPS, TabularCell

STAGES = 3
SIZES = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}  # operations with weights; each convolution is followed by a batch norm


@dataclass(frozen=True)
class TabularForm:
    """Settings of the network around the cell.

    Attributes:
      channels: C, of the stem and the first stage.
      cells: N, cells of every stage.
    """

    channels: int = 16
    cells: int = 5

    def __post_init__(self) -> None:
        if self.channels < 1 or self.cells < 1:
            raise ValueError(f"channels and cells must be at least 1, got {self.channels} and {self.cells}")


class _Counts(NamedTuple):
    weights: Any  # numbers, or arrays of numbers
    scales: Any  # scales and shifts of batch norms
    macs: Any


@dataclass(frozen=True)
class TabularPlan:
    """The networks of a space on images of one size.

    Attributes:
      space: whose operations are among those of the benchmark.
      form: of the network around the cell.
      image: height, width, channels of the input; the stages halve it twice.
      classes: number of logits.

    Raises:
      ValueError: an operation without a network, an incomplete cell, or an image that cannot be halved twice.

    Example:
      >>> plan = TabularPlan(TabularCell(), TabularForm(), (32, 32, 3), 10)
      >>> plan.count(np.full(6, 3))  # six 3x3 convolutions: the benchmark's largest
      (1531546, 220119690)
    """

    space: TabularCell
    form: TabularForm
    image: tuple[int, ...]
    classes: int

    def __post_init__(self) -> None:
        if unknown := [op for op in self.space.ops if op not in NAS_BENCH_201_OPS]:
            raise ValueError(f"no network knows the operation {unknown[0]!r}; known: {', '.join(NAS_BENCH_201_OPS)}")
        if len(self.image) != 3 or self.image[0] % 4 or self.image[1] % 4:
            raise ValueError(f"the network halves images twice, {self.image} cannot be; resize them to a multiple of 4")
        assert self.pairs  # raises where the cell is incomplete

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The nodes (from, to) of every edge."""
        return tuple((j, to) for to in range(1, self.space.nodes) for j in range(to))

    @cached_property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """Channels and pixels of every stage."""
        height, width, _ = self.image
        return tuple((self.form.channels << s, (height >> s) * (width >> s)) for s in range(STAGES))

    @cached_property
    def fixed(self) -> _Counts:
        """Stem, residual blocks, last batch norm and classifier."""
        (c, pixels), (last, _) = self.stages[0], self.stages[-1]
        weights, scales, macs = 9 * self.image[2] * c, 2 * c, 9 * self.image[2] * c * pixels
        for (c_in, _), (c_out, pixels) in zip(self.stages, self.stages[1:], strict=False):
            block = 9 * c_in * c_out + 9 * c_out**2 + c_in * c_out
            weights, scales, macs = weights + block, scales + 4 * c_out, macs + block * pixels
        dense = (last + 1) * self.classes  # the benchmark counts the bias among the multiply-adds
        return _Counts(weights + dense, scales + 2 * last, macs + dense)

    @cached_property
    def table(self) -> _Counts:
        """The counts that an edge adds in all cells, by its operation: i64[ops] each."""
        rows = []
        for op in self.space.ops:
            size = SIZES.get(op, 0)
            weights = [size**2 * c**2 * self.form.cells for c, _ in self.stages]
            macs = sum(w * pixels for w, (_, pixels) in zip(weights, self.stages, strict=True))
            scales = sum(2 * c * self.form.cells for c, _ in self.stages) if size else 0
            rows.append((sum(weights), scales, macs))
        return _Counts(*np.array(rows, np.int64).T)

    def count(self, arch: np.ndarray) -> tuple[int, int]:
        """Parameters and multiply-adds of one cell's network, or arrays of many: i32[..., edges]."""
        arch, (weights, scales, macs) = np.asarray(arch), self.table
        params = (weights + scales)[arch].sum(-1) + self.fixed.weights + self.fixed.scales
        total = macs[arch].sum(-1) + self.fixed.macs
        return (params, total) if arch.ndim > 1 else (int(params), int(total))

    def smallest(self) -> tuple[int, int]:
        """The least parameters and the least multiply-adds."""
        params, macs = zip(
            *(self.count(np.full(self.space.edges, op)) for op in range(len(self.space.ops))), strict=True
        )
        return min(params), min(macs)

    def largest_macs(self) -> int:
        """The most multiply-adds."""
        return max(self.count(np.full(self.space.edges, op))[1] for op in range(len(self.space.ops)))

    def supernet_params(self, affine: bool) -> int:
        """Parameters of all operations on all edges; without scales and shifts on the edges where not `affine`."""
        edges = self.space.edges * int(self.table.weights.sum() + self.table.scales.sum() * affine)
        return edges + self.fixed.weights + self.fixed.scales

    def mixed(self, partial: int = 1) -> tuple[int, int]:
        """Parameters and multiply-adds of the search network in which every edge has all operations.

        One channel in `partial` goes through them; their batch norms have no scales and shifts.
        """
        weights, macs = (self.space.edges * int(column.sum()) // partial**2 for column in self.table[::2])
        return weights + self.fixed.weights + self.fixed.scales, macs + self.fixed.macs

    def counter(self, what: str) -> Callable[[jax.Array], jax.Array]:
        """arch i32[..., edges] -> "params" or "macs", traceable, i32. Raises ValueError where they do not fit."""
        if self.largest_macs() >= 2**31:
            raise ValueError(f"{what} of these networks do not fit 32 bits; use smaller images or a smaller network")
        weights, scales, macs = self.table
        table, fixed = (macs, self.fixed.macs) if what == "macs" else (weights + scales, sum(self.fixed[:2]))
        values = jnp.asarray(table, jnp.int32)
        return lambda arch: values[arch].sum(-1) + fixed
