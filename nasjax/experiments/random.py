"""Random search: architectures drawn uniformly, the yardstick of every other method.

Bergstra & Bengio 2012; as a control experiment for this space Zoph & Le 2017, section 4.2 (spec section 8).
Command: python -m nasjax.launch --method=random
Minutes: demo about 1 on two CPU cores. Expected: on NAS-Bench-201 93.70 +- 0.36 % test accuracy (Dong & Yang 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasjax.experiments.base import Config, Experiment, preset, problem
from nasjax.searchers.random import random_search

DEFAULTS = {"space": "conv_chain", "dataset": "digits"}


@dataclass(frozen=True)
class RandomConfig:
    """Random search has no settings."""


def configure(name: str, dataset: str, space: str) -> Config:
    """The preset `name` for a dataset and a space."""
    return preset("random", name, dataset, space, {"demo": RandomConfig(), "paper": RandomConfig()})


def controller(config: Config) -> dict[str, Any]:
    """What --mode=inspect shows without --arch: random search has no network of its own."""
    return {"describes": "no controller", "params": 0, "macs": 0}


def make(config: Config) -> Experiment:
    """Random search on the problem of `config`."""
    return Experiment(config, random_search(config.space), problem(config), None)
