"""Space `conv_chain`: a chain of convolutional layers with skip connections.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", sections 3.1 and 3.3 (tokens, skips, layer
types) and 4.1 (the three variants). An Arch is `int32[S]`: the depth, then for every layer its tokens in the order in
which the controller emits them, then (optional) the learning rate. Sites of layers beyond the depth, and tokens that a
layer's type does not need, hold -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.one_change import one_change
from nasjax.types import Key, Site, digest

TYPES = ("conv", "max_pool", "avg_pool", "local_contrast_norm", "batch_norm")
_SIZED = ("conv", "max_pool", "avg_pool")  # types that have a window, and so sizes and strides


@dataclass(frozen=True)
class ConvChain:
    """Chains of layers; docs/methods/reinforce.md has the tokens, the compile rules and the published variants.

    Attributes:
      min_layers, max_layers: depth in decisions (blocks, where block_layers > 1).
      filter_heights, filter_widths, filter_counts: value sets; sizes must be odd (padding is k // 2).
      strides: value set of both strides; () fixes them to 1 (variant v1).
      skips: predict anchor points; False makes a plain chain.
      types: layer types to predict; () means convolutions only. An option of section 3.3, without published results.
      learning_rates: value set of a learning-rate token, emitted last; () means none.
      block_layers: layers that one prediction expands to (variant v3: 3). Layer k of a block reads the block's input
        and the block's earlier layers; what leaves a block is its last layer.
      pool_after: blocks (0-based) followed by a 2x2 max-pooling (variant v3: after 12 and 24 layers, blocks 3 and 7).
      pool_skips: pool every skip that crosses a pooling point; False pools only the chain, and zero-padding aligns the
        skips.
      extra_filters: added to every layer's filters after the search ("+ more filters": 40).

    Example:
      >>> space = ConvChain(min_layers=15, max_layers=15)
      >>> f"{space.size():.1e}"
      '5.0e+58'
    """

    min_layers: int = 6
    max_layers: int = 6
    filter_heights: tuple[int, ...] = (1, 3, 5, 7)
    filter_widths: tuple[int, ...] = (1, 3, 5, 7)
    filter_counts: tuple[int, ...] = (24, 36, 48, 64)
    strides: tuple[int, ...] = ()
    skips: bool = True
    types: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()
    block_layers: int = 1
    pool_after: tuple[int, ...] = ()
    pool_skips: bool = True
    extra_filters: int = 0

    name = "conv_chain"

    def __post_init__(self) -> None:
        if not 1 <= self.min_layers <= self.max_layers:
            raise ValueError(f"need 1 <= min_layers <= max_layers, got {self.min_layers} and {self.max_layers}")
        for field in ("filter_heights", "filter_widths", "filter_counts"):
            values = getattr(self, field)
            if not values or min(values) < 1 or len(set(values)) != len(values):
                raise ValueError(f"{field} needs distinct positive values, got {values}")
            if field != "filter_counts" and any(v % 2 == 0 for v in values):
                raise ValueError(f"{field} must be odd (padding is symmetric, k // 2), got {values}")
        for field in ("strides", "types", "learning_rates", "pool_after"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                raise ValueError(f"{field} needs distinct values, got {values}")
        if self.strides and min(self.strides) < 1:
            raise ValueError(f"strides must be at least 1, got {self.strides}")
        if unknown := set(self.types) - set(TYPES):
            raise ValueError(f"types has no {sorted(unknown)[0]!r}; choose from {', '.join(TYPES)}")
        if any(not 0 <= b < self.max_layers for b in self.pool_after):
            raise ValueError(f"pool_after names blocks 0..{self.max_layers - 1}, got {self.pool_after}")
        if self.block_layers < 1 or self.extra_filters < 0:
            raise ValueError("block_layers must be at least 1 and extra_filters at least 0")
        if any(not rate > 0 for rate in self.learning_rates):
            raise ValueError(f"learning_rates must be positive, got {self.learning_rates}")

    # -- sites -------------------------------------------------------------------------------------------------

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """All decisions in emission order; column s of an Arch is `sites[s]`."""
        sites = [Site("depth", tuple(range(self.min_layers, self.max_layers + 1)), "depth", -1)]
        for i in range(self.max_layers):
            tokens: list[tuple[str, tuple[Any, ...]]] = []
            if self.types:
                tokens.append(("type", self.types))
            tokens += [("filter_height", self.filter_heights), ("filter_width", self.filter_widths)]
            if self.strides:
                tokens += [("stride_height", self.strides), ("stride_width", self.strides)]
            sites += [Site(f"layer{i}/{token}", values, token, i) for token, values in tokens]
            if self.skips:
                sites += [Site(f"layer{i}/anchor{j}", (0, 1), "anchor", i) for j in range(i)]
            sites.append(Site(f"layer{i}/num_filters", self.filter_counts, "num_filters", i))
        if self.learning_rates:
            sites.append(Site("learning_rate", self.learning_rates, "learning_rate", -1))
        return tuple(sites)

    @cached_property
    def columns(self) -> dict[str, int]:
        """Site name -> column of the Arch."""
        return {site.name: s for s, site in enumerate(self.sites)}

    @cached_property
    def _arity(self) -> np.ndarray:
        return np.array([len(site.choices) for site in self.sites], np.int32)

    @cached_property
    def _needs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per site: layer i32[S], column of its layer's type i32[S] (-1 = none), types that need it bool[S, types]."""
        layer = np.array([site.layer for site in self.sites], np.int32)
        column = np.full(len(self.sites), -1, np.int32)
        needed = np.ones((len(self.sites), max(1, len(self.types))), bool)
        for s, site in enumerate(self.sites):
            if not self.types or site.layer < 0 or site.group in ("type", "anchor"):
                continue
            column[s] = self.columns[f"layer{site.layer}/type"]
            allowed = ("conv",) if site.group == "num_filters" else _SIZED
            needed[s] = [t in allowed for t in self.types]
        return layer, column, needed

    # -- pure functions of an Arch (traceable) -----------------------------------------------------------------

    def active(self, arch: jax.Array) -> jax.Array:
        """Which sites the architecture uses: bool[S]."""
        arch = jnp.asarray(arch, jnp.int32)
        layer, column, needed = self._needs
        mask = layer < self.min_layers + arch[0]
        kind = jnp.clip(arch[column], 0, len(self.types) - 1 if self.types else 0)
        allowed = jnp.take_along_axis(jnp.asarray(needed), kind[:, None], 1)[:, 0]
        return jnp.asarray(mask) & jnp.where(column >= 0, allowed, True)

    def sample(self, key: Key, depth: jax.Array | int | None = None) -> jax.Array:
        """A uniformly drawn Arch; `depth` (layers, may be traced) fixes the depth, else it is drawn too."""
        draws = jax.random.randint(key, (len(self.sites),), 0, self._arity, jnp.int32)
        if depth is not None:
            draws = draws.at[0].set(jnp.asarray(depth, jnp.int32) - self.min_layers)
        return jnp.where(self.active(draws), draws, -1)

    def mutate(self, key: Key, arch: jax.Array) -> jax.Array:
        """Changes one active decision, chosen uniformly; sites that become active are drawn, others become -1."""
        arch = jnp.asarray(arch, jnp.int32)
        key_site, key_value, key_new = jax.random.split(key, 3)
        mutable = self.active(arch) & (self._arity > 1)
        site = jax.random.categorical(key_site, jnp.where(mutable, 0.0, -jnp.inf))
        arity = jnp.asarray(self._arity)[site]
        step = 1 + jnp.floor(jax.random.uniform(key_value) * (arity - 1)).astype(jnp.int32)
        changed = arch.at[site].set((arch[site] + jnp.minimum(step, arity - 1)) % arity)
        changed = jnp.where(mutable.any(), changed, arch)
        return self._complete(key_new, changed)

    def neighbours(self, key: Key, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What differs in one decision, i32[N, S], and which of it there is, bool[N]; new sites are drawn."""
        return one_change(key, arch, self.sites, self._complete)

    def crossover(self, key: Key, a: jax.Array, b: jax.Array) -> jax.Array:
        """Takes every decision from one parent or the other; a decision that one parent lacks comes from the other."""
        key_coin, key_new = jax.random.split(key)
        coin = jax.random.bernoulli(key_coin, shape=a.shape)
        child = jnp.where(coin, a, b)
        child = jnp.where(child < 0, jnp.maximum(a, b), child)
        return self._complete(key_new, child)

    def _complete(self, key: Key, arch: jax.Array) -> jax.Array:
        """Draws what is active but unset, clears what is inactive."""
        draws = jax.random.randint(key, (len(self.sites),), 0, self._arity, jnp.int32)
        filled = jnp.where(arch < 0, draws, arch)
        return jnp.where(self.active(filled), filled, -1)

    # -- host side ---------------------------------------------------------------------------------------------

    def value(self, arch: np.ndarray, name: str) -> Any:
        """The chosen value of the site `name`, None if inactive or absent."""
        column = self.columns.get(name)
        if column is None or arch[column] < 0:
            return None
        return self.sites[column].choices[int(arch[column])]

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != (len(self.sites),):
            raise ValueError(f"a conv_chain architecture here has {len(self.sites)} entries, got shape {arch.shape}")
        if not 0 <= arch[0] < len(self.sites[0].choices):
            raise ValueError(f"depth must be {self.min_layers}..{self.max_layers} layers")
        active = np.asarray(self.active(jnp.asarray(arch, jnp.int32)))
        for s, site in enumerate(self.sites):
            if active[s] and not 0 <= arch[s] < len(site.choices):
                raise ValueError(f"{site.name} has no choice number {arch[s]}; choose 0..{len(site.choices) - 1}")
            if not active[s] and arch[s] != -1:
                raise ValueError(f"{site.name} is inactive here and must be -1, got {arch[s]}")

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as a JSON tree (the form of `--arch`, trials.jsonl and best.json)."""
        self.validate(arch)
        arch = np.asarray(arch)
        layers = []
        for i in range(self.min_layers + int(arch[0])):
            layer: dict[str, Any] = {}
            for token in ("type", "filter_height", "filter_width", "stride_height", "stride_width", "num_filters"):
                if (value := self.value(arch, f"layer{i}/{token}")) is not None:
                    layer[token] = value
            layer["inputs"] = self._inputs(arch, i)
            layers.append(layer)
        tree: dict[str, Any] = {"space": self.name, "layers": layers}
        if self.block_layers > 1:
            tree["block_layers"] = self.block_layers
        if self.learning_rates:
            tree["learning_rate"] = self.value(arch, "learning_rate")
        return tree

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree. Raises ValueError that says what to write instead."""
        if not isinstance(tree, Mapping) or tree.get("space") != self.name:
            raise ValueError('a conv_chain architecture is {"space": "conv_chain", "layers": [...]}')
        layers = tree.get("layers")
        if not isinstance(layers, list) or not all(isinstance(layer, Mapping) for layer in layers):
            raise ValueError('"layers" must be a list of objects such as {"filter_height": 3, "filter_width": 3, ...}')
        if not self.min_layers <= len(layers) <= self.max_layers:
            raise ValueError(f"{len(layers)} layers; this space has {self.min_layers}..{self.max_layers}")
        if tree.get("block_layers", 1) != self.block_layers:
            raise ValueError(f'"block_layers" is {tree.get("block_layers", 1)}; this space has {self.block_layers}')
        if unknown := set(tree) - {"space", "layers", "block_layers", "learning_rate"}:
            raise ValueError(f"unknown entry {sorted(unknown)[0]!r} in the architecture")
        arch = np.full(len(self.sites), -1, np.int32)
        arch[0] = len(layers) - self.min_layers
        for i, layer in enumerate(layers):
            self._decode_layer(arch, i, layer)
        if ("learning_rate" in tree) != bool(self.learning_rates):
            raise ValueError('"learning_rate" belongs in the architecture exactly when the space predicts it')
        if self.learning_rates:
            self._set(arch, "learning_rate", tree["learning_rate"])
        return arch

    def _decode_layer(self, arch: np.ndarray, i: int, layer: Mapping[str, Any]) -> None:
        where = f"layer {i}"
        kind = layer.get("type", "conv")
        if kind not in (self.types or ("conv",)):
            raise ValueError(f"{where}: type {kind!r} is not in this space ({', '.join(self.types or ('conv',))})")
        if self.types:
            self._set(arch, f"layer{i}/type", kind)
        expected = {"inputs"}
        if kind in _SIZED:
            expected |= {"filter_height", "filter_width"}
            if self.strides:
                expected |= {"stride_height", "stride_width"}
        if kind == "conv":
            expected |= {"num_filters"}
        given = set(layer) - {"type"}
        if not self.strides:  # a stride of 1 may be spelt out
            given -= {key for key in ("stride_height", "stride_width") if layer.get(key) == 1}
        if missing := expected - given - {"inputs"}:
            raise ValueError(f'{where}: "{sorted(missing)[0]}" is missing')
        if unknown := given - expected:
            raise ValueError(f'{where}: "{sorted(unknown)[0]}" does not belong to a {kind} layer of this space')
        for token in expected - {"inputs"}:
            self._set(arch, f"layer{i}/{token}", layer[token])
        inputs = layer.get("inputs", [] if self.skips or i == 0 else [i - 1])
        if (
            not isinstance(inputs, list)
            or not all(type(j) is int and 0 <= j < i for j in inputs)
            or (len(set(inputs)) != len(inputs))
        ):
            allowed = f"distinct earlier layers, 0..{i - 1}" if i else "no layer (the first layer reads the image): []"
            raise ValueError(f'{where}: "inputs" must list {allowed}; got {inputs}')
        if not self.skips and inputs != ([i - 1] if i else []):
            raise ValueError(f"{where}: without skips every layer reads the one before it")
        if self.skips:
            for j in range(i):
                arch[self.columns[f"layer{i}/anchor{j}"]] = int(j in inputs)

    def _set(self, arch: np.ndarray, name: str, value: Any) -> None:
        site = self.sites[self.columns[name]]
        if value not in site.choices or type(value) is not type(site.choices[0]):
            raise ValueError(f"{name.replace('/', ': ')} = {value!r} is not in this space; choose from {site.choices}")
        arch[self.columns[name]] = site.choices.index(value)

    def _inputs(self, arch: np.ndarray, i: int) -> list[int]:
        """Layers (blocks) that layer i reads; [] = the image."""
        if not self.skips:
            return [i - 1] if i else []
        return [j for j in range(i) if arch[self.columns[f"layer{i}/anchor{j}"]] == 1]

    def identity(self, arch: np.ndarray) -> str:
        """A string that is the same exactly for equal architectures."""
        return digest(arch)

    def size(self) -> int:
        """Exact number of architectures, all depths together."""
        total, prefix = 0, 1
        for i in range(self.max_layers):
            tokens = 0
            for kind in self.types or ("conv",):
                sizes = math.prod(map(len, (self.filter_heights, self.filter_widths))) * (len(self.strides) or 1) ** 2
                tokens += (sizes if kind in _SIZED else 1) * (len(self.filter_counts) if kind == "conv" else 1)
            prefix *= tokens * (2**i if self.skips else 1)
            if i + 1 >= self.min_layers:
                total += prefix
        return total * (len(self.learning_rates) or 1)

    def enumerate(self) -> np.ndarray:
        """Every Arch of a small space, int32[size, S]. ValueError beyond 10^6 combinations of choices."""
        if math.prod(map(int, self._arity)) > 1_000_000:
            raise ValueError(f"a space of {self.size()} architectures is too large to enumerate")
        rows = {}
        active = jax.jit(jax.vmap(self.active))
        draws = np.array(list(product(*(range(n) for n in self._arity))), np.int32)
        for row in np.where(np.asarray(active(draws)), draws, -1):
            rows[row.tobytes()] = row
        return np.stack(list(rows.values()))


def variant(name: str) -> ConvChain:
    """The published variants: "v1" (no stride, no pooling), "v2" (strides), "v3" (max-pooling, 13 blocks of 3).

    v1 and v2 span the depths 6..20 that the schedule of section 4.1 reaches. Raises ValueError for another name.
    """
    if name == "v1":
        return ConvChain(min_layers=6, max_layers=20)
    if name == "v2":
        return ConvChain(min_layers=6, max_layers=20, strides=(1, 2, 3))
    if name == "v3":
        return ConvChain(13, 13, filter_counts=(6, 12, 24, 36), block_layers=3, pool_after=(3, 7))
    raise ValueError(f"unknown variant {name!r}; choose v1, v2 or v3")
