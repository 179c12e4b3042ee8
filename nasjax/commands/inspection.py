"""An architecture: how a text names it, what it is built to, and its counts."""

from __future__ import annotations

from typing import Any

from nasjax import catalog
from nasjax.types import Built, Signature


def inspect(config: Any, arch: str | None = None) -> dict[str, Any]:
    """Counts without data or training: params, macs, space_size, sites, and the indicators of a graph.

    Args:
      config: settings of a method.
      arch: an architecture as NAME, JSON or FILE; None describes the method's search network or controller.
    """
    from nasjax.building.built import counts, signature

    space = config.space
    size = space.size()
    facts: dict[str, Any] = {
        "space": space.name,
        "space_size": None if size is None else str(size),
        "sites": len(space.sites),
    }
    if arch is None:
        return {
            **facts,
            **catalog.method(config.method).describe(config, None if config.looked_up else signature(config)),
        }
    tree = arch_of(config, arch)
    if config.looked_up:
        space.validate(space.decode(tree))
        return {**facts, "arch": tree, "params": None, "macs": None}
    built = built_of(config, tree, signature(config))
    return {**facts, "arch": built.arch, **counts(built)}


def arch_of(config: Any, text: str) -> dict[str, Any]:
    """The JSON tree of an architecture given as NAME, JSON or FILE."""
    from nasjax.building.built import read_arch

    return read_arch(text, catalog.builder(config.space.name), config.space)


def built_of(config: Any, tree: dict[str, Any], form: Signature) -> Built:
    """The network of an architecture, in the form that `config` gives it, for the data of `form`."""
    builder = catalog.builder(config.space.name)
    return builder.build(builder.widen(config.space, tree), config.network_form, tree, form)
