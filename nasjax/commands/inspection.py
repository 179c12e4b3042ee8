"""An architecture: read from text, built, and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasjax import catalog
from nasjax.latency.memory import MB, memory
from nasjax.problem.problem import Problem, counts


def inspect(config: Any, arch: str | None = None, batch: int | None = None) -> dict[str, Any]:
    """Counts without data or training: params, macs, space_size, sites, memory, and the indicators of a graph.

    Args:
      config: settings of a method.
      arch: an architecture as NAME, JSON or FILE; None describes the method's search network or controller.
      batch: samples of a call, to tell the memory of the architecture's network at inference (`latency.memory`), in MB
        of 10^6 bytes; None = of settings that search by memory only, at theirs.

    Raises:
      ValueError: no such architecture, or a batch where there is no network.
    """
    problem = Problem(config)
    space = problem.space
    size = space.size()
    facts: dict[str, Any] = {
        "space": space.name,
        "space_size": None if size is None else str(size),
        "sites": len(space.sites),
    }
    if batch is not None and (arch is None or problem.looked_up or batch < 1):
        raise ValueError(
            f"--batch={batch} tells the memory of a network: give --arch and a batch of at least 1, no table"
        )
    if arch is None:
        return {**facts, **catalog.method(config.method).describe(problem)}
    tree = problem.read(arch)
    if problem.looked_up:
        space.validate(space.decode(tree))
        return {**facts, "arch": tree, "params": None, "macs": None}
    built = problem.built(tree)
    facts |= {"arch": built.arch, **counts(built)}
    if batch is None and getattr(config, "weighs_memory", False):
        batch = problem.memory_batch
    if batch is None:
        return facts
    found = memory(built, problem.signature, batch)
    parts = {"weights": found.weights / MB, "activations": found.activations / MB}
    return {**facts, "memory_mb": {**parts, "batch": batch}}


def asked_arch(arch: str | None, path: Path, *, found: bool = False) -> str | None:
    """The architecture that the user asks for, as NAME, JSON or FILE: "best" is what the workdir `path` found.

    With `found` so is None, where the workdir has found something. Raises ValueError where there is no best.
    """
    best = path / "best.json"
    if arch == "best" and not best.is_file():
        raise ValueError(f"--arch=best: {path} has no best.json; give the --workdir of a search that has found one")
    return str(best) if arch == "best" or (arch is None and found and best.is_file()) else arch
