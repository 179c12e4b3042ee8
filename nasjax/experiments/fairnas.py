"""FairNAS: every step trains every operator of every layer once; NSGA-II over accuracy, multiply-adds and parameters.

Chu et al. 2021, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing NAS", arXiv:1907.01845.
Command: python -m nasjax.launch --method=fairnas [--dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's supernet about 10 GPU-days, its search 2 (unverified).
Expected: FairNAS-A 75.3 % top-1 on ImageNet at 388M multiply-adds, which cannot be run here: no ImageNet data. The demo
shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nasjax.experiments.families import supernets as base
from nasjax.experiments.families import supernets_run
from nasjax.experiments.families.supernets import EvolutionConfig, OneShotConfig, SupernetConfig
from nasjax.learners.one_shot_update import Descent
from nasjax.spaces.choice_chain import ChoiceChain

make = supernets_run.make
describe = base.describe


def published(config: OneShotConfig) -> dict[str, Any] | None:
    """The figure to put beside our own; ImageNet."""
    if not isinstance(config.space, ChoiceChain):
        return None
    return {
        "dataset": "imagenet",
        "model": "FairNAS-A",
        "params": 4_600_000,
        "test_error": 0.247,
        "source": "the authors' repository",
    }


def configure(name: str, dataset: str | None, space: str | None) -> OneShotConfig:
    """The preset `name` for a data set and a space.

    The paper's supernet: 150 epochs, rate 0.045, cosine; its batch of 256 and the search's settings are not verified.
    Six gradients are added up in a step, so the demo's rate is a sixth of that of SPOS (ours). How the found path was
    trained is not known: ours is the supernet's recipe, with decay on kernels only as in the other releases, and the
    network's dropout.
    """
    descent = Descent(rate=0.1 / 6, schedule="cosine", label_smoothing=0.0)
    demo = SupernetConfig(epochs=8, batch_size=64, descent=descent, sampler="strict", affine=True, dropout=0.0)
    paper = dataclasses.replace(
        demo, epochs=150, batch_size=256, descent=dataclasses.replace(descent, rate=0.045), dropout=0.2
    )
    searches: dict[str, Any] = {
        "demo": dataclasses.replace(base.SMALL_SEARCH, searcher="nsga2"),
        "paper": EvolutionConfig(searcher="nsga2"),
    }
    recipe = dataclasses.replace(
        base.RELEASED,
        epochs=150,
        batch_size=256,
        learning_rate=0.045,
        schedule="cosine",
        label_smoothing=0.0,
        refresh_epochs=0,
    )
    supernets = {"demo": demo, "paper": paper}
    return base.preset("fairnas", name, dataset, space, supernets, searches, recipe=recipe, dropout=0.2)
