"""A network that begins with the weights of another one, trained on other data; only its head is new."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import PyTree

_SHOWN = 3  # names in a message


class Transfer(NamedTuple):
    """Variables, and what became of every array; names are such as "params/stem/conv"."""

    variables: PyTree
    taken: tuple[str, ...]  # the other network's
    fresh: tuple[str, ...]  # begun anew: the head, on other data
    left: tuple[str, ...]  # of the other network, with no place here


def transfer(fresh: PyTree, given: PyTree, head: frozenset[str], same_data: bool) -> Transfer:
    """`fresh` with every array of `given` that has its name and shape.

    Args:
      fresh: initial variables, nested dicts of arrays.
      given: those of the trained network.
      head: names of the arrays whose shapes depend on the number of outputs, see `depending`.
      same_data: whether both are for the same data; then the head is taken, too.

    Raises:
      ValueError: an array outside the head is missing in `given`, or has another shape there.
    """
    here, there = named(fresh), named(given)
    wanted = [name for name in here if same_data or name not in head]
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(
            f"{len(missing)} of {len(here)} arrays are missing in what it is to begin with, {_some(missing)}; it must "
            "be of the same space, with the same settings of space and supernet"
        )
    if other := [name for name in wanted if np.shape(here[name]) != np.shape(there[name])]:
        shapes = [f"{name} {list(np.shape(there[name]))} instead of {list(np.shape(here[name]))}" for name in other]
        raise ValueError(
            f"{len(other)} of {len(here)} arrays have other shapes in what it is to begin with, {_some(shapes)}; only "
            "the head may: give one with the same settings of space and supernet, for images of this size and colours"
        )
    taken = frozenset(wanted)
    variables = jax.tree.map_with_path(
        lambda path, leaf: jnp.asarray(there[_name(path)], leaf.dtype) if _name(path) in taken else leaf, fresh
    )
    return Transfer(
        variables,
        tuple(name for name in here if name in taken),
        tuple(name for name in here if name not in taken),
        tuple(name for name in there if name not in taken),
    )


def depending(one: PyTree, other: PyTree) -> frozenset[str]:
    """The names of the arrays whose shapes differ between two networks of one structure, given as arrays or shapes."""
    a, b = named(one), named(other)
    return frozenset(name for name in a if np.shape(a[name]) != np.shape(b[name]))


def named(tree: PyTree) -> dict[str, Any]:
    """The arrays of nested dicts by their names."""
    return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _name(path: Any) -> str:
    return "/".join(part.key for part in path)


def _some(names: list[str]) -> str:
    more = f", ... ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
