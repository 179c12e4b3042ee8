"""Space `vit_chain`: vision transformers whose depth and width, and per layer heads and MLP ratio, are chosen.

AutoFormer: Chen et al. 2021, "AutoFormer: Searching Transformers for Visual Recognition" (arXiv:2107.00651), section 3,
and its code. The width of queries, keys and values is `head_width` times the heads, as in the code.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.uniform_sites import UniformSites
from nasjax.types import Array, Site, digest

_LISTS = {"num_heads": "heads", "mlp_ratio": "mlp_ratios"}  # entries of the JSON form, the fields of their choices


class Chosen(NamedTuple):
    """The choice numbers of an Arch, or of archs [..., S]; L = the largest depth, -1 beyond an Arch's own."""

    depth: Any  # i32[...]
    width: Any  # i32[...]
    heads: Any  # i32[..., L]
    mlp_ratio: Any  # i32[..., L]


@dataclass(frozen=True)
class VitChain(UniformSites):
    """Chains of transformer layers. An Arch is int32[2 + 2 L], L the largest depth.

    Entry 0 is the depth, entry 1 the width, and entries 2 + 2 i and 3 + 2 i are heads and MLP ratio of layer i, -1 in
    layers beyond the depth. All layers of an architecture have one width.

    Attributes:
      depths: numbers of layers.
      widths: of the embedding.
      heads: of a layer's attention.
      mlp_ratios: hidden units of a layer's MLP, as multiples of the width (rounded down).
      patch: side of the square patches that an image is cut into.
      head_width: of queries, keys and values of one head.
      distance: largest relative position, in patches along a side, with an embedding of its own; 0 = no relative
        positions.

    Raises:
      ValueError: choices that are not positive and ascending, or sizes below 1.

    Example:
      >>> f"{variant('tiny').size():.1e}"
      '1.1e+09'
    """

    depths: tuple[int, ...] = (12, 13, 14)
    widths: tuple[int, ...] = (192, 216, 240)
    heads: tuple[int, ...] = (3, 4)
    mlp_ratios: tuple[float, ...] = (3.5, 4.0)
    patch: int = 16
    head_width: int = 64
    distance: int = 14

    name = "vit_chain"

    def __post_init__(self) -> None:
        for field in ("depths", "widths", "heads", "mlp_ratios"):
            values = getattr(self, field)
            if not values or min(values) <= 0 or list(values) != sorted(set(values)):
                raise ValueError(f"{field} must be positive and ascending, got {values}")
        if min(self.patch, self.head_width) < 1 or self.distance < 0:
            raise ValueError("patch and head_width must be at least 1, distance at least 0")
        if self.hidden(self.widths[0], self.mlp_ratios[0]) < 1:
            raise ValueError(f"mlp_ratios={self.mlp_ratios} leave no hidden unit at width {self.widths[0]}; raise them")

    @property
    def layers(self) -> int:
        """L, the largest depth."""
        return self.depths[-1]

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Depth, width, then heads and MLP ratio of every layer."""
        sites = [Site("depth", self.depths, "depth", -1), Site("width", self.widths, "width", -1)]
        for i in range(self.layers):
            sites.append(Site(f"layer{i}/heads", self.heads, "heads", i))
            sites.append(Site(f"layer{i}/mlp_ratio", self.mlp_ratios, "mlp_ratio", i))
        return tuple(sites)

    @staticmethod
    def hidden(width: int, ratio: float) -> int:
        """Hidden units of an MLP."""
        return int(width * ratio)

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def active(self, arch: Array) -> jax.Array:
        """bool[S], the sites that count: depth, width, and those of layers within the depth."""
        layer = np.array([site.layer for site in self.sites])
        return jnp.asarray(layer) < jnp.asarray(self.depths)[jnp.asarray(arch)[0]]

    def chosen(self, arch: Array) -> Chosen:
        """An Arch, or archs i32[..., S], taken apart."""
        return Chosen(arch[..., 0], arch[..., 1], arch[..., 2::2], arch[..., 3::2])

    # -- host side ---------------------------------------------------------------------------------------------

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != (len(self.sites),):
            raise ValueError(f"a vit_chain architecture here has {len(self.sites)} entries, got shape {arch.shape}")
        if not 0 <= arch[0] < len(self.depths):
            raise ValueError(f"depth has no choice number {arch[0]}; choose 0..{len(self.depths) - 1}")
        depth = self.depths[arch[0]]
        for site, value in zip(self.sites, arch.tolist(), strict=True):
            if site.layer >= depth and value != -1:
                raise ValueError(f"{site.name} is beyond the depth of {depth}, so its entry must be -1; got {value}")
            if site.layer < depth and not 0 <= value < len(site.choices):
                raise ValueError(f"{site.name} has no choice number {value}; choose 0..{len(site.choices) - 1}")

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as a JSON tree (the form of `--arch`, trials.jsonl and best.json)."""
        arch = np.asarray(arch)
        self.validate(arch)
        parts, depth = self.chosen(arch), self.depths[arch[0]]
        return {
            "space": self.name,
            "embed_dim": self.widths[parts.width],
            "num_heads": [self.heads[n] for n in parts.heads[:depth]],
            "mlp_ratio": [self.mlp_ratios[n] for n in parts.mlp_ratio[:depth]],
        }

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree. Raises ValueError that says what to write instead."""
        if not isinstance(tree, Mapping) or tree.get("space") != self.name:
            raise ValueError(
                f'a vit_chain architecture is {{"space": "{self.name}", "embed_dim": {self.widths[0]}, '
                f'"num_heads": [{self.heads[0]}, ...], "mlp_ratio": [{self.mlp_ratios[0]}, ...]}}'
            )
        if unknown := set(tree) - {"space", "embed_dim", *_LISTS}:
            raise ValueError(f"unknown entry {sorted(map(str, unknown))[0]!r} in the architecture")
        lists = [tree.get(name) for name in _LISTS]
        if not all(isinstance(values, list) for values in lists) or len({len(values) for values in lists}) > 1:  # type: ignore[arg-type]
            raise ValueError('"num_heads" and "mlp_ratio" must be lists of equal length, one entry per layer')
        depth = len(lists[0])  # type: ignore[arg-type]
        arch = np.full(len(self.sites), -1, np.int32)
        arch[0] = _number("the number of layers", depth, self.depths)
        arch[1] = _number('"embed_dim"', tree.get("embed_dim"), self.widths)
        for first, (name, field) in enumerate(_LISTS.items(), 2):
            for i, value in enumerate(tree[name]):
                arch[first + 2 * i] = _number(f'"{name}" entry {i}', value, getattr(self, field))
        return arch

    def identity(self, arch: np.ndarray) -> str:
        """A string that is the same exactly for equal architectures."""
        return digest(arch)

    def size(self) -> int:
        """Exact number of architectures, all depths together."""
        return len(self.widths) * sum((len(self.heads) * len(self.mlp_ratios)) ** depth for depth in self.depths)

    def enumerate(self) -> np.ndarray:
        """Every Arch, int32[size, S]. ValueError beyond 10^6 architectures."""
        if self.size() > 1_000_000:
            raise ValueError(f"a space of {self.size()} architectures is too large to enumerate")
        rows = []
        layer = [range(len(self.heads)), range(len(self.mlp_ratios))]
        for number, depth in enumerate(self.depths):
            rest = [-1] * (2 * (self.layers - depth))
            for row in itertools.product([number], range(len(self.widths)), *layer * depth):
                rows.append([*row, *rest])
        return np.array(rows, np.int32)


def _number(what: str, value: Any, choices: tuple[Any, ...]) -> int:
    if isinstance(value, bool) or value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(str, choices))}; got {value!r}")
    return choices.index(value)


_RATIOS = (3.0, 3.5, 4.0)
_VARIANTS = {
    "tiny": VitChain(),
    "small": VitChain((12, 13, 14), (320, 384, 448), (5, 6, 7), _RATIOS),
    "base": VitChain((14, 15, 16), (528, 576, 624), (8, 9, 10), _RATIOS),
    "cifar": VitChain((6, 7, 8), (96, 144, 192), (2, 3), (2.0, 3.0, 4.0), patch=4, head_width=48, distance=7),
    "digits": VitChain((2, 3), (24, 32), (1, 2, 3, 4), (1.0, 2.0), patch=2, head_width=8, distance=3),
}


def variant(name: str) -> VitChain:
    """A space by name.

    "tiny", "small" and "base" are the published ones, for ImageNet (AutoFormer, Table 1; heads of base as in the
    released sub-network's file, whose supernet's file leaves out 8). "cifar" and "digits" are small ones for images of
    32x32 and 8x8, which are our choice.

    Raises:
      ValueError: an unknown name.
    """
    if name not in _VARIANTS:
        raise ValueError(f"unknown space {name!r}; choose {', '.join(_VARIANTS)}")
    return _VARIANTS[name]


def widened(space: VitChain, tree: Mapping[str, Any]) -> VitChain:
    """The space with the sizes of an architecture among its choices: released ones leave their supernet's."""
    heads, ratios = (tree.get(name) for name in _LISTS)
    if not isinstance(heads, list) or not isinstance(ratios, list):
        return space
    if any(type(size) is not int for size in (tree.get("embed_dim"), *heads)):
        return space
    if any(type(ratio) not in (int, float) for ratio in ratios):
        return space

    def joined(known: tuple[Any, ...], *more: Any) -> tuple[Any, ...]:
        return tuple(sorted({*known, *more}))

    return dataclasses.replace(
        space,
        depths=joined(space.depths, len(heads)),
        widths=joined(space.widths, tree["embed_dim"]),
        heads=joined(space.heads, *heads),
        mlp_ratios=joined(space.mlp_ratios, *ratios),
    )
