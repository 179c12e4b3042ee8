"""Published architectures by name, in the JSON form of `--arch`."""

from __future__ import annotations

from typing import Any

# Zoph & Le 2017, appendix, figure of the network without strides (v1): height, width, filters, inputs of 15 layers.
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

# Normal and reduction cell, as listed in the authors' code: operator and source, two per node.
_DARTS_CELLS = {
    "DARTS_V1": ("s3 1 s3 0 sk 0 s3 1 sk 0 s3 1 s3 0 sk 2", "mp 0 mp 1 sk 2 mp 0 mp 0 sk 2 sk 2 ap 0"),
    "DARTS_V2": ("s3 0 s3 1 s3 0 s3 1 s3 1 sk 0 sk 0 d3 2", "mp 0 mp 1 sk 2 mp 1 mp 0 sk 2 sk 2 mp 1"),
    "PDARTS": ("sk 0 d3 1 sk 0 s3 1 s3 1 s3 3 s3 0 d5 4", "ap 0 s5 1 s3 0 d5 2 mp 0 d3 1 d3 1 d5 3"),
    "PC_DARTS_cifar": ("s3 1 sk 0 s3 0 d3 1 s5 0 s3 1 ap 0 d3 1", "s5 1 mp 0 s5 1 s5 2 s3 0 s3 3 s3 1 s3 2"),
    "PC_DARTS_image": ("sk 1 s3 0 s3 0 sk 1 s3 1 s3 3 s3 1 d5 4", "s3 0 sk 1 d5 2 mp 1 s3 2 s3 1 s5 0 s3 3"),
    "MSRDARTS": ("s3 1 s3 0 s3 2 d5 1 d3 3 d3 0 s5 1 d5 2", "s3 0 d3 1 d3 1 s5 0 s3 0 d3 1 s3 0 s5 1"),
}
_OPERATORS = {
    "mp": "max_pool_3x3",
    "ap": "avg_pool_3x3",
    "sk": "skip_connect",
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
}

_PATHS = {
    "SPOS_RELEASED": (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3),
    "FAIRNAS_A": (4, 0, 4, 1, 5, 0, 0, 5, 5, 2, 1, 2, 2, 1, 1, 5, 1, 5, 3),
    "BN_NAS_RELEASED": (3, -1, 0, 4, 0, -1, -1, 0, 4, -1, 4, 4, 1, 4, 2, 0, 0, 4, 0, 2, 2),
}

NAMES = ("NAS_RL_V1", *_DARTS_CELLS, *_PATHS)


def named(name: str) -> dict[str, Any] | None:
    """The architecture called `name` as a JSON tree, or None if it is not in NAMES.

    NAS_RL_V1 has 4,201,630 parameters at 32x32x3; DARTS_V2 has 3,349,342 with 36 channels and 20 cells.
    """
    if name in _DARTS_CELLS:
        return {"space": "darts_cell", **dict(zip(("normal", "reduce"), map(_pairs, _DARTS_CELLS[name]), strict=True))}
    if name in _PATHS:
        return {"space": "choice_chain", "path": list(_PATHS[name])}
    if name != "NAS_RL_V1":
        return None
    layers = [
        {"filter_height": height, "filter_width": width, "num_filters": filters, "inputs": list(inputs)}
        for height, width, filters, inputs in _V1
    ]
    return {"space": "conv_chain", "layers": layers}


def _pairs(text: str) -> list[list[Any]]:
    words = text.split()
    return [[_OPERATORS[operator], int(source)] for operator, source in zip(words[::2], words[1::2], strict=True)]
