"""One file per method: which space, searcher and evaluator meet, and the presets of the command."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

METHODS = ("random", "reinforce", "darts", "pc_darts", "p_darts", "msr_darts", "spos", "fairnas", "bn_nas")


def method(name: str | None) -> Any:
    """The module of a method: DEFAULTS, configure(preset, dataset, space), make(config). Raises ValueError."""
    if name not in METHODS:
        close = difflib.get_close_matches(name or "", METHODS, 1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(METHODS)}"
        raise ValueError(f"unknown method {name!r}; {hint}" if name else f"--method is missing; {hint}")
    return import_module(f"nasjax.experiments.{name}")
