"""Random search: architectures drawn uniformly, the baseline of every other method.

Bergstra & Bengio 2012; as a control experiment for this space Zoph & Le 2017, section 4.2.
Command: python -m nasjax.launch --method=random
Minutes: demo about 1 on two CPU cores. Expected: on NAS-Bench-201 93.70 +- 0.36 % test accuracy (Dong & Yang 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.candidates_run import experiment
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.searchers.policy import depth_column
from nasjax.searchers.random import random_search
from nasjax.types import Experiment

SPACE = "conv_chain"


@dataclass(frozen=True)
class RandomConfig:
    """The depth of the candidates: REINFORCE's schedule, for a comparison at equal cost.

    Attributes:
      depth_first: layers of the first trials; None = drawn uniformly from the space's depths.
      depth_step, depth_every: layers that are added, and after how many trials.
    """

    depth_first: int | None = None
    depth_step: int = 2
    depth_every: int = 1600


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set."""
    return base.preset("random", given, demo=RandomConfig(), paper=RandomConfig(depth_first=6))


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect shows without --arch."""
    return base.described(problem)


def make(problem: Problem) -> Experiment:
    """Random search on a problem."""
    config = problem.config
    has_depth = depth_column(config.space) is not None
    depth = base.scheduled(config.space, config.search) if config.search.depth_first and has_depth else None
    return experiment(problem, random_search(config.space, depth_schedule=depth))
