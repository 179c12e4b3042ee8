"""How candidates are evaluated, in words: `strategy` of config.json for a person."""

from __future__ import annotations

import re

_WORDS = {
    "exact": "candidates train one by one, each by a program of its own",
    "path": "candidates train one by one, all by one program",
    "parts": "candidates train one by one and part by part, equal parts by one program",
    "vmap": "candidates train side by side in one program",
    "table": "results are looked up",
}


def in_words(strategy: str) -> str:
    """What a strategy means, with its name where `--set strategy=` takes it.

    Example:
      >>> in_words("vmap"), in_words("one supernet on 1 device(s)")
      ('candidates train side by side in one program (strategy vmap)', 'one supernet on 1 device')
    """
    if shared := re.fullmatch(r"(.* on (\d+) device)\(s\)", strategy):
        return shared[1] + "s" * (shared[2] != "1")
    named = "" if strategy == "table" else f" (strategy {strategy})"
    return f"{_WORDS[strategy]}{named}" if strategy in _WORDS else f"strategy {strategy}"
