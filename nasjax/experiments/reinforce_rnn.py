"""The controller of REINFORCE over recurrent cells for language models.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", arXiv:1611.01578, sections 3.4 and 4.2.
Command: python -m nasjax.launch --method=reinforce_rnn [--preset=paper --dataset=ptb --data_dir=FOLDER]
Minutes: demo about 2 on two CPU cores; the paper's 15,000 cells took 400 CPUs.
Expected: 62.4 test perplexity on the Penn Treebank with 54M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses

from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments import reinforce
from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.reinforce import ReinforceConfig
from nasjax.problem.given import Given
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe

SPACE = "cell_tree"
# Section 4.2: one child per replica; the parameter server waits for the gradients of 10 replicas.
PAPER = ReinforceConfig(learning_rate=5e-4, samples_per_update=1, accumulate=10)
# Section 4.2: learning rate, initial weights, dropout and the epoch of the decay; the values are ours.
GRID = RetrainConfig(
    grid=True,
    grid_learning_rates=(17.5, 35.0, 70.0),
    grid_weight_decays=(),
    grid_bn_eps=(),
    grid_decays=(0.17, 0.3),
    grid_init_scales=(0.04, 0.08),
    grid_dropouts=(0.35, 0.5, 0.65),
)
# Characters: the found cell in 2 layers of 800 units with embeddings of 128, dropout of 0.2 and 0.5 (where which
# is ours: the first of recurrent products, the other of inputs and outputs), none of embeddings; Adam, 600,000 steps of
# 32 windows of 100. Ours: the clip, the constant rate, and the number of epochs, which have 1,567 steps.
CHARACTERS = "characters"
CHARACTER_FORM = {
    "hidden": 800,
    "embedding": 128,
    "softmax_bias": True,
    "dropout": 0.5,
    "recurrent_dropout": 0.2,
    "embedding_dropout": 0.0,
}
CHARACTER_RECIPE = Recipe(
    epochs=383,
    batch_size=32,
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=1e-4,
    drops=(),
    clip=1.0,
    augment=Augment(crop="none", flip=False),
)
make = reinforce.make
describe = reinforce.describe


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set."""
    if given.space == SPACE:
        given.known("demo", "paper", CHARACTERS)
    demo = ReinforceConfig(learning_rate=0.01)
    of_words = given._replace(preset="paper") if (given.space, given.preset) == (SPACE, CHARACTERS) else given
    config = base.preset("reinforce_rnn", of_words, demo=demo, paper=PAPER, trials=16, published_trials=15_000)
    if of_words is not given:
        return dataclasses.replace(
            config,
            preset=CHARACTERS,
            data=dataclasses.replace(config.data, level="char", window=100),
            form=dataclasses.replace(config.form, **CHARACTER_FORM),
            recipe=dataclasses.replace(CHARACTER_RECIPE, epochs=config.recipe.epochs),
            retrain_recipe=CHARACTER_RECIPE,
        )
    return dataclasses.replace(config, retrain=GRID) if given.published and given.space == SPACE else config
