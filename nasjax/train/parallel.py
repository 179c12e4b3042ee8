"""Data-parallel programs: the one place that names a device.

Devices are those of this process, and of all processes of the run where there are several (`runtime.hosts`). Arrays
never span processes: each process holds all of what is shared and its own part of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nasjax.ops.collective import AXIS, mean, total
from nasjax.train.compiling import jit
from nasjax.types import PyTree

__all__ = ["data_parallel", "data_parallel_piece", "device_count", "mean", "replicate", "split", "total"]


def data_parallel(program: Callable[..., PyTree], devices: int | None = None) -> Callable[..., PyTree]:
    """`program(*shared, batch)`, compiled for the devices: each gets all of `shared` and its part of `batch`.

    On one device this is `jax.jit`, on more `jax.pmap`. The program must return the same on every device: it takes
    `mean` of what depends on its part of the batch, gradients above all, before any nonlinear use. Then the result
    does not depend on the number of devices, rounding apart.

    Args:
      program: pure; its last argument is the batch, a pytree of arrays [B, ...], the same in every process.
      devices: how many local devices; None = all, of all processes.

    Returns:
      The compiled program; what it returns is replicated.

    Raises:
      ValueError: there are fewer devices; at the call: B is not a multiple of `devices`.

    Example:
      >>> gradient = data_parallel(lambda w, x: mean(jax.grad(lambda w: jnp.square(x @ w).mean())(w)))
      >>> gradient(jnp.ones(3), jnp.ones((8, 3)))
      Array([6., 6., 6.], dtype=float32)
    """
    piece = data_parallel_piece(lambda *arguments: (program(*arguments), ()), devices)

    def run(*arguments: PyTree) -> PyTree:
        *shared, batch = arguments
        return piece(*shared, split(batch, devices))[0]

    return run


def data_parallel_piece(
    program: Callable[..., tuple[PyTree, PyTree]], devices: int | None = None
) -> Callable[..., tuple[PyTree, PyTree]]:
    """As `data_parallel`, for one of several programs that the host runs in turn on the parts of one batch.

    Args:
      program: (*shared, own) -> (shared, own): what is the same on every device, and what stays on each.
      devices: as for `data_parallel`.

    Returns:
      The compiled program; its last argument is `split(batch)` or what a piece returned second.
    """
    count = device_count(devices)
    if count == 1:
        return jit(program)
    mapped = jax.pmap(
        lambda shared, own: program(*shared[1:], own),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, 0),
        devices=None if devices is None else jax.local_devices()[:count],
    )
    # pmap miscounts the axes behind an argument that has no arrays, so there always is one.
    return lambda *arguments: mapped((0, *arguments[:-1]), arguments[-1])


def split(batch: PyTree, devices: int | None = None) -> PyTree:
    """The batch as pieces take it: a part on every device of this process.

    Raises ValueError if B is not a multiple of all devices.
    """
    count = device_count(devices)
    if count == 1:
        return batch
    local = jax.local_devices()[:devices]
    first = jax.process_index() * len(local) if devices is None else 0
    parts = NamedSharding(Mesh(np.asarray(local), (AXIS,)), PartitionSpec(AXIS))

    def shard(leaf: Any) -> Any:
        if leaf.shape[0] % count:
            raise ValueError(
                f"a batch of {leaf.shape[0]} does not divide among {count} devices; "
                f"use a batch size that is a multiple of {count}, or fewer devices"
            )
        return jax.device_put(leaf.reshape(count, -1, *leaf.shape[1:])[first : first + len(local)], parts)

    return jax.tree.map(shard, batch)


def replicate(tree: PyTree, devices: int | None = None) -> PyTree:
    """`tree` on every device, as `data_parallel` programs return it; the argument itself where it is so already."""
    count = device_count(devices)
    if count == 1:
        return tree
    mesh = Mesh(np.asarray(jax.local_devices()[:devices]), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def device_count(devices: int | None = None) -> int:
    """The number of devices that divide a batch; None = all, of all processes. Raises ValueError if there are fewer."""
    present = jax.local_device_count()
    if devices is not None and not 1 <= devices <= present:
        raise ValueError(f"devices={devices}, but this process has {present}; use 1 to {present}, or None for all")
    return present * jax.process_count() if devices is None else devices
