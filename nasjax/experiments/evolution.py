"""Aging evolution: the oldest member leaves, however good it is; parents win a tournament.

Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", arXiv:1802.01548, section 3; over
graphs for segmentation by default.
Command: python -m nasjax.launch --method=evolution [--space=conv_chain]
Minutes: demo about 2 on two CPU cores. Expected: on NAS-Bench-201 93.92 +- 0.30 % test accuracy (Dong & Yang 2020).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.candidates_run import experiment
from nasjax.experiments.families.limits import limited
from nasjax.experiments.families.prefilter import best_random, require_images
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.runtime.inline import within
from nasjax.searchers.aging import aging
from nasjax.store.checkpoint import RunError
from nasjax.types import Experiment, Outcome, Runtime, Watch

SPACE = "resolution_graph"


@dataclass(frozen=True)
class EvolutionConfig:
    """Sizes of the evolution.

    Attributes:
      population: members; so many trials are random at first.
      sample_size: of the tournament.
      ages: False = the paper's variant in which the worst of a sample leaves.
      prefilter: part of the random candidates that the run's scores (none given: NASWOT's) drop before any is
        trained; 0 = none.
    """

    population: int = 100
    sample_size: int = 25
    ages: bool = True
    prefilter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.prefilter < 1:
            raise ValueError(f"prefilter must be a part of all, from 0 to below 1 (0.2, say); got {self.prefilter}")


# What the blog article says of its evolution over segmentation graphs, beside the space's limits of parameters:
# epochs of a candidate, epochs of its baseline, by which we train the best too, and that candidates are judged on the
# test part, which is larger for it. How large is ours (data.seed_protocol), and so is all else that it does not say.
ARTICLE = "article"
_POPULATION, _EPOCHS, _LAST_EPOCHS = 100, 120, 240


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set."""
    if given.space == SPACE:
        given.known("demo", "paper", ARTICLE)
    demo = EvolutionConfig(population=6, sample_size=3)
    as_paper = given._replace(preset="paper") if (given.space, given.preset) == (SPACE, ARTICLE) else given
    config = base.preset("evolution", as_paper, demo=demo, paper=EvolutionConfig())
    if given.preset == "demo" and given.space == SPACE:
        config = dataclasses.replace(config, trials=16, recipe=dataclasses.replace(config.recipe, epochs=3))
    if as_paper is not given:
        config = dataclasses.replace(
            config,
            preset=ARTICLE,
            search=EvolutionConfig(population=_POPULATION),
            data=dataclasses.replace(config.data, seed_protocol=True),
            recipe=dataclasses.replace(config.recipe, epochs=_EPOCHS),
            retrain_recipe=dataclasses.replace(config.retrain_recipe, epochs=_LAST_EPOCHS),
        )
    # A population changes with every result, so a candidate waits for no other.
    return dataclasses.replace(config, width=1, inherit=given.builder.inherit is not None)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect shows without --arch."""
    return base.described(problem)


def make(problem: Problem) -> Experiment:
    """The evolution on a problem."""
    config, search = problem.config, problem.config.search
    space = limited(problem)

    def evolution(first: np.ndarray | None = None) -> Experiment:
        searcher = aging(
            space, population=search.population, sample_size=search.sample_size, ages=search.ages, first=first
        )
        return experiment(problem, searcher, kept=search.population, drawn=space)

    def filtered(path: Path, watch: Watch, runtime: Runtime | None = None) -> Outcome:
        try:
            chosen = functools.partial(best_random, problem, space, search.prefilter, search.population, path, watch)
            first = within(config.wall_s, chosen)
        except TimeoutError as error:
            raise RunError(f"scoring random candidates {error} (wall_s); one may hang while it is built") from error
        return evolution(first).run(path, watch, runtime)

    if not search.prefilter:
        return evolution()
    require_images(problem)
    return evolution()._replace(run=filtered, searcher=None)
