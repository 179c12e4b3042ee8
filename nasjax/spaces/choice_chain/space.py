"""Space `choice_chain`: a chain of layers, each with one of several operators; stem and tail are fixed.

SPOS: Guo et al. 2020 (arXiv:1904.00420), section 3, and its code. FairNAS: Chu et al. 2021 (arXiv:1907.01845). BN-NAS:
Chen et al. 2021 (arXiv:2108.07375) and its code. docs/methods/spos.md, fairnas.md and bn_nas.md describe the blocks.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.uniform_sites import UniformSites
from nasjax.types import Array, Site, digest

SHUFFLE = ("shuffle_k3", "shuffle_k5", "shuffle_k7", "shuffle_xception")
MOBILE = ("mbconv_k3_e3", "mbconv_k3_e6", "mbconv_k5_e3", "mbconv_k5_e6", "mbconv_k7_e3", "mbconv_k7_e6")
MORE = tuple(f"mbconv_k{size}_e{expansion}" for size in (3, 5, 7) for expansion in (1, 2, 4))  # no source searches them
OPERATORS = {"shuffle": SHUFFLE, "mobile": (*MOBILE, *MORE)}  # in MOBILE id = 2 * kernel index + expansion index
IDENTITY = -1  # in a path


class LayerShape(NamedTuple):
    """The shapes that all operators of a layer share."""

    c_in: int
    c_out: int
    stride: int

    @property
    def skippable(self) -> bool:
        """Whether a layer of this shape may be the identity."""
        return self.stride == 1 and self.c_in == self.c_out


@dataclass(frozen=True)
class ChoiceChain(UniformSites):
    """Chains of L layers. An Arch is int32[L], or int32[2 L] with channel search.

    Entry l is the operator of layer l, len(operators) = identity where the search may choose it, -1 where the layer is
    removed; entry L + l is the channel factor of layer l, -1 where the layer is identity or removed. `path` turns the
    first L into the published form, where -1 is identity, chosen or fixed.

    Attributes:
      family: "shuffle" (ShuffleNetV2 blocks) or "mobile" (inverted residuals).
      stem, stem_stride: channels and stride of the 3x3 stem convolution.
      first: channels of the fixed separable convolution after the stem, 0 = none. BN-NAS calls it an MBConv of
        expansion 1.
      channels, depths, strides: per stage: channels, layers, stride of its first layer.
      tail: channels of the 1x1 tail convolution.
      operators: of the family, distinct.
      removed: layers (0-based) that are always identity.
      choose_identity: whether the search may choose identity where shapes allow it.
      channel_factors: what the inner channels of a layer are multiplied by; () = no channel search.
      classifier: in the mobile family it starts uniform within 1 / sqrt of the number of its inputs, or of its classes
        as in FairNAS's released models. With few classes the latter starts at a loss far above chance.

    Raises:
      ValueError: a chain that cannot be built.

    Example:
      >>> variant("spos").size() == 4**20
      True
    """

    family: Literal["shuffle", "mobile"] = "shuffle"
    stem: int = 16
    stem_stride: int = 2
    first: int = 0
    channels: tuple[int, ...] = (64, 160, 320, 640)
    depths: tuple[int, ...] = (4, 4, 8, 4)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    tail: int = 1024
    operators: tuple[str, ...] = SHUFFLE
    removed: tuple[int, ...] = ()
    choose_identity: bool = False
    channel_factors: tuple[float, ...] = ()
    classifier: Literal["inputs", "classes"] = "inputs"

    name = "choice_chain"

    def __post_init__(self) -> None:
        if self.family not in OPERATORS:
            raise ValueError(f"unknown family {self.family!r}; choose {', '.join(OPERATORS)}")
        if self.classifier not in ("inputs", "classes"):
            raise ValueError(f"unknown classifier {self.classifier!r}; choose inputs or classes")
        known = OPERATORS[self.family]
        if not self.operators or len(set(self.operators)) != len(self.operators) or set(self.operators) - set(known):
            raise ValueError(f"operators must be distinct, out of {', '.join(known)}; got {self.operators}")
        if not self.channels or not len(self.channels) == len(self.depths) == len(self.strides):
            raise ValueError("channels, depths and strides need one entry per stage, at least one")
        counts = (self.stem, self.tail, *self.channels, *self.depths)
        if min(counts) < 1 or self.first < 0 or {self.stem_stride, *self.strides} - {1, 2}:
            raise ValueError("channels and depths must be positive, strides 1 or 2")
        if self.family == "shuffle":
            if self.first:
                raise ValueError("first belongs to the mobile family; set first=0")
            for shape in self.layer_shapes:
                if shape.c_in % 2 or shape.c_out % 2 or (shape.stride == 1 and shape.c_in != shape.c_out):
                    raise ValueError(
                        f"a shuffle layer cannot turn {shape.c_in} channels into {shape.c_out} with stride "
                        f"{shape.stride}: channels must be even, and change only where the stride is 2"
                    )
                if shape.stride == 2 and shape.c_out <= shape.c_in:
                    raise ValueError(f"channels must rise where the stride of a shuffle layer is 2, got {shape}")
        for layer in self.removed:
            if not 0 <= layer < self.layers or not self.layer_shapes[layer].skippable:
                raise ValueError(
                    f"removed names layer {layer}, but only layers of stride 1 that keep their channels can go"
                )
        if len(set(self.removed)) != len(self.removed) or len(self.removed) == self.layers:
            raise ValueError(f"removed must name distinct layers, and not all of them; got {self.removed}")
        factors = self.channel_factors
        if any(not factor > 0 for factor in factors) or len(set(factors)) != len(factors):
            raise ValueError(f"channel_factors must be positive and distinct, got {factors}")

    @property
    def layers(self) -> int:
        """L, the number of layers."""
        return sum(self.depths)

    @cached_property
    def layer_shapes(self) -> tuple[LayerShape, ...]:
        """The shapes of all L layers."""
        shapes, c_in = [], self.first or self.stem
        for channels, depth, stride in zip(self.channels, self.depths, self.strides, strict=True):
            for i in range(depth):
                shapes.append(LayerShape(c_in, channels, 1 if i else stride))
                c_in = channels
        return tuple(shapes)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """One per layer, and with channel search another one per layer."""
        operators = [
            Site(
                f"layer{i}/operator", (*self.operators, "identity") if skip else self.operators, f"operator{skip:d}", i
            )
            for i, skip in enumerate(self._skippable)
        ]
        if not self.channel_factors:
            return tuple(operators)
        return (
            *operators,
            *(Site(f"layer{i}/channels", self.channel_factors, "channels", i) for i in range(self.layers)),
        )

    @cached_property
    def _skippable(self) -> tuple[bool, ...]:
        """Whether the search may choose identity, per layer."""
        return tuple(
            self.choose_identity and shape.skippable and i not in self.removed
            for i, shape in enumerate(self.layer_shapes)
        )

    @cached_property
    def _present(self) -> np.ndarray:
        return np.array([i not in self.removed for i in range(self.layers)])

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def path(self, arch: Array) -> jax.Array:
        """The operators i32[..., L] of archs i32[..., S]; -1 = identity."""
        operators = jnp.asarray(arch)[..., : self.layers]
        return jnp.where(operators >= len(self.operators), IDENTITY, operators)

    def active(self, arch: Array) -> jax.Array:
        """bool[S], the sites that count: not removed layers, and not the channels of a layer that is identity."""
        present = jnp.asarray(self._present)
        return jnp.concatenate([present, present & (self.path(arch) >= 0)]) if self.channel_factors else present

    # -- host side ---------------------------------------------------------------------------------------------

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != (len(self.sites),):
            raise ValueError(
                f"this choice_chain has architectures of {len(self.sites)} entries, got shape {arch.shape}"
            )
        for site, value, active in zip(self.sites, arch.tolist(), np.asarray(self.active(arch)).tolist(), strict=True):
            if not active and value != -1:
                raise ValueError(f"{site.name} is not there, so its entry must be -1; got {value}")
            if active and not 0 <= value < len(site.choices):
                raise ValueError(f"{site.name} has no choice number {value}; choose 0..{len(site.choices) - 1}")

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as a JSON tree (the form of `--arch`, trials.jsonl and best.json)."""
        arch = np.asarray(arch)
        self.validate(arch)
        tree: dict[str, Any] = {"space": self.name, "path": np.asarray(self.path(arch)).tolist()}
        return tree | ({"channels": arch[self.layers :].tolist()} if self.channel_factors else {})

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree. Raises ValueError that says what to write instead."""
        if not isinstance(tree, Mapping) or tree.get("space") != self.name:
            raise ValueError(f'a choice_chain architecture is {{"space": "{self.name}", "path": [2, 1, -1, ...]}}')
        if unknown := set(tree) - {"space", "path", "channels"}:
            raise ValueError(f"unknown entry {sorted(map(str, unknown))[0]!r} in the architecture")
        arch = self._numbers(tree, "path")
        for i, value in enumerate(arch):
            if i in self.removed:
                if value != IDENTITY:
                    raise ValueError(f'"path" entry {i} must be -1: the space has removed this layer')
            elif value == IDENTITY and self._skippable[i]:
                arch[i] = len(self.operators)
            elif not 0 <= value < len(self.operators):
                skip = ", or -1 for identity" if self._skippable[i] else ""
                raise ValueError(f'"path" entry {i} must be 0..{len(self.operators) - 1}{skip}; got {value}')
        if self.channel_factors:
            arch += self._numbers(tree, "channels")
        elif tree.get("channels"):
            raise ValueError('this space has no channel search: leave out "channels", or set space.channel_factors')
        self.validate(np.array(arch))
        return np.array(arch, np.int32)

    def _numbers(self, tree: Mapping[str, Any], name: str) -> list[int]:
        values = tree.get(name)
        if not isinstance(values, list) or len(values) != self.layers or any(type(v) is not int for v in values):
            raise ValueError(f'"{name}" must list {self.layers} whole numbers, one per layer')
        return list(values)

    def identity(self, arch: np.ndarray) -> str:
        """A string that is the same exactly for equal architectures."""
        return digest(arch)

    def size(self) -> int:
        """Exact number of architectures."""
        choices = len(self.operators) * max(1, len(self.channel_factors))
        used = [skip for i, skip in enumerate(self._skippable) if i not in self.removed]
        return math.prod(choices + skip for skip in used)

    def enumerate(self) -> np.ndarray:
        """Every Arch, int32[size, S]; the last layer varies fastest. ValueError beyond 10^6 architectures."""
        if self.size() > 1_000_000:
            raise ValueError(f"a space of {self.size()} architectures is too large to enumerate")
        m, factors = len(self.operators), range(len(self.channel_factors)) or (-1,)
        layers = [
            [(-1, -1)] if i in self.removed else [*itertools.product(range(m), factors), *[(m, -1)] * skip]
            for i, skip in enumerate(self._skippable)
        ]
        archs = np.array(list(itertools.product(*layers)), np.int32)
        return np.concatenate([archs[..., 0], archs[..., 1]], 1) if self.channel_factors else archs[..., 0].copy()


_SPOS = ChoiceChain()
_FAIRNAS = ChoiceChain(
    family="mobile",
    stem=32,
    first=16,
    channels=(32, 40, 80, 96, 192, 320),
    depths=(2, 4, 4, 4, 4, 1),
    strides=(2, 2, 2, 1, 2, 1),
    tail=1280,
    operators=MOBILE,
    classifier="classes",
)
_BN_NAS = ChoiceChain(
    family="mobile",
    stem=40,
    first=24,
    channels=(32, 56, 112, 128, 256, 432),
    depths=(4, 4, 4, 4, 4, 1),
    strides=(2, 2, 2, 1, 2, 1),
    tail=1728,
    operators=MOBILE,
    removed=(1, 5, 6, 9),
)
_SHUFFLE_CIFAR = ChoiceChain(stem_stride=1, channels=(32, 64, 128), depths=(2, 3, 3), strides=(2, 2, 2), tail=256)
_MOBILE_CIFAR = ChoiceChain(
    family="mobile",
    stem=16,
    stem_stride=1,
    first=16,
    channels=(24, 32, 64),
    depths=(2, 3, 3),
    strides=(1, 2, 2),
    tail=256,
    operators=MOBILE,
)
_SHUFFLE_DIGITS = ChoiceChain(stem=8, stem_stride=1, channels=(16, 32), depths=(3, 3), strides=(2, 2), tail=64)
_MOBILE_DIGITS = ChoiceChain(
    family="mobile",
    stem=8,
    stem_stride=1,
    first=8,
    channels=(8, 16),
    depths=(3, 3),
    strides=(1, 2),
    tail=64,
    operators=MOBILE,
)
# BigNAS's space has stages of two to six blocks with squeeze-and-excitation; ours are FairNAS's chains with layers
# that may be skipped.
_ELASTIC, _ELASTIC_CIFAR, _ELASTIC_DIGITS = (
    dataclasses.replace(chain, choose_identity=True, classifier="inputs")
    for chain in (_FAIRNAS, _MOBILE_CIFAR, _MOBILE_DIGITS)
)
_VARIANTS = {
    "spos": _SPOS,
    "spos_channels": dataclasses.replace(_SPOS, channel_factors=tuple(n / 5 for n in range(1, 9))),
    "fairnas": _FAIRNAS,
    "bn_nas": _BN_NAS,
    "bignas": _ELASTIC,
    "spos_cifar": _SHUFFLE_CIFAR,
    "fairnas_cifar": _MOBILE_CIFAR,
    "bn_nas_cifar": _MOBILE_CIFAR,
    "bignas_cifar": _ELASTIC_CIFAR,
    "spos_digits": _SHUFFLE_DIGITS,
    "fairnas_digits": _MOBILE_DIGITS,
    "bn_nas_digits": _MOBILE_DIGITS,
    "bignas_digits": _ELASTIC_DIGITS,
}


def variant(name: str) -> ChoiceChain:
    """A chain by name.

    "spos" (20 layers, 4 operators; "spos_channels" searches channels, too), "fairnas" (19 x 6) and "bn_nas" (21 x 6,
    four layers removed) are the published ones, for ImageNet. "bignas" is ours, that of "fairnas" with layers that may
    be skipped. The suffix "_cifar" or "_digits" names small chains for
    images of 32x32, 16x16 or 8x8, which are our choice.

    Raises:
      ValueError: an unknown name.
    """
    if name not in _VARIANTS:
        raise ValueError(f"unknown chain {name!r}; choose {', '.join(_VARIANTS)}")
    return _VARIANTS[name]
