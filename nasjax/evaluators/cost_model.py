"""Which strategy trains a population fastest, and its cost: a small model of seconds and bytes.

The choice is a pure function of the configuration and the backend's name. A run keeps what was chosen when it began,
although a resume may ask for more candidates.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.data.stream import usable_cores
from nasjax.train.by_parts import unsuited
from nasjax.train.recipe import Recipe
from nasjax.types import Built, Masked

_TRACED = 10  # factor of the compile time of a masked layer of traced size or type (4 layers: 100 s)
_SHARING = 16  # children that share the masked program's compile time, where there are not fewer


class Rates(NamedTuple):
    """The speed of a backend in training steps; the sources of the numbers are beside them."""

    exact: float  # multiply-adds per second of a child's own program
    vmap: float  # multiply-adds per second of the masked program, its own (larger) count
    parts: float  # multiply-adds per second and core of a child trained part by part; an accelerator has one core
    overhead_s: float  # per layer and step of `exact`, independent of the arrays' sizes
    compile_exact_s: float  # per layer of a child
    compile_vmap_s: float  # per layer of the space, once


RATES = {
    # Measured by benchmarks/population.py on two cores of an Intel Xeon with AVX-512, jax 0.10.2.
    # `parts`: graphs of depthwise convolutions with 8 channels, two cores of an AMD EPYC; 3.0e9 by a worker with one
    # core, 1.9e9 a core by one process with both. Memory limits it, not arithmetic.
    "cpu": Rates(exact=60e9, vmap=16e9, parts=2.5e9, overhead_s=0.2e-3, compile_exact_s=0.5, compile_vmap_s=2.3),
    # Not measured: a cautious third of what tensor cores reach on large products, launches of 10 us each, 30 a layer.
    "gpu": Rates(exact=30e12, vmap=30e12, parts=30e12, overhead_s=0.3e-3, compile_exact_s=1.5, compile_vmap_s=5.0),
}


def choose_strategy(
    builts: Sequence[Built],
    masked: Masked | None,
    recipe: Recipe,
    train_size: int,
    backend: str,
    children: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Chooses "exact", "vmap", "parts" or "path".

    A network that branches at run time serves all children of a CPU, one after the other. Networks of parts that no
    program serves together are trained part by part, where the recipe allows it.

    Where the cost of the masked network is not known, the CPU trains by "exact" and an accelerator by "vmap".

    Args:
      builts: some architectures of the space, whose mean stands for it.
      masked: the network of the whole space, where there is one.
      recipe: the training.
      train_size: samples of the training part.
      backend: `jax.default_backend()`; an unknown one counts as "gpu".
      children: how many will be trained; None = not known, many.

    Returns:
      The strategy, and its reasons, all JSON: "steps" of a training; mean "params" and "macs" (per sample) of a child;
      "masked_macs" that `vmap` spends instead; and per strategy "seconds" and "bytes" of a child, as far as known.
    """
    rates, sharing = RATES.get(backend, RATES["gpu"]), min(children or _SHARING, _SHARING)
    batch = min(recipe.batch_size, train_size)
    steps = train_size // batch * recipe.epochs
    macs, params = (int(np.mean([getattr(built, name) for built in builts])) for name in ("macs", "params"))
    layers = float(np.mean([built.layers for built in builts]))
    per_step = 3 * macs * batch / rates.exact + layers * rates.overhead_s
    seconds = {"exact": layers * rates.compile_exact_s + steps * per_step}
    memory = [built.bytes(batch) for built in builts if built.bytes is not None]
    estimates: dict[str, Any] = {"steps": steps, "params": params, "macs": macs}
    room = {"exact": int(np.mean(memory))} if memory else {}
    chosen = "exact" if masked is None or backend == "cpu" else "vmap"
    if masked is not None and masked.branching and backend == "cpu":
        chosen = "path"
        once = layers * rates.compile_exact_s / sharing
        seconds = {"path": once + steps * per_step, **seconds}
    if masked is None and not unsuited(builts[0].network(bn_eps=recipe.bn_eps, dtype=recipe.dtype), recipe):
        chosen = "parts"
        by_parts = 3 * macs * batch / (rates.parts * (usable_cores() if backend == "cpu" else 1))
        by_parts += layers * rates.overhead_s
        seconds = {"parts": steps * by_parts, **seconds}  # its few programs are compiled once for all
        room = {"parts": room["exact"], **room} if room else {}
    if masked is not None and masked.cost is not None:
        cost = masked.cost(batch)
        once = cost.layers * rates.compile_vmap_s * (_TRACED if cost.slow else 1) / sharing
        seconds["vmap"] = once + steps * 3 * cost.macs * batch / rates.vmap
        estimates["masked_macs"] = cost.macs
        room["vmap"] = cost.bytes
        chosen = min(seconds, key=seconds.__getitem__)
    rounded = {name: round(value, 3) for name, value in seconds.items()}
    return chosen, {**estimates, "seconds": rounded, "bytes": room}


def later_seconds(strategy: str, width: int, count: int, programs_s: float, rest_s: float) -> float:
    """Seconds of `count` candidates that follow the first one.

    That one's own programs took the compiler `programs_s`, and all but compiling took `rest_s`. With "exact" each has a
    program of its own; in a group of `width` it compiles while another trains. With "parts" each has half as many new
    kinds of parts as the one before it, so that all together compile as long as the first. The others share a program.
    """
    if strategy == "exact":
        return count * (programs_s + rest_s + (width - 1) * max(programs_s, rest_s)) / width
    return count * rest_s + (programs_s * (1 - 0.5**count) if strategy == "parts" else 0.0)


def chunk_size(bytes_per_child: int) -> int:
    """Children that fit the memory, at least 1."""
    return max(1, int(usable_bytes() // bytes_per_child))


def usable_bytes() -> float:
    """3/4 of the accelerator's memory, or half of the machine's for a CPU."""
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    return 0.75 * stats["bytes_limit"] if stats else _machine_bytes() / 2


def _machine_bytes() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):  # no such question on this system
        return 4e9
