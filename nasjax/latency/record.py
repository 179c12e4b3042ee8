"""The file of measured latencies: what was measured where, and the predictor that was fitted to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nasjax.latency.predictor import Predictor

FORMAT = 2  # 1 had medians of calls
OF_NETWORKS = ("space", "form", "shape", "outputs")  # what says which networks the times are of


class Latency(NamedTuple):
    """Milliseconds of a space's networks on a device.

    facts: the file's content; sha256: its digest.
    """

    predictor: Predictor
    facts: dict[str, Any]
    sha256: str

    @property
    def where(self) -> str:
        """On what, in words."""
        found = self.facts
        threads = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
        return f"batch {found['batch']}, {found['runtime']}, {threads}, {found['device']}, {found['processor']}"

    def require(self, networks: dict[str, Any], file: str) -> None:
        """Raises ValueError where these networks, `OF_NETWORKS` as JSON, are not those that were timed."""
        for name in OF_NETWORKS:
            if (given := json.loads(json.dumps(networks[name]))) != self.facts[name]:
                raise ValueError(
                    f"{file} has times of networks with another {name} ({_short(self.facts[name])}, not "
                    f"{_short(given)}); measure these with --mode=latency"
                )


def read(file: str | Path) -> Latency:
    """A file of --mode=latency. Raises FileNotFoundError or ValueError."""
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; --mode=latency --out={path} makes one")
    content = path.read_bytes()
    try:
        facts = json.loads(content)
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}, this version reads {FORMAT}")
        found = facts["predictor"]
        predictor = Predictor(found["base"], np.array(found["choices"], float), found["params_ms"], found["macs_ms"])
        for name in (*OF_NETWORKS, "batch", "runtime", "threads", "device", "processor"):
            facts[name]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of --mode=latency: {error}") from error
    return Latency(predictor, facts, hashlib.sha256(content).hexdigest())


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
