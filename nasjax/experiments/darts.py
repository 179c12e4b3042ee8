"""DARTS: a softmax over operators, architecture and weights in turn.

Liu et al. 2019, "DARTS: Differentiable Architecture Search", arXiv:1806.09055, sections 2 and 3.
Command: python -m nasjax.launch --method=darts [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's search took 1 GPU-day (second order, four searches 4).
Expected: 2.76 +- 0.09 % test error on CIFAR-10 with 3.3M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nasjax.experiments.families import gradients as base
from nasjax.experiments.families.gradients import LearnConfig, Learning, SearchConfig
from nasjax.experiments.families.gradients_run import experiment
from nasjax.learners import architecture_gradient, darts
from nasjax.nets.darts_search import darts_search
from nasjax.spaces.darts_plan import SearchPlan
from nasjax.types import Experiment, Signature

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


def configure(name: str, dataset: str | None, space: str | None) -> LearnConfig:
    """The preset `name` for a data set and a space."""
    demo = DartsConfig(channels=8, layers=3, epochs=8, batch_size=32, order="first")
    return base.preset("darts", name, dataset, space, {"demo": demo, "paper": DartsConfig()})


def supernet(config: LearnConfig, signature: Signature) -> SearchPlan:
    """The tables of the search network."""
    return base.search_plan(config, signature)


def describe(config: LearnConfig, signature: Signature) -> dict[str, Any]:
    """What --mode=inspect says without --arch."""
    return base.counts(supernet(config, signature))


def published(config: LearnConfig) -> dict[str, Any]:
    """The figure to put beside our own."""
    return PUBLISHED


def make(config: LearnConfig) -> Experiment:
    """DARTS on the data of `config`."""
    search: DartsConfig = config.search
    data = base.data_of(config)
    classes = data.signature.outputs
    names = config.space.searched
    network = darts_search(
        channels=search.channels, layers=search.layers, classes=classes, operators=names, dtype=search.dtype
    )

    def learner() -> Any:
        return darts.darts(
            network,
            epochs=search.epochs,
            sgd=search.sgd,
            adam=search.adam,
            architecture_gradient=ORDERS[search.order],
            operators=len(names["normal"][0]),
        )

    return experiment(
        Learning(
            config=config,
            task=data.task,
            signature=data.signature,
            stages=base.one_stage(learner, names),
            batches=data.batches,
            networks=lambda stage, facts: network,
            weights=darts.probabilities,
            choice=darts.probabilities,
            derive=lambda stage, facts, state: darts.derive(state, facts),
            inherit=lambda state: state.params,
            facts=data.facts,
        )
    )
