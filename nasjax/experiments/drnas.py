"""DrNAS: mixing weights drawn from Dirichlet distributions; a second stage has fewer operators and more channels.

Chen et al. 2021, "DrNAS: Dirichlet Neural Architecture Search", arXiv:2006.10355.
Command: python -m nasjax.launch --method=drnas [--preset=paper --dataset=cifar10]
Minutes: demo about 2 on two CPU cores; the paper's search took 0.6 GPU-days.
Expected: 2.46 +- 0.03 % test error on CIFAR-10 with 4.1M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, Preset, SearchConfig, TrainingConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import drnas
from nasjax.learners.descent import Adam
from nasjax.problem.builders.darts_cell import SMALL, EvalConfig
from nasjax.problem.builders.tabular_cell import TabularForm
from nasjax.problem.given import LARGE, Given
from nasjax.problem.problem import Problem
from nasjax.spaces.darts_cell.space import DartsCell
from nasjax.train.augment import Augment
from nasjax.train.objective import objective
from nasjax.train.recipe import Recipe
from nasjax.train.sgd import Sgd
from nasjax.types import Experiment

SPACE = "darts_cell"
PUBLISHED = {
    SPACE: {
        "dataset": "cifar10",
        "train": 50_000,
        "model": "DrNAS, 20 cells of 36 channels",
        "params": 4_100_000,
        "test_error": 0.0246,
        "source": "Chen et al. 2021, Table 1",
    },
    (SPACE, LARGE): {
        "dataset": "imagenet",
        "train": 1_281_167,
        "model": "DrNAS, searched on ImageNet, 14 cells of 48 channels",
        "params": 5_700_000,
        "test_error": 0.237,
        "source": "xiangning-chen/DrNAS, README",
    },
}


@dataclass(frozen=True)
class DrnasTraining(TrainingConfig):
    """Over the cells of NAS-Bench-201: settings of the release; docs/methods/drnas.md.

    Its published figure there: 94.36 +- 0.00 % true test accuracy (Chen et al. 2021; the release's README).

    Attributes:
      epochs: of each stage.
      frozen_epochs: first epochs of each stage without the architecture.
      partial: K of each stage: one channel in K goes through the operators.
      operators: how many an edge has in each stage.
    """

    epochs: int = 50
    frozen_epochs: int = 10
    partial: tuple[int, ...] = (4, 2)
    operators: tuple[int, ...] = (5, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.partial) != len(self.operators):
            raise ValueError(f"give every stage a K and operators, got {self.partial} and {self.operators}")
        if list(self.partial) != sorted(self.partial, reverse=True) or min(self.partial, default=0) < 1:
            raise ValueError(f"partial must fall to at least 1, got {self.partial}: channels grow from stage to stage")
        if not 0 <= self.frozen_epochs <= self.epochs:
            raise ValueError(f"frozen_epochs must be 0..{self.epochs} (epochs), got {self.frozen_epochs}")


@dataclass(frozen=True)
class DrnasConfig(DrnasTraining, SearchConfig):
    """The same over `darts_cell`, whose edges have no `none` there: CIFAR-10 settings of the release."""

    channels: int = 36
    layers: int = 20
    epochs: int = 25
    sgd: Sgd = Sgd(learning_rate=0.1, final_rate=0.0)
    adam: Adam = Adam(learning_rate=6e-4)
    partial: tuple[int, ...] = (6, 4)
    operators: tuple[int, ...] = (7, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(self.channels % partial for partial in self.partial):
            raise ValueError(f"partial must divide the {self.channels} channels, got {self.partial}")


RECIPE = Recipe(
    epochs=600,
    batch_size=64,
    learning_rate=0.025,
    nesterov=False,
    weight_decay=3e-4,
    schedule="cosine",
    clip=5.0,
    drop_path=0.3,
    auxiliary_weight=0.4,
    augment=Augment(cutout=16),
)
# Images as in the release's train_imagenet.py: RandomResizedCrop(224), mirrored, ColorJitter(0.4, 0.4, 0.4, 0.2).
IMAGENET = Recipe(
    epochs=250,
    batch_size=768,
    learning_rate=0.5,
    nesterov=False,
    weight_decay=3e-5,
    schedule="linear_tail",
    warmup_epochs=5,
    clip=5.0,
    auxiliary_weight=0.4,
    label_smoothing=0.1,
    augment=Augment(crop="resized", jitter=(0.4, 0.4, 0.4, 0.2)),
)
SEARCH = DrnasConfig(
    epochs=25,
    batch_size=64,
    sgd=Sgd(learning_rate=0.1, final_rate=0.0, momentum=0.9, weight_decay=3e-4),
    adam=Adam(learning_rate=6e-4, weight_decay=1e-3),
    channels=36,
    layers=20,
    frozen_epochs=10,
    partial=(6, 4),
    operators=(7, 4),
)
# The release's train_search_imagenet.py: PC-DARTS's parts of the images, and its stem.
SEARCH_ON_IMAGENET = DrnasConfig(
    epochs=25,
    batch_size=512,
    sgd=Sgd(learning_rate=0.5, final_rate=0.0, warmup_epochs=5, momentum=0.9, weight_decay=3e-4),
    adam=Adam(learning_rate=6e-3, weight_decay=1e-3, clip=5.0),
    channels=48,
    layers=14,
    stem="imagenet_wide",
    frozen_epochs=10,
    partial=(6, 3),
    operators=(7, 4),
)
CELLS = DartsCell(none=False)
_SMALL: dict[str, Any] = {"epochs": 4, "batch_size": 32, "frozen_epochs": 1, "partial": (4, 2)}
PRESETS = {
    ("demo", SPACE): Preset(DrnasConfig(channels=8, layers=3, **_SMALL), SMALL, base.DEMO_RECIPE, space=CELLS),
    ("paper", SPACE): Preset(SEARCH, EvalConfig(channels=36, layers=20), RECIPE, part="all", space=CELLS),
    ("paper", SPACE, LARGE): Preset(
        SEARCH_ON_IMAGENET,
        EvalConfig(channels=48, layers=14, stem="imagenet"),
        IMAGENET,
        valid_part=0.025,
        train_part=0.1,
        part="all",
        own_augment=True,
        augment=Augment(crop="resized"),
        space=CELLS,
    ),
    ("demo", "tabular_cell"): Preset(DrnasTraining(**_SMALL), TabularForm(channels=8, cells=1), base.DEMO_RECIPE),
    ("paper", "tabular_cell"): Preset(DrnasTraining(), TabularForm(), None, part="all"),
}


def configure(given: Given) -> LearnConfig:
    """A preset for a space and a data set."""
    return base.preset("drnas", given, PRESETS)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch: the first stage's network."""
    return base.counts(base.mixture(problem, partial=problem.config.search.partial[0]))


def make(problem: Problem) -> Experiment:
    """DrNAS on a problem."""
    return experiment(problem, parts)


def parts(problem: Problem) -> Learning:
    """Its parts, for those who want the state that a search ends in."""
    search, data = problem.config.search, base.data_of(problem)
    mixtures = [base.mixture(problem, partial=partial) for partial in search.partial]
    networks, found = [mixture.network(search.dtype) for mixture in mixtures], mixtures[0]
    stages = drnas.drnas(
        networks,
        operators=search.operators,
        epochs=search.epochs,
        frozen_epochs=search.frozen_epochs,
        sgd=search.sgd,
        adam=search.adam,
        names=found.names,
        edges=found.edges,
        objective=objective(problem.task),
        accumulate=search.accumulate,
    )
    return Learning(
        problem=problem,
        stages=stages,
        batches=data.batches,
        networks=lambda stage, facts: networks[stage],
        weights=drnas.probabilities,
        choice=drnas.probabilities,
        derive=lambda stage, facts, state: found.derive(drnas.probabilities(state)),
        inherit=lambda state: state.params,
        facts=data.facts,
        discrete=found.discrete,
        written=found.written,
        skips=found.skips,
        lengths=(search.epochs,) * len(networks),
    )
