"""PC-DARTS: a part of the channels through the operators, and weights on edges.

Xu et al. 2020, "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search", arXiv:1907.05737.
Command: python -m nasjax.launch --method=pc_darts [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's search took 0.1 GPU-days.
Expected: 2.57 % test error on CIFAR-10 with 3.6M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, Preset, SearchConfig, TrainingConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import pc_darts
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

SPACE = "darts_cell"
PUBLISHED = {
    SPACE: {
        "dataset": "cifar10",
        "train": 50_000,
        "model": "PC-DARTS, 20 cells of 36 channels",
        "params": 3_600_000,
        "test_error": 0.0257,
        "source": "Xu et al. 2020, Table 1",
    },
    (SPACE, LARGE): {
        "dataset": "imagenet",
        "train": 1_281_167,
        "model": "PC-DARTS, searched on ImageNet, 14 cells of 48 channels",
        "params": 5_300_000,
        "test_error": 0.242,
        "test_top5_error": 0.073,
        "source": "Xu et al. 2020, Table 2",
        "baselines": {
            "PC_DARTS_cifar": {
                "model": "PC-DARTS, searched on CIFAR-10, 14 cells of 48 channels",
                "params": 5_300_000,
                "test_error": 0.251,
                "test_top5_error": 0.078,
            }
        },
    },
}


@dataclass(frozen=True)
class PcDartsTraining(TrainingConfig):
    """Sections 3.3 and 4.2 of the paper; the defaults are those for CIFAR-10 (docs/methods/pc_darts.md).

    All settings over the cells of NAS-Bench-201, too: the benchmark has no PC-DARTS, so they are ours there.

    Attributes:
      frozen_epochs: first epochs without the architecture.
      partial: K: one channel in K goes through the operators.
      stopping: when the search ends early.
    """

    batch_size: int = 256
    sgd: Sgd = Sgd(learning_rate=0.1, final_rate=0.0)
    adam: Adam = Adam(learning_rate=6e-4)
    frozen_epochs: int = 15
    partial: int = 4
    stopping: Stopping = Stopping()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.partial < 1:
            raise ValueError(f"partial must be at least 1, got {self.partial}")
        if not 0 <= self.frozen_epochs <= self.epochs:
            raise ValueError(f"frozen_epochs must be 0..{self.epochs} (epochs), got {self.frozen_epochs}")


@dataclass(frozen=True)
class PcDartsConfig(PcDartsTraining, SearchConfig):
    """The same over `darts_cell`; section 3.2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % self.partial:
            raise ValueError(f"partial must divide the {self.channels} channels, got {self.partial}")


# Section 4.2.
RECIPE = Recipe(
    epochs=600,
    batch_size=96,
    learning_rate=0.025,
    nesterov=False,
    weight_decay=3e-4,
    schedule="cosine",
    clip=5.0,
    drop_path=0.3,
    auxiliary_weight=0.4,
    augment=Augment(cutout=16),
)
# Section 4.3, the mobile setting: the rate falls in a line with a flatter end, after five epochs of warm-up.
# Images as in the release's train_imagenet.py: RandomResizedCrop(224), mirrored, ColorJitter(0.4, 0.4, 0.4, 0.2).
IMAGENET = Recipe(
    epochs=250,
    batch_size=1024,
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
SEARCH = PcDartsConfig(
    epochs=50,
    batch_size=256,
    sgd=Sgd(learning_rate=0.1, final_rate=0.0, momentum=0.9, weight_decay=3e-4),
    adam=Adam(learning_rate=6e-4, weight_decay=1e-3),
    channels=16,
    layers=8,
    frozen_epochs=15,
    partial=4,
)
# Section 4.3 and the authors' code: a tenth of the images for the weights, a fortieth for the architecture.
# Images of both as in its train_search_imagenet.py: RandomResizedCrop(224) and mirrored, without jitter.
SEARCH_ON_IMAGENET = PcDartsConfig(
    epochs=50,
    batch_size=1024,
    sgd=Sgd(learning_rate=0.5, final_rate=0.0, warmup_epochs=5, momentum=0.9, weight_decay=3e-4),
    adam=Adam(learning_rate=6e-3, weight_decay=1e-3, clip=5.0),
    channels=16,
    layers=8,
    stem="imagenet_wide",
    frozen_epochs=35,
    partial=2,
)
PRESETS = {
    ("demo", SPACE): Preset(
        PcDartsConfig(channels=8, layers=3, epochs=8, batch_size=32, frozen_epochs=2, sgd=Sgd(final_rate=0.0)),
        SMALL,
        base.DEMO_RECIPE,
    ),
    ("paper", SPACE): Preset(SEARCH, EvalConfig(channels=36, layers=20), RECIPE, part="all"),
    ("paper", SPACE, LARGE): Preset(
        SEARCH_ON_IMAGENET,
        EvalConfig(channels=48, layers=14, stem="imagenet"),
        IMAGENET,
        valid_part=0.025,
        train_part=0.1,
        part="all",
        own_augment=True,
        augment=Augment(crop="resized"),
    ),
    ("demo", "tabular_cell"): Preset(
        PcDartsTraining(epochs=8, batch_size=32, frozen_epochs=2, sgd=Sgd(final_rate=0.0)),
        TabularForm(channels=8, cells=1),
        base.DEMO_RECIPE,
    ),
    ("paper", "tabular_cell"): Preset(PcDartsTraining(), TabularForm(), None, part="all"),
}


def configure(given: Given) -> LearnConfig:
    """A preset for a space and a data set."""
    return base.preset("pc_darts", given, PRESETS)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(base.mixture(problem, partial=problem.config.search.partial))


def make(problem: Problem) -> Experiment:
    """PC-DARTS on a problem."""
    return experiment(problem, parts)


def parts(problem: Problem) -> Learning:
    """Its parts, for those who want the state that a search ends in."""
    search, data = problem.config.search, base.data_of(problem)
    found = base.mixture(problem, partial=search.partial)

    def learner(network: Network) -> Learner:
        return pc_darts.pc_darts(
            network,
            epochs=search.epochs,
            frozen_epochs=search.frozen_epochs,
            sgd=search.sgd,
            adam=search.adam,
            operators=found.operators,
            edges=found.edges,
            objective=objective(problem.task),
            accumulate=search.accumulate,
        )

    weights, scores = (partial(of, edges=found.edges) for of in (pc_darts.probabilities, pc_darts.scores))
    relaxation = pc_darts.edge_relaxation(found.operators, found.edges)
    return base.mixed(data, found, learner, relaxation, weights, scores, search.stopping)
