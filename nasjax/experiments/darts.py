"""DARTS: a softmax over operators, architecture and weights in turn.

Liu et al. 2019, "DARTS: Differentiable Architecture Search", arXiv:1806.09055, sections 2 and 3.
Command: python -m nasjax.launch --method=darts [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's search took 1 GPU-day (second order, four searches 4).
Expected: 2.76 +- 0.09 % test error on CIFAR-10 with 3.3M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, Preset, SearchConfig, TrainingConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import architecture_gradient, darts
from nasjax.learners.descent import Adam
from nasjax.learners.stopping import Stopping
from nasjax.problem.builders.darts_cell import SMALL, EvalConfig
from nasjax.problem.builders.tabular_cell import TabularForm
from nasjax.problem.given import LARGE, Given
from nasjax.problem.problem import Problem
from nasjax.train.augment import Augment
from nasjax.train.objective import objective
from nasjax.train.recipe import Recipe
from nasjax.train.sgd import Sgd
from nasjax.types import Experiment, Learner, Network

ORDERS = {
    "first": architecture_gradient.first_order,
    "second": architecture_gradient.second_order_difference,
    "exact": architecture_gradient.second_order_exact,
}

SPACE = "darts_cell"
PUBLISHED = {
    SPACE: {
        "dataset": "cifar10",
        "train": 50_000,
        "model": "DARTS, second order, 20 cells of 36 channels",
        "params": 3_300_000,
        "test_error": 0.0276,
        "source": "Liu et al. 2019, Table 1",
    },
    (SPACE, LARGE): {
        "dataset": "imagenet",
        "train": 1_281_167,
        "model": "DARTS, second order, searched on CIFAR-10, 14 cells of 48 channels",
        "params": 4_700_000,
        "test_error": 0.267,
        "test_top5_error": 0.087,
        "source": "Liu et al. 2019, Table 3",
    },
}


@dataclass(frozen=True)
class DartsConfig(SearchConfig):
    """Section 2.3 and appendix A.1.1 of the paper; docs/methods/darts.md.

    Attributes:
      order: of the architecture's gradient: "second" by finite differences, as in the paper; "exact" by a product.
      stopping: when the search ends early.
    """

    order: Literal["first", "second", "exact"] = "second"
    stopping: Stopping = Stopping()


@dataclass(frozen=True)
class DartsOnTabular(TrainingConfig):
    """Over the cells of NAS-Bench-201: settings of the benchmark's code; docs/tabular_cell.md.

    Attributes:
      order, stopping: as of `DartsConfig`: of the architecture's gradient ("second": by finite differences), and when
        the search ends early.
    """

    sgd: Sgd = Sgd(weight_decay=5e-4)
    order: Literal["first", "second", "exact"] = "second"
    stopping: Stopping = Stopping()


# Appendix A.2: the found cell is trained from scratch.
RECIPE = Recipe(
    epochs=600,
    batch_size=96,
    learning_rate=0.025,
    nesterov=False,
    weight_decay=3e-4,
    schedule="cosine",
    clip=5.0,
    drop_path=0.2,
    auxiliary_weight=0.4,
    augment=Augment(cutout=16),
)
# Appendix A.2.3, the mobile setting; images as in the release's train_imagenet.py: RandomResizedCrop(224), mirrored,
# ColorJitter(0.4, 0.4, 0.4, 0.2).
IMAGENET = Recipe(
    epochs=250,
    batch_size=128,
    learning_rate=0.1,
    nesterov=False,
    weight_decay=3e-5,
    schedule="exponential",
    rate_decay=0.97,
    clip=5.0,
    auxiliary_weight=0.4,
    label_smoothing=0.1,
    augment=Augment(crop="resized", jitter=(0.4, 0.4, 0.4, 0.2)),
)
# Appendix A.1.1.
SEARCH = DartsConfig(
    epochs=50,
    batch_size=64,
    sgd=Sgd(
        learning_rate=0.025, final_rate=0.0, momentum=0.9, weight_decay=3e-4, clip=5.0
    ),  # to 0; the code stops at 0.001
    adam=Adam(learning_rate=3e-4, b1=0.5, b2=0.999, weight_decay=1e-3),
    channels=16,
    layers=8,
    order="second",
)
PRESETS = {
    ("demo", SPACE): Preset(
        DartsConfig(channels=8, layers=3, epochs=8, batch_size=32, order="first"), SMALL, base.DEMO_RECIPE
    ),
    ("paper", SPACE): Preset(SEARCH, EvalConfig(channels=36, layers=20), RECIPE, part="all"),
    ("paper", SPACE, LARGE): Preset(
        dataclasses.replace(SEARCH, stem="imagenet"),
        EvalConfig(channels=48, layers=14, stem="imagenet"),
        IMAGENET,
        part="all",
        own_augment=True,
    ),
    ("demo", "tabular_cell"): Preset(
        DartsOnTabular(epochs=8, batch_size=32, order="first"), TabularForm(channels=8, cells=1), base.DEMO_RECIPE
    ),
    ("paper", "tabular_cell"): Preset(DartsOnTabular(), TabularForm(), None, part="all"),
}


def configure(given: Given) -> LearnConfig:
    """A preset for a space and a data set."""
    return base.preset("darts", given, PRESETS)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(base.mixture(problem))


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
            accumulate=search.accumulate,
        )

    relaxation = darts.softmax_relaxation(found.operators, found.edges)
    return base.mixed(data, found, learner, relaxation, darts.probabilities, darts.probabilities, search.stopping)
