"""Cost of training a child of `conv_chain`, in both forms of its network: multiply-adds and bytes."""

from __future__ import annotations

import numpy as np

from nasjax.nets.conv_chain.layout import LayerLayout, Layout
from nasjax.spaces.conv_chain.plan import Plan


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
    """Bytes of one child of the masked program in training: weights, momenta, and what the backward pass needs."""
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


def _frequencies(static: Layout, layer: LayerLayout) -> tuple[int, int, int, int]:
    """Height, width, frequencies along H, frequencies along W."""
    height, width = layer.frame
    return height, width, height + static.reach[0], (width + static.reach[1]) // 2 + 1
