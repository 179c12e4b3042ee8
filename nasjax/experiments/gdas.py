"""GDAS: an operator per edge is drawn in every pass, by a Gumbel-softmax that gets sharper.

Dong & Yang 2019, "Searching for a Robust Neural Architecture in Four GPU Hours", arXiv:1910.04465, section 3.
Command: python -m nasjax.launch --method=gdas [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's search took 0.21 GPU-days.
Expected: 2.93 % test error on CIFAR-10 with 3.4M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasjax.building.problem import Problem
from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, SearchConfig, TrainingConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import darts, gdas
from nasjax.learners.descent import Sgd
from nasjax.train.objective import objective
from nasjax.types import Experiment, Learner, Network

PUBLISHED = {
    "dataset": "cifar10",
    "train": 50_000,
    "model": "GDAS, 20 cells of 36 channels",
    "params": 3_400_000,
    "test_error": 0.0293,
    "source": "Dong & Yang 2019, Table 1",
}


@dataclass(frozen=True)
class GdasTraining(TrainingConfig):
    """Over the cells of NAS-Bench-201: settings of the benchmark's code; docs/methods/gdas.md.

    Its published figure there: 93.61 +- 0.09 % true test accuracy (Dong & Yang 2020, arXiv:2001.00326, Table 5).
    """

    epochs: int = 240
    sgd: Sgd = Sgd(weight_decay=5e-4)
    tau: tuple[float, float] = gdas.TAU  # temperature in the first and in the last epoch

    def __post_init__(self) -> None:
        super().__post_init__()
        gdas.gumbel_relaxation(0, tau=self.tau)  # refuses mistakes


@dataclass(frozen=True)
class GdasConfig(GdasTraining, SearchConfig):
    """The same over `darts_cell`: 8 cells of 16 channels."""

    epochs: int = 250
    batch_size: int = 256


def configure(name: str, dataset: str | None, space: str | None) -> LearnConfig:
    """The preset `name` for a data set and a space."""
    demo = GdasConfig(channels=8, layers=3, epochs=8, batch_size=32)
    tabular = {"demo": GdasTraining(epochs=8, batch_size=32), "paper": GdasTraining()}
    return base.preset("gdas", name, dataset, space, {"demo": demo, "paper": GdasConfig()}, tabular=tabular)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(base.mixture(problem))


def published(config: LearnConfig) -> dict[str, Any] | None:
    """The figure to put beside our own."""
    return PUBLISHED if config.form is None else None


def make(problem: Problem) -> Experiment:
    """GDAS on a problem."""
    return experiment(problem, parts)


def parts(problem: Problem) -> Learning:
    """Its parts, for those who want the state that a search ends in."""
    search, data = problem.config.search, base.data_of(problem)
    found = base.mixture(problem)

    def learner(network: Network) -> Learner:
        return gdas.gdas(
            network,
            epochs=search.epochs,
            tau=search.tau,
            sgd=search.sgd,
            adam=search.adam,
            operators=found.operators,
            edges=found.edges,
            objective=objective(problem.task),
        )

    relaxation = gdas.gumbel_relaxation(found.operators, found.edges, epochs=search.epochs, tau=search.tau)
    return base.mixed(data, found, learner, relaxation, darts.probabilities, darts.probabilities)
