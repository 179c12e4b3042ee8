"""P-DARTS: three searches, each in a deeper network with fewer operators per edge.

Chen et al. 2019, "Progressive Differentiable Architecture Search", arXiv:1904.12760.
Command: python -m nasjax.launch --method=p_darts [--preset=paper --dataset=cifar10]
Minutes: demo about 2 on two CPU cores; the paper's search took 0.3 GPU-days.
Expected: 2.50 % test error on CIFAR-10 with 3.4M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, Preset, SearchConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import p_darts
from nasjax.learners.descent import Adam
from nasjax.problem.builders.darts_cell import SMALL, EvalConfig
from nasjax.problem.given import LARGE, Given
from nasjax.problem.problem import Problem
from nasjax.spaces.darts_cell.derivation import every_edge
from nasjax.train.augment import Augment
from nasjax.train.objective import objective
from nasjax.train.recipe import Recipe
from nasjax.train.sgd import Sgd
from nasjax.types import Experiment, Network

SPACE = "darts_cell"
PUBLISHED = {
    SPACE: {
        "dataset": "cifar10",
        "train": 50_000,
        "model": "P-DARTS, 20 cells of 36 channels",
        "params": 3_400_000,
        "test_error": 0.0250,
        "source": "Chen et al. 2019, Table 1",
    },
    (SPACE, LARGE): {
        "dataset": "imagenet",
        "train": 1_281_167,
        "model": "P-DARTS, searched on CIFAR-10, 14 cells of 48 channels",
        "params": 4_900_000,
        "test_error": 0.244,
        "test_top5_error": 0.074,
        "source": "Chen et al. 2019",
    },
}


@dataclass(frozen=True)
class PDartsConfig(SearchConfig):
    """Sections 3.2 and 3.3 of the paper (docs/methods/p_darts.md). `layers` is not used: the stages have `depths`.

    The start of `dropout` is 0.0 in the paper and 0.1 in its authors' README.

    Attributes:
      layers: not used.
      epochs: of each stage.
      frozen_epochs: first epochs of each stage without the architecture.
      depths, operators: of each stage: cells of the search network, and operators of an edge.
      dropout: of each stage: after skip connections, at its start.
      max_skips: skip connections that the normal cell may have; None = any number.
    """

    layers: int = 5
    epochs: int = 25
    batch_size: int = 96
    sgd: Sgd = Sgd(final_rate=0.0)
    adam: Adam = Adam(learning_rate=6e-4, clip=5.0)
    frozen_epochs: int = 10
    depths: tuple[int, ...] = (5, 11, 17)
    operators: tuple[int, ...] = (8, 5, 3)
    dropout: tuple[float, ...] = (0.0, 0.4, 0.7)
    max_skips: int | None = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.depths, default=0) < 3:
            raise ValueError(f"depths must be at least 3, got {self.depths}: with fewer no cell is a normal one")
        some = every_edge([str(n) for n in range(max(self.operators, default=0))])  # `make` sees those of the space
        stages(self, lambda depth, operators: Network(lambda: None, lambda: (None, None)), some)  # refuses mistakes
        if not 0 <= self.frozen_epochs <= self.epochs:
            raise ValueError(f"frozen_epochs must be 0..{self.epochs} (epochs), got {self.frozen_epochs}")


def stages(search: PDartsConfig, network: Any, names: Any, **more: Any) -> Any:
    """The learners, on networks made by `network(depth, operators)`; `names` are the first one's by edge."""
    return p_darts.p_darts(
        network,
        depths=search.depths,
        operators=search.operators,
        dropout=search.dropout,
        epochs=search.epochs,
        frozen_epochs=search.frozen_epochs,
        sgd=search.sgd,
        adam=search.adam,
        names=names,
        **more,
    )


# Section 4.2.
RECIPE = Recipe(
    epochs=600,
    batch_size=128,
    learning_rate=0.025,
    nesterov=False,
    weight_decay=3e-4,
    schedule="cosine",
    clip=5.0,
    drop_path=0.3,
    auxiliary_weight=0.4,
    augment=Augment(cutout=16),
)
# PC-DARTS's mobile setting, as in the paper (unverified); the release's rate falls otherwise (docs/deviations.md).
# Images as in its train_imagenet.py: RandomResizedCrop(224), mirrored, ColorJitter(0.4, 0.4, 0.4, 0.2).
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
SEARCH = PDartsConfig(
    epochs=25,
    batch_size=96,
    sgd=Sgd(learning_rate=0.025, final_rate=0.0, momentum=0.9, weight_decay=3e-4, clip=5.0),
    adam=Adam(learning_rate=6e-4, b1=0.5, b2=0.999, weight_decay=1e-3, clip=5.0),
    channels=16,
    frozen_epochs=10,
    depths=(5, 11, 17),
    operators=(8, 5, 3),
    dropout=(0.0, 0.4, 0.7),
    max_skips=2,
)
PRESETS = {
    ("demo", SPACE): Preset(
        PDartsConfig(channels=8, layers=3, epochs=3, batch_size=32, frozen_epochs=1, depths=(3, 3, 4)),
        SMALL,
        base.DEMO_RECIPE,
    ),
    ("paper", SPACE): Preset(SEARCH, EvalConfig(channels=36, layers=20), RECIPE, part="all"),
    ("paper", SPACE, LARGE): Preset(
        dataclasses.replace(SEARCH, stem="imagenet"),
        EvalConfig(channels=48, layers=14, stem="imagenet"),
        IMAGENET,
        part="all",
        own_augment=True,
    ),
}


def configure(given: Given) -> LearnConfig:
    """A preset for a space and a data set."""
    return base.preset("p_darts", given, PRESETS)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says of the first stage's search network."""
    return base.counts(base.mixture(problem, problem.config.search.depths[0]))


def make(problem: Problem) -> Experiment:
    """P-DARTS on a problem."""
    return experiment(problem, parts)


def parts(problem: Problem) -> Learning:
    """Its parts, for those who want the state that a search ends in."""
    search, data = problem.config.search, base.data_of(problem)
    first = base.mixture(problem, search.depths[0])

    def network(depth: int, operators: Any) -> Network:
        return base.mixture(problem, depth, operators=operators).network(search.dtype)

    return Learning(
        problem=problem,
        stages=stages(search, network, first.names, objective=objective(problem.task), accumulate=search.accumulate),
        batches=data.batches,
        networks=lambda stage, facts: network(search.depths[stage], p_darts.edge_operators(facts)),
        weights=p_darts.probabilities,
        choice=p_darts.probabilities,
        derive=lambda stage, facts, state: p_darts.derive(state, facts, max_skips=search.max_skips),
        inherit=lambda state: state.params,
        facts=data.facts,
        discrete=first.discrete,
        written=first.written,
        skips=first.skips,
        lengths=(search.epochs,) * len(search.depths),
    )
