"""A space given by its sites alone, as `nasjax.register` makes from a user's list of decisions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.uniform_sites import UniformSites
from nasjax.types import Site, digest

_MOST_KINDS = 100_000  # combinations of conditions that are counted one by one


def frozen(value: Any) -> Any:
    """A choice as a plain value that can be compared, hashed and written as JSON: lists as tuples, NumPy's as Python's.

    Raises ValueError for anything else.
    """
    if hasattr(value, "tolist"):  # of NumPy and JAX
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            if isinstance(value, float) and not math.isfinite(value):
                break
            return kind(value)  # of a subclass such as an enumeration, its plain value
    if value is None:
        return None
    raise ValueError(
        f"{value!r} ({type(value).__name__}) is no choice that files can hold; write a number, a text, true, false, "
        "None, or a list of these, and let build() look up what it stands for"
    )


def plain_site(site: Any, where: str) -> Site:
    """A site whose choices are `frozen`. Raises ValueError with `where` where it is none."""
    if not isinstance(site, Site) or not isinstance(site.name, str) or not isinstance(site.group, str):
        raise ValueError(
            f"{where}: a site is Site(name, choices, group, layer), the name and group texts; got {site!r}"
        )
    choices = site.choices
    if isinstance(choices, (str, bytes, Mapping, Set)) or not isinstance(choices, Iterable):
        raise ValueError(
            f"{where}: site {site.name!r} needs a list of choices in their order, as (16, 32); got {choices!r}"
        )
    try:
        return site._replace(choices=tuple(map(frozen, choices)), layer=int(site.layer))
    except ValueError as error:
        raise ValueError(f"{where}: site {site.name!r}: {error}") from None


def values_of(sites: Sequence[Site], arch: np.ndarray) -> dict[str, Any]:
    """{site: its choice} of an Arch, None where the site is inactive; columns behind the sites do not count."""
    return {site.name: site.choices[int(at)] if at >= 0 else None for site, at in zip(sites, arch, strict=False)}


class SiteSpace(UniformSites):
    """Every site is drawn uniformly. A subclass may override `active` for conditions that `when` cannot say.

    Args:
      name: of the space.
      sites: {name of a decision: its choices}, or a list of `Site`. Sites with the same choices share a policy's head
        where their `group` is the same; with a mapping every site has a group of its own. Choices are JSON values;
        those of NumPy become Python's.
      when: {site: {an earlier site: its choices}}: the site counts only where each of these has one of the choices (a
        list of them, or one alone), and counts itself. Sites that are not named always count.

    Raises:
      ValueError: no site, a site without choices, with equal ones or with one that JSON does not have, two sites of
        one name, or a condition on what is no earlier site or not among its choices.

    Example:
      >>> space = SiteSpace("mlp", {"width": (16, 32, 64), "depth": (1, 2, 3)})
      >>> space.size(), space.values(np.array([2, 0]))
      (9, {'width': 64, 'depth': 1})
    """

    def __init__(
        self,
        name: str,
        sites: Mapping[str, Sequence[Any]] | Sequence[Site],
        when: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if isinstance(sites, Mapping):
            named = enumerate(sites.items())
            sites = [Site(site, choices, f"site/{site}", layer) for layer, (site, choices) in named]  # type: ignore[arg-type]
        sites = [plain_site(site, f"space {name!r}") for site in sites]
        if reserved := {site.group for site in sites} & {"depth", "anchor"}:
            raise ValueError(f"space {name!r}: the site group {sorted(reserved)[0]!r} is taken; choose another")
        if not sites or len({site.name for site in sites}) != len(sites):
            raise ValueError(f"space {name!r} needs at least one site, and a name of its own for each")
        for site in sites:
            if not site.choices or any(a == b for i, a in enumerate(site.choices) for b in site.choices[:i]):
                raise ValueError(f"space {name!r}: site {site.name!r} needs distinct choices, got {site.choices}")
        self.name = name
        self.sites = tuple(sites)
        self._when = _conditions(name, self.sites, when or {})

    @property
    def when(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        """{site: {another: the choices under which it counts}}, of the sites that do not always count."""
        found: dict[str, dict[str, tuple[Any, ...]]] = {}
        for column, of, allowed in self._when:
            at = self.sites[of]
            found.setdefault(self.sites[column].name, {})[at.name] = tuple(at.choices[n] for n in allowed)
        return found

    def active(self, arch: jax.Array) -> jax.Array:
        """bool[S]: which sites count, by `when`; traceable."""
        arch = jnp.asarray(arch)
        counts = [jnp.bool_(True)] * len(self.sites)
        for column, of, allowed in self._when:  # ascending, so that a condition's own site is known
            counts[column] &= counts[of] & (arch[of] == jnp.array(allowed)).any()
        return jnp.stack(counts)

    def _conditional(self) -> bool:
        return bool(self._when) or type(self).active is not SiteSpace.active

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SiteSpace) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple[Any, ...]:
        return self.name, self.sites, self._when

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
                raise ValueError(f"{site.name} does not count here: leave it out (-1 in an Arch); got choice {at}")

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
                value = frozen(choices[site.name])
                if value not in site.choices:
                    raise ValueError(f"{site.name} = {value!r} is not in this space; choose from {site.choices}")
                arch[column] = site.choices.index(value)
        self.validate(arch)
        return arch

    def identity(self, arch: np.ndarray) -> str:
        """Equal exactly for equal architectures."""
        return digest(arch)

    def size(self) -> int | None:
        """Exact number of architectures; None where `active` is overridden, or conditions hang on too many sites."""
        if type(self).active is not SiteSpace.active:
            return None
        asked = sorted({of for _, of, _ in self._when})
        counts: dict[tuple[int, ...], int] = {(): 1}  # by the choices of the sites asked for so far, -1: silent
        for column, site in enumerate(self.sites):
            rules = [(asked.index(of), allowed) for at, of, allowed in self._when if at == column]
            new: dict[tuple[int, ...], int] = {}
            for known, ways in counts.items():
                choices = range(len(site.choices)) if all(known[of] in allowed for of, allowed in rules) else (-1,)
                if column not in asked:
                    new[known] = new.get(known, 0) + ways * len(choices)
                    continue
                for choice in choices:
                    new[(*known, choice)] = new.get((*known, choice), 0) + ways
            if len(new) > _MOST_KINDS:
                return None
            counts = new
        return sum(counts.values())


def _conditions(
    space: str, sites: tuple[Site, ...], when: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """(column, column of the site that it hangs on, numbers of its choices), ascending. Raises ValueError."""
    columns, found = {site.name: column for column, site in enumerate(sites)}, []
    for name, rules in when.items():
        if name not in columns or not isinstance(rules, Mapping) or not rules:
            raise ValueError(
                f"space {space!r}: when={{{name!r}: {rules!r}}}: write {{site: {{an earlier site: its choices}}}} with "
                f"sites among {', '.join(columns)}"
            )
        for other, wanted in rules.items():
            if columns.get(other, len(sites)) >= columns[name]:
                raise ValueError(f"space {space!r}: {name!r} can only hang on a site before it, got {other!r}")
            of = columns[other]
            try:
                values = [wanted] if frozen(wanted) in sites[of].choices else list(wanted)
                numbers = tuple(sorted({sites[of].choices.index(frozen(value)) for value in values}))
            except (TypeError, ValueError):
                numbers = ()
            if not numbers:
                raise ValueError(
                    f"space {space!r}: {name!r} counts where {other!r} is {wanted!r}: choose from {sites[of].choices}"
                )
            found.append((columns[name], of, numbers))
    return tuple(sorted(found))
