"""MSR-DARTS: no architecture parameters; operators are chosen by the stable rank of their weights.

Machida et al. 2021, "MSR-DARTS: Minimum Stable Rank of Differentiable Architecture Search" (JSAI 2021;
arXiv:2009.09209).
Command: python -m nasjax.launch --method=msr_darts [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's search took 0.3 GPU-days.
Expected: 2.84 % test error on CIFAR-10 with 1.63M parameters (8 cells); the demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, Preset, SearchConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import msr_darts
from nasjax.learners.mixture import Mixture
from nasjax.learners.msr_darts import OPERATORS, Score
from nasjax.learners.search_layout import search_layout
from nasjax.problem.builders.darts_cell import SMALL, EvalConfig
from nasjax.problem.given import LARGE, Given
from nasjax.problem.problem import Problem
from nasjax.spaces.darts_cell.derivation import every_edge
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
        "model": "MSR-DARTS, 8 cells of 36 channels",
        "params": 1_630_000,
        "test_error": 0.0284,
        "test_loss": 0.124,
        "source": "Machida et al. 2021 (JSAI), Table 1",
    },
    (SPACE, "cells"): {
        "dataset": "cifar10",
        "train": 50_000,
        "model": "MSR-DARTS, 8 cells of 36 channels, each searched for itself",
        "params": 1_650_000,
        "test_error": 0.0280,
        "source": "Machida et al. 2021 (JSAI), section 4.1 (2.84 in Table 2)",
    },
    (SPACE, LARGE): {
        "dataset": "imagenet",
        "train": 1_281_167,
        "model": "MSR-DARTS, searched on ImageNet, 14 cells of 48 channels",
        "params": 6_600_000,
        "test_error": 0.241,
        "test_top5_error": 0.077,
        "source": "Machida et al. 2021 (JSAI), Table 3",
        "baselines": {
            "MSRDARTS": {
                "model": "MSR-DARTS, 14 cells of 48 channels, as its later abstract has them",
                "params": 5_600_000,
                "test_error": 0.239,
                "test_top5_error": None,
                "source": "arXiv:2009.09209, abstract",
            }
        },
    },
}


@dataclass(frozen=True)
class MsrDartsConfig(SearchConfig):
    """The article's choices; score has the authors' code's (docs/methods/msr_darts.md).

    Attributes:
      iterations: of power iteration in each step.
      weigh_by_rank: softmax(-stable rank) weighs the operators, which else count alike; ours: with the mean over cells.
      own_rank: with weigh_by_rank, with the rank of each cell's own edge, as the authors' code does.
      score: how a stable rank is measured.
    """

    batch_size: int = 128
    iterations: int = 5
    weigh_by_rank: bool = False
    own_rank: bool = False
    score: Score = Score()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.own_rank and not self.weigh_by_rank:
            raise ValueError("own_rank says by which ranks operators are weighed; set weigh_by_rank=true as well")


# The article's network has 8 cells; its training is that of DARTS.
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
# The article's 300 epochs and cosine; the release's 10 epochs of warm-up among them; the rest as in DARTS.
# Images as in its train_imagenet_horovod.py: RandomResizedCrop(224), mirrored, ColorJitter(0.4, 0.4, 0.4, 0.2).
IMAGENET = Recipe(
    epochs=300,
    batch_size=128,
    learning_rate=0.1,
    nesterov=False,
    weight_decay=3e-5,
    schedule="cosine",
    warmup_epochs=10,
    clip=5.0,
    auxiliary_weight=0.4,
    label_smoothing=0.1,
    augment=Augment(crop="resized", jitter=(0.4, 0.4, 0.4, 0.2)),
)
SEARCH = MsrDartsConfig(
    epochs=50, batch_size=128, sgd=Sgd(learning_rate=0.025, final_rate=0.001, weight_decay=3e-4), channels=16, layers=8
)
PRESETS = {  # a fifth of the images validates
    ("demo", SPACE): Preset(
        MsrDartsConfig(channels=8, layers=3, epochs=8, batch_size=32), SMALL, base.DEMO_RECIPE, valid_part=0.2
    ),
    ("paper", SPACE): Preset(SEARCH, EvalConfig(channels=36, layers=8), RECIPE, valid_part=0.2, part="all"),
    ("paper", SPACE, LARGE): Preset(
        dataclasses.replace(SEARCH, layers=14, stem="imagenet"),
        EvalConfig(channels=48, layers=14, stem="imagenet"),
        IMAGENET,
        valid_part=0.025,  # the article does not say how large its subset is: PC-DARTS's has its split of 4 to 1
        train_part=0.1,
        part="all",
        own_augment=True,
    ),
}


def configure(given: Given) -> LearnConfig:
    """A preset for a space and a data set."""
    return base.preset("msr_darts", given, PRESETS)


def operators_of(space: Any) -> tuple[str, ...]:
    """The operators with weights to judge that all edges of a space have. Raises ValueError for fewer than two."""
    every = set.intersection(*(set(edge) for cell in space.searched.values() for edge in cell))
    found = tuple(name for name in OPERATORS if name in every)
    if len(found) < 2:
        raise ValueError(
            f"msr_darts judges weights, so every edge needs two of {', '.join(OPERATORS)}; leave out space.operators "
            "and space.robust, or search by darts"
        )
    return found


def network_of(problem: Problem) -> Mixture:
    """The search network. Raises as `operators_of`."""
    return base.mixture(problem, operators=every_edge(operators_of(problem.space)), each_cell=True)


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(network_of(problem))


def make(problem: Problem) -> Experiment:
    """MSR-DARTS on a problem."""
    return experiment(problem, parts)


def parts(problem: Problem) -> Learning:
    """Its parts, for those who want the state that a search ends in."""
    search, data, found = problem.config.search, base.data_of(problem, each_cell=True), network_of(problem)
    network, layout = found.network(search.dtype), search_layout(found.plan)
    each_cell, kinds = bool(problem.space.cells), [cell.kind for cell in found.plan.cells]

    def each(choice: Any) -> Any:
        """The mixing weights, of every cell where cells are derived one by one."""
        if not each_cell or "cell0" in choice:
            return choice
        return {f"cell{k}": choice[kind] for k, kind in enumerate(kinds)}

    def learner() -> Any:
        return msr_darts.msr_darts(
            network,
            layout,
            epochs=search.epochs,
            sgd=search.sgd,
            iterations=search.iterations,
            weigh_by_rank=search.weigh_by_rank,
            own_rank=search.own_rank,
            score=search.score,
            objective=objective(problem.task),
            accumulate=search.accumulate,
        )

    return Learning(
        problem=problem,
        stages=base.one_stage(learner, found.names),
        batches=data.batches,
        networks=lambda stage, facts: network,
        weights=lambda state: msr_darts.stable_ranks(state.params, layout, search.score),
        choice=lambda state: each(state.choice),
        derive=lambda stage, facts, state: msr_darts.derive(state, layout, search.score, each_cell=each_cell),
        inherit=lambda state: state.best_params,
        facts=data.facts,
        discrete=found.discrete,
        written=found.written,
        skips=found.skips,
        lengths=(search.epochs,),
    )
