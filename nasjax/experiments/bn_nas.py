"""BN-NAS: only batch norms are trained, for few epochs; their scales rank the operators, no path is evaluated.

Chen et al. 2021, "BN-NAS: Neural Architecture Search with Batch Normalization", arXiv:2108.07375.
Command: python -m nasjax.launch --method=bn_nas [--dataset=cifar10]
Minutes: demo below 1 on two CPU cores; in the paper 0.8 GPU-days (as quoted in a later paper).
Expected: 75.5 % top-1 on ImageNet at 473M multiply-adds (released run), which cannot be run here: no ImageNet data. The
demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nasjax.experiments.families import supernets as base
from nasjax.experiments.families import supernets_run
from nasjax.experiments.families.supernets import EvolutionConfig, OneShotConfig, SupernetConfig
from nasjax.learners.one_shot_update import Descent
from nasjax.spaces.choice_chain import ChoiceChain

# The release counts (2 * 1728 - 1) * 1000 multiply-adds for the classifier, we 1728 * 1000: its 475M in our convention.
_LIMIT = 475_000_000 - 1_727_000

make = supernets_run.make
describe = base.describe


def published(config: OneShotConfig) -> dict[str, Any] | None:
    """The figure to put beside our own; ImageNet."""
    if not isinstance(config.space, ChoiceChain):
        return None
    return {
        "dataset": "imagenet",
        "model": "BN-NAS",
        "params": 5_228_536,
        "test_error": 0.24536,
        "source": "the authors' released run",
    }


def configure(name: str, dataset: str | None, space: str | None) -> OneShotConfig:
    """The preset `name` for a data set and a space.

    All batch norms are trained, as the paper says; --set supernet.trainable=last_bn is what the release does.
    """
    descent = Descent(rate=0.25, final_rate=5e-4, clip_value=5.0)
    paper = SupernetConfig(
        epochs=10,
        batch_size=512,
        descent=descent,
        trainable="all_bn",
        affine=True,
        early_bird=0.95,
        dropout=0.0,
    )
    demo = dataclasses.replace(paper, batch_size=64)
    search = EvolutionConfig(score="indicator")
    # SPOS's recipe, but the gradient is clipped, the classifier's bias decays and nothing is refreshed at the end (its
    # release: train_from_scratch.py lists convolutions and the classifier's weight and bias).
    recipe = dataclasses.replace(base.RELEASED, clip=5.0, refresh_epochs=0, decay_on="kernels_and_biases")
    supernets, searches = {"demo": demo, "paper": paper}, {"demo": search, "paper": search}
    config = base.preset("bn_nas", name, dataset, space, supernets, searches, recipe=recipe, dropout=0.2)
    return base.limited(config, _LIMIT) if name == "paper" and dataset in (None, "imagenet") else config
