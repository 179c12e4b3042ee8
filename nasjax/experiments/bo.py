"""Bayesian optimisation in any space: a Gaussian process of the results so far chooses what to try next.

White et al. 2021, "BANANAS" (arXiv:1910.11858); Kandasamy et al. 2018 (arXiv:1802.07191). The kernel is ours.
Command: python -m nasjax.launch --method=bo [--space=tabular_cell --table=FILE.npz]
Minutes: demo about 1 on two CPU cores. Expected: no published number of this kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nasjax.evaluators.scores.ranks import rank_sum
from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.candidates_run import experiment
from nasjax.experiments.families.score_columns import as_features, by_place, in_rows, score_columns
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.searchers.bo import bo
from nasjax.types import Experiment

SPACE = "conv_chain"


@dataclass(frozen=True)
class BoConfig:
    """Settings of `searchers.bo`.

    Attributes:
      initial: random trials at the start.
      acquisition: "ucb" or "thompson" (BANANAS).
      beta: of "ucb", deviations added to the mean.
      fit_steps: gradient steps on the marginal likelihood after every result.
      memory: results that the Gaussian process knows: the best half and the latest half of more.
      samples, mutants, parents: random candidates, mutants, and of how many of the best, where a space is not listed.
      shortlist: candidates whose uncertainty is computed.
      scores: known before any training, which inform the Gaussian process: params, macs, or columns of the table.
      start: the same, by whose sum of ranks the start is chosen.
      score_file: an .npz with further columns, its rows those of the table; "" = none.
    """

    initial: int = 10
    acquisition: Literal["ucb", "thompson"] = "ucb"
    beta: float = 0.5
    fit_steps: int = 5
    memory: int = 256
    samples: int = 1000
    mutants: int = 1000
    parents: int = 10
    shortlist: int = 2000
    scores: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    score_file: str = ""

    def __post_init__(self) -> None:
        if self.score_file and not (self.scores or self.start):
            raise ValueError("score_file has no effect without scores or start, the names of its columns")


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set; 150 trials are the budget of BANANAS on NAS-Bench-101, section 4."""
    return base.preset("bo", given, demo=BoConfig(), paper=BoConfig(), published_trials=150)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect shows without --arch."""
    return base.described(problem)


def make(problem: Problem) -> Experiment:
    """Bayesian optimisation on a problem."""
    config, search = problem.config, problem.config.search
    names = tuple(dict.fromkeys((*search.scores, *search.start)))
    known = score_columns(problem, names, search.score_file) if names else {}
    capacity = max(config.trials or 0, 10_000)  # not the budget itself, which a resume may change
    searcher = bo(
        config.space,
        initial=search.initial,
        capacity=capacity,
        memory=search.memory,
        acquisition=search.acquisition,
        beta=search.beta,
        fit_steps=search.fit_steps,
        samples=search.samples,
        mutants=search.mutants,
        parents=search.parents,
        shortlist=search.shortlist,
        scores=by_place(config.space, as_features([known[name] for name in search.scores])) if search.scores else None,
        start=by_place(config.space, rank_sum([known[name] for name in search.start])) if search.start else None,
    )
    return experiment(problem, searcher, most=capacity, known_scores=in_rows(config.space, known) if known else None)
