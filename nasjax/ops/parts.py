"""Runs a network that is a straight-line program of parts, and finds the variables of each part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from nasjax.types import Network, Part, PyTree


def through(parts: Sequence[Part], run: Callable[[int, Part, PyTree], PyTree], x: Any) -> Any:
    """The value "y" from "x" by run(i, part i, inputs) -> outputs, one part after the other."""
    values = {"x": x}
    last = {name: i for i, part in enumerate(parts) for name in part.reads}
    gone: dict[int, list[str]] = {}
    for name, i in last.items():
        gone.setdefault(i, []).append(name)
    for i, part in enumerate(parts):
        outputs = run(i, part, tuple(values[name] for name in part.reads))
        for name in gone.get(i, ()):  # values that no later part reads are dropped, to free their memory
            del values[name]
        values |= zip(part.writes, outputs, strict=True)
    return values["y"]


@functools.lru_cache(maxsize=32)
def whole(network: Network) -> Part:
    """A network as its only part."""

    def apply(variables: PyTree, choice: Any, inputs: tuple[jax.Array], **options: Any) -> tuple[PyTree, PyTree]:
        outputs, after = network.apply(variables, choice, *inputs, **options)
        return (outputs,), after

    return Part((), apply, ("x",), ("y",), lambda choice: choice)


def part_of(variables: PyTree, part: Part) -> PyTree:
    """The part's own variables; collections in which it has none are left out."""
    own = {}
    for collection, tree in variables.items():
        for name in part.path:
            tree = tree.get(name)
            if tree is None:
                break
        else:
            own[collection] = tree
    return own


def with_part(variables: PyTree, part: Part, own: PyTree) -> PyTree:
    """`variables` with `own` in place of the part's."""
    return put(variables, part.path, own)


def put(variables: PyTree, path: tuple[str, ...], own: PyTree) -> PyTree:
    """`variables` with those of `own`, collection by collection, at a path."""

    def placed(tree: PyTree, path: tuple[str, ...], leaf: PyTree) -> PyTree:
        return {**tree, path[0]: placed(tree.get(path[0], {}), path[1:], leaf)} if path else leaf

    return variables | {name: placed(variables.get(name, {}), path, tree) for name, tree in own.items()}
