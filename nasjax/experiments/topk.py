"""Evolution among the best k, in any space: candidates are trained one by one, half mutants, half crossovers.

The evolution of Guo et al. 2020 (SPOS, arXiv:1904.00420), section 3.4, without its supernet.
Command: python -m nasjax.launch --method=topk [--space=darts_cell]
Minutes: demo about 1 on two CPU cores. Expected: no published number; on a supernet see `spos`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.candidates_run import experiment
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.searchers.topk import topk_evolution
from nasjax.types import Experiment

SPACE = "conv_chain"


@dataclass(frozen=True)
class TopkConfig:
    """Sizes of a generation; the paper's are those of `spos --preset=paper`.

    Attributes:
      population: architectures in a generation.
      top_k: parents, the best of all so far.
      mutants, crossovers: children of either kind; random architectures fill up the generation.
      mutation_rate: per gene, in spaces that mutate genes.
    """

    population: int = 50
    top_k: int = 10
    mutants: int = 25
    crossovers: int = 25
    mutation_rate: float = 0.1


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set."""
    demo = TopkConfig(population=8, top_k=4, mutants=4, crossovers=4)
    return base.preset("topk", given, demo=demo, paper=TopkConfig())


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect shows without --arch."""
    return base.described(problem)


def make(problem: Problem) -> Experiment:
    """The evolution on a problem."""
    config, search = problem.config, problem.config.search
    capacity = max(search.population, config.trials or 0, 10_000)  # a resume may ask for more; proposals are the same
    searcher = topk_evolution(
        config.space,
        population=search.population,
        top_k=search.top_k,
        mutants=search.mutants,
        crossovers=search.crossovers,
        mutation_rate=search.mutation_rate,
        capacity=capacity,
        fill_tries=1000,
    )
    return experiment(problem, searcher, most=capacity)
