"""ImageNet: its networks can be counted; there is no loader."""

from __future__ import annotations

from typing import Any

from nasjax.data.sources import DataSource, Source


def _open(config: Any) -> Source:
    raise ValueError("imagenet has no loader here: use --mode=inspect, or --dataset=FILE.npz with x and y")


SOURCE = DataSource(
    _open, "classification", shape=(224, 224, 3), outputs=1000, size=1_281_167, photographs=True, folder=True
)
