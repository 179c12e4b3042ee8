"""BigNAS: one elastic network, trained so that its parts are good as they are; NSGA-II finds the front of them.

Yu et al. 2020, "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models", arXiv:2003.11142.
Command: python -m nasjax.launch --method=bignas [--dataset=cifar10]
Minutes: demo about 2 on one shared CPU core; the paper's training is not stated in hours.
Expected: 76.5 % to 80.9 % top-1 on ImageNet from 240M to 1,040M multiply-adds, in a space with squeeze-and-excitation
and several resolutions, which is not built; the demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses

from nasjax.experiments.families import supernets, supernets_run
from nasjax.experiments.families import supernets_settings as base
from nasjax.experiments.families.supernets_settings import EvolutionConfig, OneShotConfig, Preset, SupernetConfig
from nasjax.learners.one_shot_update import Descent
from nasjax.problem.builders.choice_chain import PathConfig
from nasjax.problem.given import LARGE, Given
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe

make = supernets_run.make
describe = supernets.describe

SPACE = "choice_chain"
PUBLISHED = {
    SPACE: {
        "dataset": "imagenet",
        "model": "BigNASModel-S",
        "params": 4_500_000,
        "test_error": 0.235,
        "source": "Yu et al. 2020; unverified, another space",
    }
}
# Section 3.1: the largest and the smallest network and two random ones a step; labels for the largest only, which alone
# is regularised; a kernel is the centre of the larger one.
RULES = SupernetConfig(
    sampler="sandwich",
    random_paths=2,
    distill=True,
    regularise="largest",
    entangled=True,
    affine=True,
)
PRESETS = {
    # Four gradients are added up in a step, so the demo's rate is a quarter of that of SPOS (ours).
    "demo": Preset(
        dataclasses.replace(
            RULES,
            epochs=12,
            batch_size=64,
            descent=Descent(learning_rate=0.1 / 4, schedule="cosine", label_smoothing=0.0),
            dropout=0.0,
        ),
        dataclasses.replace(base.SMALL_SEARCH, searcher="nsga2", objectives=("macs",)),
        base.DEMO_RECIPE,
        PathConfig(dropout=0.0),
        trials=320,
    ),
    # The paper has no code. The training is that of the release which follows its rules, AttentiveNAS (Wang et al.
    # 2021): 64 GPUs of 32 images, rate 0.1 for 256. Its Nesterov momentum and its stochastic depth are not built. The
    # search and a training from scratch, which the paper does without, are ours.
    "paper": Preset(
        dataclasses.replace(
            RULES,
            epochs=360,
            batch_size=2048,
            descent=Descent(
                learning_rate=0.8,
                schedule="cosine",
                warmup_epochs=5,
                weight_decay=1e-5,
                clip_value=1.0,
                label_smoothing=0.1,
            ),
            dropout=0.2,
        ),
        EvolutionConfig(
            searcher="nsga2",
            objectives=("macs",),
            population=50,
            mutation_rate=0.1,
            calibration_batches=64,
            calibration_batch_size=256,
        ),
        Recipe(
            epochs=360,
            batch_size=2048,
            learning_rate=0.8,
            nesterov=True,
            weight_decay=1e-5,
            decay_on="kernels",
            schedule="cosine",
            rate_per_step=True,
            warmup_epochs=5,
            label_smoothing=0.1,
        ),
        PathConfig(dropout=0.2),
        trials=1050,
        dataset="imagenet",
        # The release's data_transform.py: random resized crops, mirrored; its AutoAugment is not built.
        augment=Augment(crop="resized"),
    ),
}


def configure(given: Given) -> OneShotConfig:
    """A preset for a space and a data set."""
    chains = {LARGE: "bignas", "digits": "bignas_digits"}
    return base.preset("bignas", given, PRESETS, SPACE, lambda data: chains.get(data, "bignas_cifar"))
