"""The controller of REINFORCE over recurrent cells for language models.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", arXiv:1611.01578, sections 3.4 and 4.2.
Command: python -m nasjax.launch --method=reinforce_rnn [--preset=paper --dataset=ptb --data_dir=FOLDER]
Minutes: demo about 2 on two CPU cores; the paper's 15,000 cells took 400 CPUs.
Expected: 62.4 test perplexity on the Penn Treebank with 54M parameters; the demo shows the machine, not learning.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments import reinforce
from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.reinforce import ReinforceConfig
from nasjax.spaces.cell_tree import CellTree

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


def configure(name: str, dataset: str | None, space: str | None) -> CandidateConfig:
    """The preset `name` for a data set and a space."""
    searches = {"demo": ReinforceConfig(learning_rate=0.01), "paper": PAPER}
    config = base.preset("reinforce_rnn", name, dataset, space, searches, "cell_tree")
    retrain = GRID if name == "paper" and isinstance(config.space, CellTree) else config.retrain
    return dataclasses.replace(config, trials=15_000 if name == "paper" else 16, retrain=retrain)


# Table 2: parameters and test perplexity of the found cell, base 8, over the Penn Treebank's 10,000 words.
_SEPARATE, _SHARED = (32_000_000, 67.9), ((25_000_000, 64.0), (54_000_000, 62.4))


def published(config: CandidateConfig) -> dict[str, Any] | None:
    """The figure to put beside our own, by the embeddings and the size of our network; None for other tokens."""
    if not isinstance(config.space, CellTree):
        return base.published(config)
    data, form = config.data, config.network_form
    if data.level != "word" or data.max_words is not None or data.min_count not in (None, 1):
        return None
    params, perplexity = _SHARED[form.hidden > 946] if form.tied else _SEPARATE  # half way from 740 to 1,152 units
    return {
        "dataset": "ptb",
        "model": f"found cell, base 8, {'shared' if form.tied else 'separate'} embeddings",
        "params": params,
        "test_perplexity": perplexity,
        "train": 929_588 // data.window,  # windows
        "source": "Zoph & Le 2017, Table 2",
    }
