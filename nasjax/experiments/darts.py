"""DARTS: a softmax over operators, architecture and weights in turn.

Liu et al. 2019, "DARTS: Differentiable Architecture Search", arXiv:1806.09055, sections 2 and 3.
Command: python -m nasjax.launch --method=darts [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's search took 1 GPU-day (second order, four searches 4).
Expected: 2.76 +- 0.09 % test error on CIFAR-10 with 3.3M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nasjax.building.problem import Problem
from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, SearchConfig, TrainingConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import architecture_gradient, darts
from nasjax.learners.descent import Sgd
from nasjax.learners.stopping import Stopping
from nasjax.train.objective import objective
from nasjax.types import Experiment, Learner, Network

ORDERS = {
    "first": architecture_gradient.first_order,
    "second": architecture_gradient.second_order_difference,
    "exact": architecture_gradient.second_order_exact,
}


PUBLISHED = {
    "dataset": "cifar10",
    "train": 50_000,
    "model": "DARTS, second order, 20 cells of 36 channels",
    "params": 3_300_000,
    "test_error": 0.0276,
    "source": "Liu et al. 2019, Table 1",
}


@dataclass(frozen=True)
class DartsConfig(SearchConfig):
    """Section 2.3 and appendix A.1.1 of the paper; docs/methods/darts.md."""

    order: Literal["first", "second", "exact"] = "second"  # second: finite differences, the paper's; exact: a product
    stopping: Stopping = Stopping()


@dataclass(frozen=True)
class DartsOnTabular(TrainingConfig):
    """Over the cells of NAS-Bench-201: settings of the benchmark's code; docs/tabular_cell.md."""

    sgd: Sgd = Sgd(weight_decay=5e-4)
    order: Literal["first", "second", "exact"] = "second"
    stopping: Stopping = Stopping()


def configure(name: str, dataset: str | None, space: str | None) -> LearnConfig:
    """The preset `name` for a data set and a space."""
    demo = DartsConfig(channels=8, layers=3, epochs=8, batch_size=32, order="first")
    tabular = {"demo": DartsOnTabular(epochs=8, batch_size=32, order="first"), "paper": DartsOnTabular()}
    return base.preset("darts", name, dataset, space, {"demo": demo, "paper": DartsConfig()}, tabular=tabular)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(base.mixture(problem))


def published(config: LearnConfig) -> dict[str, Any] | None:
    """The figure to put beside our own."""
    return PUBLISHED if config.form is None else None


def make(problem: Problem) -> Experiment:
    """DARTS on a problem."""
    return experiment(problem, parts)


def parts(problem: Problem) -> Learning:
    """Its parts, for those who want the state that a search ends in."""
    search, data = problem.config.search, base.data_of(problem)
    found = base.mixture(problem)

    def learner(network: Network) -> Learner:
        return darts.darts(
            network,
            epochs=search.epochs,
            sgd=search.sgd,
            adam=search.adam,
            architecture_gradient=ORDERS[search.order],
            operators=found.operators,
            edges=found.edges,
            objective=objective(problem.task),
        )

    relaxation = darts.softmax_relaxation(found.operators, found.edges)
    return base.mixed(data, found, learner, relaxation, darts.probabilities, darts.probabilities, search.stopping)
