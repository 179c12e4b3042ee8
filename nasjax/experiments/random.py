"""Random search: architectures drawn uniformly, the yardstick of every other method.

Bergstra & Bengio 2012; as a control experiment for this space Zoph & Le 2017, section 4.2 (spec section 8).
Command: python -m nasjax.launch --method=random
Minutes: demo about 1 on two CPU cores. Expected: on NAS-Bench-201 93.70 +- 0.36 % test accuracy (Dong & Yang 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasjax.experiments.families.candidates import Config, Experiment, preset, problem, scheduled
from nasjax.searchers.random import random_search


@dataclass(frozen=True)
class RandomConfig:
    """The depth of the candidates: REINFORCE's schedule, for a comparison at equal cost."""

    depth_first: int | None = None  # None = uniform over the space's depths
    depth_step: int = 2
    depth_every: int = 1600


def configure(name: str, dataset: str | None, space: str | None) -> Config:
    """The preset `name` for a dataset and a space."""
    return preset("random", name, dataset, space, {"demo": RandomConfig(), "paper": RandomConfig(6)})


def controller(config: Config) -> dict[str, Any]:
    """What --mode=inspect shows without --arch: random search has no network of its own."""
    return {"describes": "no controller", "params": 0, "macs": 0}


def make(config: Config) -> Experiment:
    """Random search on the problem of `config`."""
    depth = scheduled(config.space, config.search) if config.search.depth_first else None
    return Experiment(config, random_search(config.space, depth_schedule=depth), problem(config), None)
