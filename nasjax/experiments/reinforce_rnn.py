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
make = reinforce.make
describe = reinforce.describe


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set."""
    demo = ReinforceConfig(learning_rate=0.01)
    config = base.preset("reinforce_rnn", given, demo=demo, paper=PAPER, trials=16, published_trials=15_000)
    return dataclasses.replace(config, retrain=GRID) if given.published and given.space == SPACE else config
