"""Local search in any space: candidates are neighbours of the best of a walk, from one random start after the other.

White, Nolen & Savani 2021, "Exploring the Loss Landscape in Neural Architecture Search" (arXiv:2005.02960).
Command: python -m nasjax.launch --method=local_search [--space=tabular_cell --table=FILE.npz]
Minutes: demo about 1 on two CPU cores. Expected: on NAS-Bench-201 see docs/methods/local_search.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.candidates_run import experiment
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.searchers.local_search import local_search
from nasjax.types import Experiment

SPACE = "conv_chain"


@dataclass(frozen=True)
class LocalSearchConfig:
    """Settings of `searchers.local_search`.

    Attributes:
      first_better: moves as soon as a neighbour is better; else when all are known, to the best, as in algorithm 1.
    """

    first_better: bool = True


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set; its number of trials is ours."""
    return base.preset(
        "local_search",
        given,
        demo=LocalSearchConfig(),
        paper=LocalSearchConfig(first_better=False),
        published_trials=300,
    )


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect shows without --arch."""
    return base.described(problem)


def make(problem: Problem) -> Experiment:
    """Local search on a problem."""
    config = problem.config
    capacity = max(config.trials or 0, 10_000)  # not the budget itself, which a resume may change
    searcher = local_search(config.space, first_better=config.search.first_better, capacity=capacity)
    return experiment(problem, searcher, most=capacity)
