"""The same weights in both forms of a `conv_chain` network: masked (one shape for a whole space) and specialised.

Host side, plain copies. Works on any tree of the variables' structure: gradients and momenta too.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from nasjax.nets.conv_chain.layout import layout, resolve
from nasjax.spaces.conv_chain.plan import Plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.types import PyTree

_resolve = jax.jit(resolve, static_argnums=(0, 1))


def pack(space: ConvChain, plan: Plan, arch: np.ndarray, masked: PyTree, *, depth: int | None = None) -> PyTree:
    """Masked -> specialised.

    Args:
      space, arch: the architecture; `plan` is its plan.
      masked: variables of one child of `conv_chain_masked(space, ..., depth=depth)`, or only some of their collections.

    Returns:
      The same collections as `conv_chain(plan)` has them, numpy arrays.
    """
    places = _places(space, plan, arch, depth)
    return {
        collection: {
            layer: {name: np.asarray(tree[layer][name])[place[name]] for name in tree[layer] if name in place}
            for layer, place in places.items()
            if set(tree.get(layer, ())) & set(place)
        }
        for collection, tree in masked.items()
    }


def unpack(
    space: ConvChain, plan: Plan, arch: np.ndarray, special: PyTree, like: PyTree, *, depth: int | None = None
) -> PyTree:
    """Specialised -> masked: the inverse of `pack`; the architecture's unused weights are those of `like`."""
    places = _places(space, plan, arch, depth)
    full = jax.tree.map(np.array, like)
    for collection, tree in special.items():
        for layer, leaves in tree.items():
            for name, leaf in leaves.items():
                full[collection][layer][name][places[layer][name]] = leaf
    return full


def _places(space: ConvChain, plan: Plan, arch: np.ndarray, depth: int | None) -> dict[str, dict[str, Any]]:
    """Where each specialised array lies in the masked one, as an index: {layer: {name: index}}."""
    static = layout(space, plan.image, depth)
    choices, head = jax.tree.map(np.asarray, _resolve(space, static, np.asarray(arch)))
    places: dict[str, dict[str, Any]] = {
        "head": {"kernel": np.ix_(np.flatnonzero(head.inputs), np.arange(plan.classes)), "bias": slice(None)}
    }
    for i, (layer, choice) in enumerate(zip(plan.layers, choices, strict=False)):
        outputs = np.flatnonzero(choice.outputs)
        if layer.type in ("conv", "batch_norm"):
            places[f"layer{i}"] = dict.fromkeys(("gamma", "beta", "mean", "var"), outputs)
        if layer.type == "conv":
            taps = [
                np.arange(n // 2 - k // 2, n // 2 + k // 2 + 1)
                for n, k in zip(static.kernel, layer.kernel, strict=True)
            ]
            places[f"layer{i}"]["kernel"] = np.ix_(*taps, np.flatnonzero(choice.inputs), outputs)
    return places
