"""Which strategy trains a population soonest, and what it takes: a small model of seconds and bytes.

Pure functions of the configuration and the backend's name, so that `auto` means the same on every resume.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.nets.conv_chain_layout import LayerLayout, Layout, layout
from nasjax.spaces.conv_chain import ConvChain
from nasjax.spaces.conv_plan import Plan, plan
from nasjax.train.recipe import Recipe

_SAMPLES = 16  # architectures whose mean stands for the space
_TRACED = 10  # a masked layer of traced size or type takes about so many times as long to compile (4 layers: 100 s)
_SHARING = 16  # children that are assumed to share the masked program's compile time


class Rates(NamedTuple):
    """What a backend achieves on training steps; where the numbers come from is said beside them."""

    exact: float  # multiply-adds per second of a child's own program
    vmap: float  # multiply-adds per second of the masked program, its own (larger) count
    overhead_s: float  # per layer and step of `exact`, what does not shrink with the arrays
    compile_exact_s: float  # per layer of a child
    compile_vmap_s: float  # per layer of the space, once


RATES = {
    # Measured by benchmarks/population.py on two cores of an Intel Xeon with AVX-512, jax 0.10.2.
    "cpu": Rates(exact=60e9, vmap=16e9, overhead_s=0.2e-3, compile_exact_s=0.5, compile_vmap_s=2.3),
    # Not measured: a cautious third of what tensor cores reach on large products, launches of 10 us each, 30 a layer.
    "gpu": Rates(exact=30e12, vmap=30e12, overhead_s=0.3e-3, compile_exact_s=1.5, compile_vmap_s=5.0),
}


def choose_strategy(
    space: ConvChain, image: tuple[int, int, int], classes: int, recipe: Recipe, train_size: int, backend: str
) -> tuple[str, dict[str, Any]]:
    """Chooses "exact" or "vmap".

    Args:
      space: of the children.
      image: height, width, channels.
      classes: number of logits.
      recipe: the training.
      train_size: images of the training part.
      backend: `jax.default_backend()`; an unknown one counts as "gpu".

    Returns:
      The strategy, and its reasons, all JSON: "steps" of a training; mean "params" and "macs" (per image) of a child;
      "masked_macs" that `vmap` spends instead; and per strategy "seconds" and "bytes" of a child.
    """
    rates = RATES.get(backend, RATES["gpu"])
    static = layout(space, image)
    plans = _sample(space, image, classes)
    batch = min(recipe.batch_size, train_size)
    steps = train_size // batch * recipe.epochs
    macs, params = (int(np.mean([getattr(p, name) for p in plans])) for name in ("macs", "params"))
    masked = masked_macs(static, batch)
    layers = float(np.mean([len(p.layers) for p in plans]))
    per_step = {
        "exact": 3 * macs * batch / rates.exact + layers * rates.overhead_s,
        "vmap": 3 * masked * batch / rates.vmap,
    }
    once = {
        "exact": layers * rates.compile_exact_s,
        "vmap": len(static.layers) * rates.compile_vmap_s * (_TRACED if space.types or space.strides else 1) / _SHARING,
    }
    seconds = {name: round(once[name] + steps * per_step[name], 3) for name in once}
    estimates = {
        "steps": steps,
        "params": params,
        "macs": macs,
        "masked_macs": masked,
        "seconds": seconds,
        "bytes": {"exact": int(np.mean([exact_bytes(p, batch) for p in plans])), "vmap": masked_bytes(static, batch)},
    }
    return min(seconds, key=seconds.__getitem__), estimates


def masked_macs(static: Layout, batch: int) -> int:
    """Multiply-adds of the masked network's forward pass, per image of a batch."""
    total = 0.0
    for layer in static.layers:
        height, width, rows, half = _frequencies(static, layer)
        channels = sum(slot.capacity for slot in layer.slots)
        kernel = static.kernel[0] * static.kernel[1] / batch
        transform = 2 * half * width * height + 6 * rows * height * half
        total += 3 * rows * half * channels * layer.filters * (1 + kernel)
        total += transform * (layer.capacity + layer.filters)
    return int(total)


def masked_bytes(static: Layout, batch: int) -> int:
    """Bytes of one child of the masked program in training: weights and their momenta, what backpropagation keeps."""
    weights = kept = largest = 0
    for layer in static.layers:
        height, width, rows, half = _frequencies(static, layer)
        channels = sum(slot.capacity for slot in layer.slots)
        kernel = static.kernel[0] * static.kernel[1] * channels * layer.filters
        spectrum = 3 * rows * half
        weights += kernel
        kept += batch * (6 * height * width + spectrum) * layer.capacity
        # While a layer is differentiated: both operands and the product of its spectra, and their gradients.
        largest = max(largest, 2 * spectrum * (channels * layer.filters + batch * (channels + layer.filters)))
    return 4 * (4 * weights + kept + largest)


def exact_bytes(plan: Plan, batch: int) -> int:
    """Bytes of one child of its own program in training."""
    kept = sum(
        batch * (layer.in_size[0] * layer.in_size[1] * layer.in_channels + 4 * np.prod(layer.out_size) * layer.filters)
        for layer in plan.layers
    )
    return int(4 * (4 * plan.params + kept))


def chunk_size(bytes_per_child: int) -> int:
    """Children that fit the memory, at least 1."""
    return max(1, int(usable_bytes() // bytes_per_child))


def usable_bytes() -> float:
    """3/4 of the accelerator's memory, or half of the machine's for a CPU."""
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    return 0.75 * stats["bytes_limit"] if stats else _machine_bytes() / 2


def _machine_bytes() -> float:
    import os

    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):  # no such question on this system
        return 4e9


def _frequencies(static: Layout, layer: LayerLayout) -> tuple[int, int, int, int]:
    """Height, width, frequencies along H, frequencies along W."""
    height, width = layer.frame
    return height, width, height + static.reach[0], (width + static.reach[1]) // 2 + 1


def _sample(space: ConvChain, image: tuple[int, int, int], classes: int) -> list[Plan]:
    keys = jax.random.split(jax.random.key(0), _SAMPLES)
    plans = []
    for arch in np.asarray(jax.jit(jax.vmap(space.sample))(keys)):
        try:
            plans.append(plan(space, arch, image, classes))
        except ValueError:  # this one fails in training too
            continue
    if not plans:
        raise ValueError(f"images of {image[0]}x{image[1]} are too small for the networks of this space")
    return plans
