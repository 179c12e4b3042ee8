"""SPOS: a supernet trained on uniformly drawn single paths, evolution with inherited weights.

Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420.
Command: python -m nasjax.launch --method=spos [--dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's supernet took 12 days of 8 GTX 1080Ti together, its search below 1.
Expected: 74.3 % top-1 on ImageNet at 319M multiply-adds (blocks only), which cannot be run here: no ImageNet data. The
demo shows the machine, not learning.
"""

from __future__ import annotations

from typing import Any

from nasjax.experiments.families import supernets as base
from nasjax.experiments.families import supernets_run
from nasjax.experiments.families.supernets import EvolutionConfig, OneShotConfig, SupernetConfig
from nasjax.learners.one_shot_update import Descent
from nasjax.spaces.choice_chain import ChoiceChain

make = supernets_run.make
describe = base.describe


def published(config: OneShotConfig) -> dict[str, Any] | None:
    """The figure to put beside our own; ImageNet."""
    if not isinstance(config.space, ChoiceChain):
        return None
    return {
        "dataset": "imagenet",
        "model": "SPOS, block search",
        "params": 3_345_088,
        "test_error": 0.257,
        "source": "Guo et al. 2020; accuracy unverified",
    }


def configure(name: str, dataset: str | None, space: str | None) -> OneShotConfig:
    """The preset `name` for a data set and a space."""
    demo = SupernetConfig(epochs=20, batch_size=64, descent=Descent(rate=0.1), dropout=0.0)
    searches: dict[str, Any] = {"demo": base.SMALL_SEARCH, "paper": EvolutionConfig()}
    supernets = {"demo": demo, "paper": SupernetConfig()}
    config = base.preset("spos", name, dataset, space, supernets, searches, recipe=base.RELEASED, dropout=0.1)
    return base.limited(config, 330_000_000) if name == "paper" and dataset in (None, "imagenet") else config
