"""Published architectures by name, in the JSON form of `--arch`."""

from __future__ import annotations

from typing import Any

# Zoph & Le 2017, appendix figure (spec/reinforce.md 9.2): height, width, filters, inputs of the 15 layers of v1.
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


def named(name: str) -> dict[str, Any] | None:
    """The architecture called `name` as a JSON tree, or None. Known: NAS_RL_V1 (4,201,630 parameters at 32x32x3)."""
    if name != "NAS_RL_V1":
        return None
    layers = [
        {"filter_height": height, "filter_width": width, "num_filters": filters, "inputs": list(inputs)}
        for height, width, filters, inputs in _V1
    ]
    return {"space": "conv_chain", "layers": layers}
