"""ASHA: every candidate is trained briefly, and the best of each rung go on; any sampler chooses the candidates.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934, section 3.2.
Command: python -m nasjax.launch --method=asha [--set search.sampler=bo]
Minutes: demo about 1 on two CPU cores. Expected: no published number over these spaces.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from nasjax.evaluators.fidelities import parsed
from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.candidates_run import experiment
from nasjax.experiments.reinforce import ReinforceConfig
from nasjax.experiments.reinforce import searcher as controller
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.searchers.aging import aging
from nasjax.searchers.asha import asha, beside_first, geometric, metrics
from nasjax.searchers.bo import bo
from nasjax.searchers.random import random_search
from nasjax.types import Experiment, Searcher

SPACE = "conv_chain"


@dataclass(frozen=True)
class AshaConfig:
    """Rungs, and what chooses new architectures.

    Attributes:
      sampler: "random" (the paper), "bo", "evolution" (aging) or "reinforce"; with that method's published settings.
      initial: architectures that are random before bo or evolution chooses, of evolution the population; None = its
        own, 10 and 100.
      eta: the best 1/eta of a rung go on.
      min_epochs: of the lowest rung; each further one has eta times as many, and the last all of `recipe.epochs`.
      rungs: epochs in all of every rung, instead of min_epochs; () = by min_epochs, on a table those that it has.
    """

    sampler: Literal["random", "bo", "evolution", "reinforce"] = "random"
    initial: int | None = None
    eta: int = 4
    min_epochs: int = 1
    rungs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.initial is not None and self.sampler not in ("bo", "evolution"):
            raise ValueError(f"initial has no effect with sampler={self.sampler}; leave it out")
        if self.initial is not None and self.initial < 1:
            raise ValueError(f"initial must be at least 1, got {self.initial}")
        if self.rungs and self.min_epochs != 1:
            raise ValueError("min_epochs has no effect beside rungs, whose first is that; leave it out")


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set."""
    config = base.preset("asha", given, demo=AshaConfig(eta=2), paper=AshaConfig())
    return dataclasses.replace(config, width=1)  # a promotion may be due after every result


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect shows without --arch."""
    return base.described(problem)


def _rungs(problem: Problem) -> tuple[int, ...]:
    """Epochs in all of every rung. Raises ValueError where they do not fit the training or the table."""
    search = problem.config.search
    if problem.looked_up:
        return _rungs_of_table(problem.config)
    epochs = problem.config.recipe.epochs
    if not search.rungs:
        return geometric(search.min_epochs, epochs, search.eta)
    if search.rungs[-1] != epochs:
        raise ValueError(
            f"the last of search.rungs={search.rungs} must be all epochs of a training; write --set "
            f"recipe.epochs={search.rungs[-1]}, or end the rungs with {epochs}"
        )
    return tuple(search.rungs)


def _rungs_of_table(config: Any) -> tuple[int, ...]:
    """Those of `table.fidelities`, or some of them that follow each other: a promotion pays from the next lower one."""
    search, epochs = config.search, tuple(one.epochs for one in parsed(config.table.fidelities))
    if search.min_epochs != 1:
        raise ValueError("search.min_epochs has no effect with a table, whose fidelities are the rungs; leave it out")
    if len(epochs) < 2:
        raise ValueError(
            "asha needs the results of trainings of several lengths; name their columns: --set "
            "table.fidelities=12:FITNESS:COST,200:FITNESS:COST"
        )
    rungs = tuple(search.rungs) or epochs
    if rungs not in [epochs[a:b] for a in range(len(epochs)) for b in range(a + 1, len(epochs) + 1)]:
        raise ValueError(
            f"search.rungs={','.join(map(str, rungs))} must be fidelities of the table, {', '.join(map(str, epochs))}, "
            "none left out between them; leave search.rungs out, or name fewer in table.fidelities"
        )
    return rungs


def sampler(problem: Problem, capacity: int) -> Searcher:
    """What chooses new architectures."""
    search, space = problem.config.search, problem.space
    match search.sampler:
        case "random":
            return random_search(space)
        case "bo":
            return bo(space, initial=search.initial or 10, capacity=capacity)
        case "evolution":
            return aging(space, population=search.initial or 100)
        case _:
            return controller(Problem(dataclasses.replace(problem.config, search=ReinforceConfig())))


def make(problem: Problem) -> Experiment:
    """ASHA on a problem."""
    config = problem.config
    capacity = max(config.trials or 0, 10_000)  # not the budget itself, which a resume may change
    rungs, eta = _rungs(problem), config.search.eta
    searcher = asha(sampler(problem, capacity), config.space, rungs=rungs, eta=eta, capacity=capacity)
    # A trial of a lower rung may be promoted as long as the search goes on.
    return experiment(
        problem,
        searcher,
        metrics,
        kept=config.trials,
        most=capacity,
        continued=True,
        beside_first=beside_first(rungs, eta),
    )
