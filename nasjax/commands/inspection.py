"""An architecture: read from text, built, and counted."""

from __future__ import annotations

from typing import Any

from nasjax import catalog
from nasjax.problem.problem import Problem, counts


def inspect(config: Any, arch: str | None = None) -> dict[str, Any]:
    """Counts without data or training: params, macs, space_size, sites, and the indicators of a graph.

    Args:
      config: settings of a method.
      arch: an architecture as NAME, JSON or FILE; None describes the method's search network or controller.
    """
    problem = Problem(config)
    space = problem.space
    size = space.size()
    facts: dict[str, Any] = {
        "space": space.name,
        "space_size": None if size is None else str(size),
        "sites": len(space.sites),
    }
    if arch is None:
        return {**facts, **catalog.method(config.method).describe(problem)}
    tree = problem.read(arch)
    if problem.looked_up:
        space.validate(space.decode(tree))
        return {**facts, "arch": tree, "params": None, "macs": None}
    built = problem.built(tree)
    return {**facts, "arch": built.arch, **counts(built)}
