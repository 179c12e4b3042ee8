"""How the architectures of `conv_chain` become networks, and the published one by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from nasjax.nets.conv_chain.cost import exact_bytes, masked_bytes, masked_macs
from nasjax.nets.conv_chain.layout import layout
from nasjax.nets.conv_chain.masked import conv_chain_masked
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.nets.conv_chain.pack import pack
from nasjax.problem.arch_text import read_arch
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain, variant
from nasjax.types import Builder, Built, Masked, MaskedCost, Network, PyTree, Signature

# Zoph & Le 2017, appendix A: height, width, filters, inputs of the 15 layers of v1.
_V1 = (
    (3, 3, 36, ()),
    (3, 3, 48, (0,)),
    (3, 3, 36, (0, 1)),
    (5, 5, 36, (0, 1, 2)),
    (3, 7, 48, (2, 3)),
    (7, 7, 48, (1, 2, 3, 4)),
    (7, 7, 48, (1, 2, 3, 4, 5)),
    (7, 3, 36, (0, 5, 6)),
    (7, 1, 36, (0, 4, 5, 7)),
    (7, 7, 36, (0, 2, 3, 4, 5, 6, 7, 8)),
    (5, 7, 36, (0, 1, 4, 5, 6, 7, 8, 9)),
    (7, 7, 48, (0, 1, 2, 3, 5, 10)),
    (7, 5, 48, (0, 2, 5, 6, 7, 8, 9, 10, 11)),
    (7, 5, 48, (2, 6, 11, 12)),
    (7, 5, 48, (1, 6, 10, 11, 12, 13)),
)


def _build(space: ConvChain, form: None, tree: dict[str, Any], signature: Signature) -> Built:
    arch = space.decode(tree)
    chain = plan(space, arch, signature.inputs.shape, signature.outputs)
    return Built(
        arch=space.encode(arch),
        params=chain.params,
        macs=chain.macs,
        plan=chain._replace(learning_rate=None),  # the rate is an argument of the training, not of the network
        network=lambda *, bn_eps, dtype: conv_chain(chain, bn_eps=bn_eps, dtype=dtype),
        learning_rate=chain.learning_rate,
        layers=len(chain.layers),
        bytes=lambda batch: exact_bytes(chain, batch),
    )


def _masked(space: ConvChain, form: None, signature: Signature) -> Masked:
    image, classes = signature.inputs.shape, signature.outputs

    def network(depth: int, *, bn_eps: float, dtype: str) -> Network:
        return conv_chain_masked(space, image, classes, depth=depth, bn_eps=bn_eps, dtype=dtype)

    def specialised(arch: np.ndarray, variables: PyTree, depth: int) -> PyTree:
        return pack(space, plan(space, arch, image, classes), arch, variables, depth=depth)

    def cost(batch: int) -> MaskedCost:
        static = layout(space, image)
        slow = bool(space.types or space.strides)
        return MaskedCost(masked_macs(static, batch), masked_bytes(static, batch), len(static.layers), slow)

    return Masked(network, lambda arch: space.min_layers + int(arch[0]), specialised, cost)


def _widen(space: ConvChain, tree: dict[str, Any]) -> ConvChain:
    """The space with its range of depths opened to the architecture: a count may be asked of any depth."""
    layers = tree.get("layers")
    if not isinstance(layers, list) or not layers or space.pool_after:
        return space
    depths = (space.min_layers, space.max_layers, len(layers))
    return dataclasses.replace(space, min_layers=min(depths), max_layers=max(depths))


# How a chain is perturbed (Zoph & Le 2017, section 4.1); layer k reads these. That a chain without skips reads what is
# before each layer, and not the image, is our reading.
PERTURBED: dict[str, Callable[[int], list[int]]] = {
    "all_skips": lambda k: list(range(k)),
    "no_skips": lambda k: [k - 1] if k else [],
}


def _parsed(space: ConvChain, text: str) -> dict[str, Any] | None:
    """all_skips(NAME, JSON or FILE), or no_skips(...): that chain with other skips; None where the text is another.

    Raises ValueError where there is no such chain, or its blocks are more than a layer.
    """
    for name, inputs in PERTURBED.items():
        if not (text.startswith(f"{name}(") and text.endswith(")")):
            continue
        if space.block_layers > 1:
            raise ValueError(f"{name} is for chains of single layers; this space has blocks of {space.block_layers}")
        tree = read_arch(text[len(name) + 1 : -1], BUILDER, space)
        if not isinstance(layers := tree.get("layers"), list) or not all(isinstance(one, dict) for one in layers):
            raise ValueError(f"{name} needs a chain with layers, got {str(tree)[:80]}")
        return {**tree, "layers": [{**layer, "inputs": inputs(k)} for k, layer in enumerate(layers)]}
    return None


def _named() -> dict[str, dict[str, Any]]:
    layers = [
        {"filter_height": height, "filter_width": width, "num_filters": filters, "inputs": list(inputs)}
        for height, width, filters, inputs in _V1
    ]
    return {"NAS_RL_V1": {"space": "conv_chain", "layers": layers}}  # 4,201,630 parameters at 32x32x3


# Zoph & Le 2017, Table 1
_RESULTS = {
    "v1": {"model": "v1, no stride or pooling, 15 layers", "params": 4_200_000, "test_error": 0.0550},
    "v2": {"model": "v2, predicting strides, 20 layers", "params": 2_500_000, "test_error": 0.0601},
    "v3": {"model": "v3, max pooling, 39 layers", "params": 7_100_000, "test_error": 0.0447},
    "v3+": {"model": "v3 with 40 more filters, 39 layers", "params": 37_400_000, "test_error": 0.0365},
}


def _published(config: Any) -> dict[str, Any]:
    """The result of the variant that is nearest to the space of a run."""
    space = config.space
    if space.block_layers > 1:
        name = "v3+" if space.extra_filters else "v3"
    else:
        name = "v2" if space.strides else "v1"
    row = {"dataset": "cifar10", "train": 45_000, **_RESULTS[name], "source": "Zoph & Le 2017, Table 1"}
    of = {"params": None, "source": "Zoph & Le 2017, section 4.1"}
    told = {
        "all_skips": {"model": "v1, all layers densely connected", "test_error": 0.0556, **of},
        "no_skips": {"model": "v1, all skips removed", "test_error": 0.0797, **of},
    }
    return (
        {**row, "baselines": {f"{kind}(NAS_RL_V1)": result for kind, result in told.items()}} if name == "v1" else row
    )


BUILDER = Builder(
    ConvChain(),
    _build,
    ("classification",),
    widen=_widen,
    parse=_parsed,
    named=_named(),
    masked=_masked,
    small=(ConvChain(4, 4, filter_counts=(6, 12, 24, 36)), None),
    presets={"paper": variant("v1"), "paper_v2": variant("v2"), "paper_v3": variant("v3")},
    published=_published,
)
