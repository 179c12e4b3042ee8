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

from nasjax.building.problem import Problem
from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, SearchConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import msr_darts
from nasjax.learners.derivation import every_edge
from nasjax.learners.msr_darts import OPERATORS, Score
from nasjax.learners.search_layout import search_layout
from nasjax.nets.darts_search import darts_search
from nasjax.spaces.darts_cell import DartsCell
from nasjax.spaces.darts_plan import SearchPlan
from nasjax.train.objective import objective
from nasjax.train.recipe import Recipe
from nasjax.types import Experiment, Signature

PUBLISHED = {
    "dataset": "cifar10",
    "train": 50_000,
    "model": "MSR-DARTS, 8 cells of 36 channels",
    "params": 1_630_000,
    "test_error": 0.0284,
    "source": "Machida et al. 2021 (JSAI), Table 1",
}


@dataclass(frozen=True)
class MsrDartsConfig(SearchConfig):
    """The article's choices; score has the authors' code's (docs/methods/msr_darts.md)."""

    batch_size: int = 128
    iterations: int = 5  # of power iteration in each step
    weigh_by_rank: bool = False  # True: softmax(-stable rank) weighs operators, ours: with the mean over cells; else 1
    score: Score = Score()


def configure(name: str, dataset: str | None, space: str | None) -> LearnConfig:
    """The preset `name` for a data set and a space. A fifth of the images validates."""
    demo = MsrDartsConfig(channels=8, layers=3, epochs=8, batch_size=32)
    paper = MsrDartsConfig(layers=14) if dataset == "imagenet" else MsrDartsConfig()
    searches = {"demo": demo, "paper": paper}
    return base.preset(
        "msr_darts", name, dataset, space, searches, valid_part=0.2, layers=8, imagenet=_imagenet_recipe()
    )


def _imagenet_recipe() -> Recipe:
    """The article's 300 epochs and cosine; the release's 10 epochs of warm-up among them; the rest as in DARTS."""
    recipe = base.imagenet_recipe()
    return dataclasses.replace(recipe, epochs=300, schedule="cosine", warmup_epochs=10)


def supernet(config: LearnConfig, signature: Signature) -> SearchPlan:
    """The tables of the search network."""
    return base.search_plan(config, signature, operators=operators_of(config.space))


def operators_of(space: DartsCell) -> tuple[str, ...]:
    """Those of a space that have weights to judge. Raises ValueError where fewer than two have."""
    found = tuple(name for name in OPERATORS if name in space.choices)
    if len(found) < 2 or space.robust == "S1":
        raise ValueError(
            f"msr_darts judges weights, so every edge needs two of {', '.join(OPERATORS)}; leave out space.operators "
            "and space.robust, or search by darts"
        )
    return found


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(supernet(problem.config, problem.signature))


def published(config: LearnConfig) -> dict[str, Any]:
    """The figure to put beside our own."""
    return PUBLISHED


def make(problem: Problem) -> Experiment:
    """MSR-DARTS on a problem."""
    return experiment(problem, parts)


def parts(problem: Problem) -> Learning:
    """Its parts, for those who want the state that a search ends in."""
    search, data = problem.config.search, base.data_of(problem)
    classes, operators = problem.signature.outputs, operators_of(problem.space)
    layout = search_layout(supernet(problem.config, problem.signature))
    network = darts_search(
        channels=search.channels,
        layers=search.layers,
        classes=classes,
        operators=operators,
        dtype=search.dtype,
    )

    def learner() -> Any:
        return msr_darts.msr_darts(
            network,
            layout,
            epochs=search.epochs,
            sgd=search.sgd,
            iterations=search.iterations,
            weigh_by_rank=search.weigh_by_rank,
            score=search.score,
            objective=objective(problem.task),
        )

    return Learning(
        problem=problem,
        stages=base.one_stage(learner, every_edge(operators)),
        batches=data.batches,
        networks=lambda stage, facts: network,
        weights=lambda state: msr_darts.stable_ranks(state.params, layout, search.score),
        choice=lambda state: state.choice,
        derive=lambda stage, facts, state: msr_darts.derive(state, layout, search.score),
        inherit=lambda state: state.best_params,
        facts=data.facts,
    )
