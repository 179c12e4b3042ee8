"""The comparison as JSON: what was agreed and what came out, with a digest that is the same twice."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = 6  # significant ones that are kept: float32 has seven
FORMAT = 1


def plain(tree: Any) -> Any:
    """JSON of numbers with DIGITS significant digits; infinities and NaN are null."""
    if isinstance(tree, dict):
        return {str(name): plain(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple, np.ndarray)):
        return [plain(value) for value in tree]
    if isinstance(tree, np.generic):
        return plain(tree.item())
    if isinstance(tree, float):
        return float(f"{tree:.{DIGITS}g}") if math.isfinite(tree) else None
    return tree


def digest(told: Any) -> str:
    """The SHA-256 of a JSON tree in its one form: sorted names, no spaces."""
    text = json.dumps(plain(told), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def whole(told: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    """What compare.json holds: `told` and its digest, and `beside` what differs from run to run (times, versions)."""
    return {"format": FORMAT, "comparison": plain(told), "sha256": digest(told), "beside": plain(beside)}


def write(path: Path, record: dict[str, Any]) -> None:
    """Raises ValueError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, sort_keys=True, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error
