"""A space given by its sites alone: what `nasjax.register` makes of a user's list of decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from nasjax.spaces.uniform_sites import UniformSites
from nasjax.types import Site, digest


def _frozen(value: Any) -> Any:
    """A JSON value that can be compared and hashed: lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def values_of(sites: Sequence[Site], arch: np.ndarray) -> dict[str, Any]:
    """{site: its choice} of an Arch, None where the site is inactive; columns behind the sites do not count."""
    return {site.name: site.choices[int(at)] if at >= 0 else None for site, at in zip(sites, arch, strict=False)}


class SiteSpace(UniformSites):
    """Every site is drawn uniformly. A subclass may override `active` for sites that count only sometimes.

    Args:
      name: of the space.
      sites: {name of a decision: its choices}, or a list of `Site`. Sites with the same choices share a policy's head
        where their `group` is the same; with a mapping every site has a group of its own. Choices are JSON values.

    Raises:
      ValueError: no site, a site without choices or with equal ones, or two sites of one name.

    Example:
      >>> space = SiteSpace("mlp", {"width": (16, 32, 64), "depth": (1, 2, 3)})
      >>> space.size(), space.values(np.array([2, 0]))
      (9, {'width': 64, 'depth': 1})
    """

    def __init__(self, name: str, sites: Mapping[str, Sequence[Any]] | Sequence[Site]) -> None:
        if isinstance(sites, Mapping):
            named = enumerate(sites.items())
            sites = [Site(site, tuple(choices), f"site/{site}", layer) for layer, (site, choices) in named]
        sites = [site._replace(choices=tuple(map(_frozen, site.choices))) for site in sites]
        if reserved := {site.group for site in sites} & {"depth", "anchor"}:
            raise ValueError(f"space {name!r}: the site group {sorted(reserved)[0]!r} is taken; choose another")
        if not sites or len({site.name for site in sites}) != len(sites):
            raise ValueError(f"space {name!r} needs at least one site, and a name of its own for each")
        for site in sites:
            if not site.choices or any(a == b for i, a in enumerate(site.choices) for b in site.choices[:i]):
                raise ValueError(f"space {name!r}: site {site.name!r} needs distinct choices, got {site.choices}")
        self.name = name
        self.sites = tuple(sites)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SiteSpace) and (self.name, self.sites) == (other.name, other.sites)

    def __hash__(self) -> int:
        return hash((self.name, self.sites))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.sites)} sites)"

    # -- host side ---------------------------------------------------------------------------------------------

    def values(self, arch: np.ndarray) -> dict[str, Any]:
        """{site: its choice}, None where the site is inactive."""
        return values_of(self.sites, arch)

    def validate(self, arch: np.ndarray) -> None:
        """Raises ValueError unless `arch` is an Arch of this space."""
        arch = np.asarray(arch)
        if arch.shape != (len(self.sites),):
            raise ValueError(f"a {self.name} architecture has {len(self.sites)} entries, got shape {arch.shape}")
        for site, at, active in zip(
            self.sites, arch.tolist(), np.asarray(self.active(jnp.asarray(arch))).tolist(), strict=True
        ):
            if active and not 0 <= at < len(site.choices):
                raise ValueError(f"{site.name} has no choice number {at}; choose 0..{len(site.choices) - 1}")
            if not active and at != -1:
                raise ValueError(f"{site.name} does not count here, so its entry must be -1; got {at}")

    def encode(self, arch: np.ndarray) -> dict[str, Any]:
        """The architecture as JSON: {"space": NAME, "choices": {site: value}}; inactive sites are left out."""
        arch = np.asarray(arch)
        self.validate(arch)
        chosen = zip(self.sites, arch, strict=True)
        return {"space": self.name, "choices": {site.name: site.choices[int(at)] for site, at in chosen if at >= 0}}

    def decode(self, tree: Mapping[str, Any]) -> np.ndarray:
        """The Arch of a JSON tree. Raises ValueError that says what to write instead."""
        choices = tree.get("choices") if isinstance(tree, Mapping) else None
        if not isinstance(choices, Mapping) or tree.get("space") != self.name:
            example = ", ".join(f'"{site.name}": {site.choices[0]!r}' for site in self.sites[:2])
            raise ValueError(f'a {self.name} architecture is {{"space": "{self.name}", "choices": {{{example}, ...}}}}')
        if unknown := set(choices) - {site.name for site in self.sites}:
            raise ValueError(f"{self.name} has no site {sorted(map(str, unknown))[0]!r}")
        arch = np.full(len(self.sites), -1, np.int32)
        for column, site in enumerate(self.sites):
            if site.name in choices:
                value = _frozen(choices[site.name])
                if value not in site.choices:
                    raise ValueError(f"{site.name} = {value!r} is not in this space; choose from {site.choices}")
                arch[column] = site.choices.index(value)
        self.validate(arch)
        return arch

    def identity(self, arch: np.ndarray) -> str:
        """Equal exactly for equal architectures."""
        return digest(arch)

    def size(self) -> int | None:
        """Exact number of architectures; None where sites count only sometimes."""
        always = type(self).active is UniformSites.active
        return math.prod(len(site.choices) for site in self.sites) if always else None
