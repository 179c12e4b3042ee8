"""Published figures to put beside our own; CIFAR-10 unless the entry says otherwise."""

from __future__ import annotations

from typing import Any

from nasjax.spaces.conv_chain import ConvChain

# Zoph & Le 2017, Table 1
_CHAINS = {
    "v1": {"model": "v1, no stride or pooling, 15 layers", "params": 4_200_000, "test_error": 0.0550},
    "v2": {"model": "v2, predicting strides, 20 layers", "params": 2_500_000, "test_error": 0.0601},
    "v3": {"model": "v3, max pooling, 39 layers", "params": 7_100_000, "test_error": 0.0447},
    "v3+": {"model": "v3 with 40 more filters, 39 layers", "params": 37_400_000, "test_error": 0.0365},
}
_CELLS = {
    "darts": ("DARTS, second order, 20 cells of 36 channels", 3_300_000, 0.0276, "Liu et al. 2019, Table 1"),
    "pc_darts": ("PC-DARTS, 20 cells of 36 channels", 3_600_000, 0.0257, "Xu et al. 2020, Table 1"),
    "p_darts": ("P-DARTS, 20 cells of 36 channels", 3_400_000, 0.0250, "Chen et al. 2019, Table 1"),
    "msr_darts": ("MSR-DARTS, 8 cells of 36 channels", 1_630_000, 0.0284, "Machida et al. 2021 (JSAI), Table 1"),
}

_PATHS = {
    "spos": ("SPOS, block search", 3_345_088, 0.257, "Guo et al. 2020; accuracy unverified"),
    "fairnas": ("FairNAS-A", 4_600_000, 0.247, "the authors' repository"),
    "bn_nas": ("BN-NAS", 5_228_536, 0.24536, "the authors' released run"),
}


def published(config: Any) -> dict[str, Any]:
    """The published result nearest to a configuration: model, params, test_error (a fraction), source; dataset if not
    cifar10."""
    space = config.space
    if isinstance(space, ConvChain):
        if space.block_layers > 1:
            variant = "v3+" if space.extra_filters else "v3"
        else:
            variant = "v2" if space.strides else "v1"
        return {**_CHAINS[variant], "source": "Zoph & Le 2017, Table 1"}
    names = ("model", "params", "test_error", "source")
    if config.method in _PATHS:
        return {"dataset": "imagenet", **dict(zip(names, _PATHS[config.method], strict=True))}
    return dict(zip(names, _CELLS[config.method], strict=True))
