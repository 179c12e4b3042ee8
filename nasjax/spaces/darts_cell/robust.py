"""The small spaces on which DARTS fails, by name: S1 to S4.

Zela et al. 2020, "Understanding and Robustifying Differentiable Architecture Search" (arXiv:1909.09656), section 3 and
their code.
"""

from __future__ import annotations

_SHORT = {
    "m": "max_pool_3x3",
    "a": "avg_pool_3x3",
    "k": "skip_connect",
    "s": "sep_conv_3x3",
    "d": "dil_conv_3x3",
    "D": "dil_conv_5x5",
}
# S1: two operators for each of the 14 edges, in the order of `darts_cell.EDGES`.
_S1 = {
    "normal": "kd kD kD ks kd mk ks ks kd ks mk kd dD dD",
    "reduce": "ma md ma ma kD ma ms kd kD ma ma kD kD kD",
}
_EVERYWHERE = {
    "S2": ("skip_connect", "sep_conv_3x3"),
    "S3": ("none", "skip_connect", "sep_conv_3x3"),
    "S4": ("noise", "sep_conv_3x3"),
}
ROBUST: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "S1": {
        cell: tuple(tuple(_SHORT[letter] for letter in edge) for edge in edges.split()) for cell, edges in _S1.items()
    },
    **{name: dict.fromkeys(("normal", "reduce"), (operators,) * 14) for name, operators in _EVERYWHERE.items()},
}
