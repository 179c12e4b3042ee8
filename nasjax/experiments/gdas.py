"""GDAS: an operator per edge is drawn in every pass, by a Gumbel-softmax that gets sharper.

Dong & Yang 2019, "Searching for a Robust Neural Architecture in Four GPU Hours", arXiv:1910.04465, section 3.
Command: python -m nasjax.launch --method=gdas [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's search took 0.21 GPU-days.
Expected: 2.93 % test error on CIFAR-10 with 3.4M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nasjax.experiments.darts import IMAGENET, RECIPE
from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, Preset, SearchConfig, TrainingConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import darts, gdas
from nasjax.learners.descent import Adam
from nasjax.problem.builders.darts_cell import SMALL, EvalConfig
from nasjax.problem.builders.tabular_cell import TabularForm
from nasjax.problem.given import LARGE, Given
from nasjax.problem.problem import Problem
from nasjax.train.objective import objective
from nasjax.train.sgd import Sgd
from nasjax.types import Experiment, Learner, Network

SPACE = "darts_cell"
PUBLISHED = {
    SPACE: {
        "dataset": "cifar10",
        "train": 50_000,
        "model": "GDAS, 20 cells of 36 channels",
        "params": 3_400_000,
        "test_error": 0.0293,
        "source": "Dong & Yang 2019, Table 1",
    }
}


@dataclass(frozen=True)
class GdasTraining(TrainingConfig):
    """Over the cells of NAS-Bench-201: settings of the benchmark's code; docs/methods/gdas.md.

    Its published figure there: 93.61 +- 0.09 % true test accuracy (Dong & Yang 2020, arXiv:2001.00326, Table 5).

    Attributes:
      tau: temperature in the first and in the last epoch.
    """

    epochs: int = 240
    sgd: Sgd = Sgd(weight_decay=5e-4)
    tau: tuple[float, float] = gdas.TAU

    def __post_init__(self) -> None:
        super().__post_init__()
        gdas.gumbel_relaxation(0, tau=self.tau)  # refuses mistakes


@dataclass(frozen=True)
class GdasConfig(GdasTraining, SearchConfig):
    """The same over `darts_cell`: 8 cells of 16 channels."""

    epochs: int = 250
    batch_size: int = 256


SEARCH = GdasConfig(
    epochs=250,
    batch_size=256,
    sgd=Sgd(learning_rate=0.025, final_rate=0.001, momentum=0.9, weight_decay=5e-4),
    adam=Adam(learning_rate=3e-4, weight_decay=1e-3),
    channels=16,
    layers=8,
    tau=(10.0, 0.1),
)
PRESETS = {  # the found cell is trained as that of DARTS
    ("demo", SPACE): Preset(GdasConfig(channels=8, layers=3, epochs=8, batch_size=32), SMALL, base.DEMO_RECIPE),
    ("paper", SPACE): Preset(SEARCH, EvalConfig(channels=36, layers=20), RECIPE, part="all"),
    ("paper", SPACE, LARGE): Preset(
        dataclasses.replace(SEARCH, stem="imagenet"),
        EvalConfig(channels=48, layers=14, stem="imagenet"),
        IMAGENET,
        part="all",
        own_augment=True,
    ),
    ("demo", "tabular_cell"): Preset(
        GdasTraining(epochs=8, batch_size=32), TabularForm(channels=8, cells=1), base.DEMO_RECIPE
    ),
    ("paper", "tabular_cell"): Preset(GdasTraining(), TabularForm(), None, part="all"),
}


def configure(given: Given) -> LearnConfig:
    """A preset for a space and a data set."""
    return base.preset("gdas", given, PRESETS)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(base.mixture(problem))


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
            accumulate=search.accumulate,
        )

    relaxation = gdas.gumbel_relaxation(found.operators, found.edges, epochs=search.epochs, tau=search.tau)
    return base.mixed(data, found, learner, relaxation, darts.probabilities, darts.probabilities)
