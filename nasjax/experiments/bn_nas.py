"""BN-NAS: only batch norms are trained, for few epochs; their scales rank the operators, no path is evaluated.

Chen et al. 2021, "BN-NAS: Neural Architecture Search with Batch Normalization", arXiv:2108.07375.
Command: python -m nasjax.launch --method=bn_nas [--dataset=cifar10]
Minutes: demo below 1 on two CPU cores; in the paper 0.8 GPU-days (as quoted in a later paper).
Expected: 75.5 % top-1 on ImageNet at 473M multiply-adds (released run), which cannot be run here: no ImageNet data. The
demo shows the machine, not learning.
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
        "model": "BN-NAS",
        "params": 5_228_536,
        "test_error": 0.24536,
        "test_top5_error": 0.07508,
        "source": "the authors' released run",
        "baselines": {
            "SPOS_IN_BN_NAS": {
                "model": "SPOS in the same space",
                "params": 5_780_560,
                "test_error": 0.24614,
                "test_top5_error": 0.07556,
            }
        },
    }
}
# All batch norms are trained, as the paper says; --set supernet.trainable=last_bn is what the release does.
SUPERNET = SupernetConfig(
    epochs=10,
    batch_size=512,
    descent=Descent(learning_rate=0.25, final_rate=5e-4, weight_decay=4e-5, clip_value=5.0, label_smoothing=0.1),
    trainable="all_bn",
    affine=True,
    early_bird=0.95,
    dropout=0.0,
)
SEARCH = EvolutionConfig(score="indicator", population=50, top_k=10, mutants=25, crossovers=25)
PRESETS = {
    "demo": Preset(
        dataclasses.replace(SUPERNET, batch_size=64), SEARCH, base.DEMO_RECIPE, PathConfig(dropout=0.0), trials=320
    ),
    # The path is trained by SPOS's recipe, but the gradient is clipped, the classifier does not decay and nothing is
    # refreshed at the end. The release's train_from_scratch.py decays convolutions and "classifier.0", which in its
    # model.py is the dropout: the classifier's weights are "classifier.1".
    "paper": Preset(
        SUPERNET,
        SEARCH,
        Recipe(
            epochs=240,
            batch_size=1024,
            learning_rate=0.5,
            nesterov=False,
            weight_decay=4e-5,
            decay_on="convolutions",
            schedule="linear",
            rate_per_step=True,
            clip=5.0,
            label_smoothing=0.1,
        ),
        PathConfig(dropout=0.2),
        trials=1050,
        dataset="imagenet",
        # The release's 475M; it counts (2 * 1728 - 1) * 1000 multiply-adds for the classifier, we 1728 * 1000.
        max_macs=475_000_000 - 1_727_000,
        # Of both trainings, by the release's utils/imagenet.py: square cuts of 0.08 to 1 of the area, lighting of 0.1,
        # mirrored, no jitter.
        augment=Augment(crop="resized", crop_ratio=(1.0, 1.0), lighting=0.1),
    ),
}


def configure(given: Given) -> OneShotConfig:
    """A preset for a space and a data set."""
    chains = {LARGE: "bn_nas", "digits": "bn_nas_digits"}
    return base.preset("bn_nas", given, PRESETS, SPACE, lambda data: chains.get(data, "bn_nas_cifar"))
