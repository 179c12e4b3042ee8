"""A recurrent controller trained with REINFORCE over convolutional networks.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", arXiv:1611.01578, sections 3 and 4.1.
Command: python -m nasjax.launch --method=reinforce [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's 12,800 children took 800 GPUs (spec section 5).
Expected: the published v1 network has 4.2M parameters and 5.50 % test error on CIFAR-10; the demo shows the machine,
not learning.
"""

from __future__ import annotations

from dataclasses import dataclass

from nasjax.experiments.base import Config, Experiment, preset, problem
from nasjax.searchers.reinforce import depth_schedule, metrics, reinforce

DEFAULTS = {"space": "conv_chain", "dataset": "digits"}


@dataclass(frozen=True)
class ReinforceConfig:
    """Spec sections 3 and 4; the defaults are the paper's where it states a value."""

    policy: str = "lstm"  # lstm | independent (a table of logits)
    learning_rate: float = 6e-4
    samples_per_update: int = 8  # the paper's m
    baseline_decay: float = 0.95  # ours; the paper does not state it
    entropy_weight: float = 0.0
    depth_first: int = 6
    depth_step: int = 2
    depth_every: int = 1600


def configure(name: str, dataset: str, space: str) -> Config:
    """The preset `name` for a dataset and a space."""
    searches = {"demo": ReinforceConfig(learning_rate=0.01, depth_first=4), "paper": ReinforceConfig()}
    return preset("reinforce", name, dataset, space, searches)


def make(config: Config) -> Experiment:
    """REINFORCE on the problem of `config`."""
    search: ReinforceConfig = config.search
    schedule = depth_schedule(search.depth_first, search.depth_step, search.depth_every, config.space)
    searcher = reinforce(
        config.space,
        policy=search.policy,
        learning_rate=search.learning_rate,
        samples_per_update=search.samples_per_update,
        baseline_decay=search.baseline_decay,
        entropy_weight=search.entropy_weight,
        depth_schedule=schedule,
    )
    return Experiment(config, searcher, problem(config), metrics)
