"""Means and sums over data-parallel devices, for code that may run on one."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Tree = TypeVar("Tree")
AXIS = "devices"  # the name `train.parallel` gives its axis


def mean(tree: Tree) -> Tree:
    """Mean over the devices of a data-parallel program, leaf by leaf; the argument itself elsewhere."""
    try:
        return lax.pmean(tree, AXIS)
    except NameError:  # no such axis here: one device
        return tree


def total(tree: Tree) -> Tree:
    """Sum over the devices of a data-parallel program, leaf by leaf; the argument itself elsewhere."""
    try:
        return lax.psum(tree, AXIS)
    except NameError:
        return tree


def sample_keys(key: jax.Array, count: int) -> jax.Array:
    """keys[count]: of its own for each sample, the same for any number of devices."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, sample_index(count))


def sample_index(count: int) -> jax.Array:
    """i32[count]: the places in the whole batch of this device's samples; per-sample randomness is keyed by it."""
    try:
        return lax.axis_index(AXIS) * count + jnp.arange(count)
    except NameError:
        return jnp.arange(count)
