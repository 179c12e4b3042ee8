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
from nasjax.learners import architecture_gradient, darts
from nasjax.nets.darts_search import darts_search
from nasjax.spaces.darts_plan import SearchPlan

ORDERS = {
    "first": architecture_gradient.first_order,
    "second": architecture_gradient.second_order_difference,
    "exact": architecture_gradient.second_order_exact,
}


@dataclass(frozen=True)
class DartsConfig(SearchConfig):
    """Spec section 2."""

    order: Literal["first", "second", "exact"] = "second"  # second: finite differences, the paper's; exact: a product


def configure(name: str, dataset: str | None, space: str | None) -> LearnConfig:
    """The preset `name` for a data set and a space."""
    demo = DartsConfig(channels=8, layers=3, epochs=8, batch_size=32, order="first")
    return base.preset("darts", name, dataset, space, {"demo": demo, "paper": DartsConfig()})


def supernet(config: LearnConfig, image: tuple[int, int, int], classes: int) -> SearchPlan:
    """The tables of the search network."""
    return base.search_plan(config, image, classes)


def make(config: LearnConfig) -> Learning:
    """DARTS on the data of `config`."""
    search: DartsConfig = config.search
    batches, facts, classes = base.data_of(config)
    network = darts_search(channels=search.channels, layers=search.layers, classes=classes, dtype=search.dtype)

    def learner() -> Any:
        return darts.darts(
            network,
            epochs=search.epochs,
            sgd=search.sgd,
            adam=search.adam,
            architecture_gradient=ORDERS[search.order],
        )

    return Learning(
        config,
        base.one_stage(learner),
        batches,
        lambda stage, facts: network,
        darts.probabilities,
        darts.probabilities,
        lambda stage, facts, state: darts.derive(state),
        lambda state: state.params,
        facts,
    )
