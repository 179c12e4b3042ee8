"""SPOS: a supernet trained on uniformly drawn single paths, evolution with inherited weights.

Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420.
Command: python -m nasjax.launch --method=spos [--dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's supernet took 12 days of 8 GTX 1080Ti together, its search below 1.
Expected: 74.3 % top-1 on ImageNet at 319M multiply-adds (blocks only), which cannot be run here: no ImageNet data. The
demo shows the machine, not learning.
"""

from __future__ import annotations

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
        "model": "SPOS, block search",
        "params": 3_345_088,
        "test_error": 0.257,
        "source": "Guo et al. 2020; accuracy unverified",
        "baselines": {
            "SPOS_RELEASED": {
                "model": "SPOS, the released path",
                "params": 3_558_464,
                "test_error": 0.256,
                "test_top5_error": 0.080,
                "source": "megvii-model/SinglePathOneShot, README",
            }
        },
    }
}
PRESETS = {
    "demo": Preset(
        SupernetConfig(epochs=20, batch_size=64, descent=Descent(learning_rate=0.1), dropout=0.0),
        base.SMALL_SEARCH,
        base.DEMO_RECIPE,
        PathConfig(dropout=0.0),
        trials=320,
    ),
    # The release's code; section 4 of the paper.
    "paper": Preset(
        SupernetConfig(
            epochs=120,
            batch_size=1024,
            descent=Descent(learning_rate=0.5, schedule="linear", weight_decay=4e-5, label_smoothing=0.1),
            sampler="uniform",
            dropout=0.1,
        ),
        EvolutionConfig(population=50, top_k=10, mutants=25, crossovers=25, mutation_rate=0.1),
        Recipe(
            epochs=240,
            batch_size=1024,
            learning_rate=0.5,
            nesterov=False,
            weight_decay=4e-5,
            decay_on="kernels",
            schedule="linear",
            rate_per_step=True,
            label_smoothing=0.1,
            refresh_epochs=1,
        ),
        PathConfig(dropout=0.1),
        trials=1050,
        dataset="imagenet",
        max_macs=330_000_000,
        # RandomResizedCrop(224), ColorJitter(0.4, 0.4, 0.4), mirrored: both train.py, of the supernet and the path.
        augment=Augment(crop="resized", jitter=(0.4, 0.4, 0.4, 0.0)),
    ),
}


def configure(given: Given) -> OneShotConfig:
    """A preset for a space and a data set."""
    chains = {LARGE: "spos", "digits": "spos_digits"}
    return base.preset("spos", given, PRESETS, SPACE, lambda data: chains.get(data, "spos_cifar"))
