"""What the transformers of `vit_chain` cost: exact tables of parameters and multiply-adds per layer and choice.

AutoFormer: Chen et al. 2021 (arXiv:2107.00651) and its code, whose count of parameters this is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.vit_chain.space import VitChain


class Counts(NamedTuple):
    """Counts of one part of a network for all its choices."""

    params: np.ndarray  # i64
    macs: np.ndarray  # i64, of one image


@dataclass(frozen=True)
class VitPlan:
    """A space on images of one size. W widths, H numbers of heads, R ratios, L layers.

    Attributes:
      space: the choices.
      image: height, width, channels of the input.
      classes: number of logits.

    Raises:
      ValueError: an image that patches do not cover.

    Example:
      >>> from nasjax.spaces.vit_chain.space import variant
      >>> VitPlan(variant("tiny")).largest[0]
      10517272
    """

    space: VitChain
    image: tuple[int, int, int] = (224, 224, 3)
    classes: int = 1000

    def __post_init__(self) -> None:
        if min(*self.image, self.classes) < 1:
            raise ValueError(f"image is (height, width, channels), all positive, and so are classes; got {self}")
        if self.image[0] % self.space.patch or self.image[1] % self.space.patch:
            raise ValueError(
                f"patches of {self.space.patch}x{self.space.patch} do not cover images of "
                f"{self.image[0]}x{self.image[1]}; set space.patch to a divisor of both"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image[0] // self.space.patch, self.image[1] // self.space.patch

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return self.grid[0] * self.grid[1] + 1

    @cached_property
    def hidden(self) -> np.ndarray:
        """Hidden units of an MLP, i64[W, R]."""
        space = self.space
        return np.array([[space.hidden(width, ratio) for ratio in space.mlp_ratios] for width in space.widths])

    @cached_property
    def fixed(self) -> Counts:
        """Embedding of patches, positions, class token, last norm and classifier, i64[W]."""
        width = np.array(self.space.widths, np.int64)
        pixels = self.space.patch**2 * self.image[2]
        params = (pixels + 1 + self.tokens + 1 + 2) * width + (width + 1) * self.classes
        return Counts(params, ((self.tokens - 1) * pixels + self.classes) * width)

    @cached_property
    def table(self) -> Counts:
        """A layer, i64[W, H, R]; multiply-adds are those of matrix products, relative positions included."""
        space, tokens = self.space, self.tokens
        width = np.array(space.widths, np.int64)[:, None, None]
        inner = space.head_width * np.array(space.heads, np.int64)[:, None]
        hidden = self.hidden[:, None, :]
        norms, relative = 4 * width, 4 * (2 * space.distance + 2) * space.head_width if space.distance else 0
        attention = 3 * (width + 1) * inner + (inner + 1) * width
        mlp = (width + 1) * hidden + (hidden + 1) * width
        products = 4 * width * inner + 2 * width * hidden + (4 if space.distance else 2) * tokens * inner
        return Counts(norms + relative + attention + mlp, tokens * products)

    def count(self, arch: np.ndarray) -> tuple[int, int]:
        """Parameters and multiply-adds of the network of an Arch."""
        self.space.validate(arch)
        depth, width, heads, ratio = self.space.chosen(np.asarray(arch))
        depth = self.space.depths[depth]
        params, macs = (
            int(table[width, heads[:depth], ratio[:depth]].sum() + fixed[width])
            for table, fixed in zip(self.table, self.fixed, strict=True)
        )
        return params, macs

    @cached_property
    def smallest(self) -> tuple[int, int]:
        """The least parameters and multiply-adds."""
        params, macs = (
            int(fixed[0] + self.space.depths[0] * table[0, 0, 0])
            for table, fixed in zip(self.table, self.fixed, strict=True)
        )
        return params, macs

    @cached_property
    def largest(self) -> tuple[int, int]:
        """The most, which are also those of the supernet: every choice is a part of the largest."""
        params, macs = (
            int(fixed[-1] + self.space.layers * table[-1, -1, -1])
            for table, fixed in zip(self.table, self.fixed, strict=True)
        )
        return params, macs

    def ends(self) -> np.ndarray:
        """The largest and the smallest network, i32[2, S]."""
        space, rest = self.space, self.space.layers - self.space.depths[0]
        largest = [len(site.choices) - 1 for site in space.sites]
        smallest = [0] * (len(largest) - 2 * rest) + [-1] * (2 * rest)
        return np.array([largest, smallest], np.int32)


def counter(plan: VitPlan, what: str) -> Callable[[jax.Array], jax.Array]:
    """archs i32[..., S] -> i32[...], their "params" or "macs" by table look-up; traceable, for constraints.

    Raises:
      ValueError: the largest count does not fit 32 bits.
    """
    if what not in ("params", "macs"):
        raise ValueError(f"unknown count {what!r}; choose params or macs")
    if plan.largest[what == "macs"] >= 2**31:
        raise ValueError(
            f"{what} of these transformers reach 2^31, more than a 32-bit count holds; use a smaller image or space"
        )
    table, fixed = (jnp.asarray(getattr(of, what), jnp.int32) for of in (plan.table, plan.fixed))

    def count(archs: jax.Array) -> jax.Array:
        _, width, heads, ratio = plan.space.chosen(archs)
        layers = table[width[..., None], jnp.maximum(heads, 0), jnp.maximum(ratio, 0)]
        return jnp.where(heads >= 0, layers, 0).sum(-1) + fixed[width]

    return count
