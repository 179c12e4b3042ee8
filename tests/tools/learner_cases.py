"""The learners that every contract is checked on, at toy size. To add one, add a line to CASES."""

from functools import partial

import jax
import numpy as np
from tools.toy_search_network import toy_conv_network, toy_layout, toy_network, toy_parts_network

from nasjax.learners.architecture_gradient import first_order, second_order_difference, second_order_exact
from nasjax.learners.bilevel import bilevel
from nasjax.learners.darts import darts, softmax_relaxation
from nasjax.learners.descent import Adam
from nasjax.learners.drnas import drnas
from nasjax.learners.gdas import gdas
from nasjax.learners.msr_darts import msr_darts
from nasjax.learners.p_darts import p_darts
from nasjax.learners.pc_darts import pc_darts
from nasjax.spaces.darts_cell.derivation import every_edge
from nasjax.train.sgd import Sgd

EPOCHS = 3
QUICK = {"epochs": EPOCHS, "sgd": Sgd(learning_rate=0.1), "adam": Adam(learning_rate=0.01)}


def one_level(method, devices):
    return darts(toy_network(), architecture_gradient=method, devices=devices, **QUICK)


def by_parts(devices):
    """A network that the host runs part by part, with dropout."""
    settings = {"architecture_gradient": second_order_exact, "drop_rate": lambda epoch: 0.1, **QUICK}
    return bilevel(toy_parts_network(), softmax_relaxation(8), devices=devices, **settings)


def partial_channels(devices):
    return pc_darts(toy_network(edges=True), frozen_epochs=0, devices=devices, **QUICK)


def calm():
    """A toy network that a draw changes by a tenth: none learns in 30 steps under mixing weights that are all noise."""
    network = toy_network()

    def apply(variables, choice, x, **options):
        mixed = jax.tree.map(lambda weights: 0.1 * weights + 0.9 / weights.shape[-1], choice)
        return network.apply(variables, mixed, x, **options)

    return network._replace(apply=apply)


def drawn(devices):
    return gdas(calm(), devices=devices, **QUICK)


def dirichlet(devices):
    """The first stage."""
    stages = drnas([calm()], operators=(8,), names=every_edge(), frozen_epochs=0, devices=devices, **QUICK)
    return stages.learner(0, stages.facts(0, None, None))


def progressive(devices):
    """The second stage, which has dropout and five operators per edge."""
    stages = p_darts(
        lambda depth, names: toy_network(operators=len(names["normal"][0])), frozen_epochs=0, devices=devices, **QUICK
    )
    names = [["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"]] * 14
    return stages.learner(1, {"normal": names, "reduce": names})


def stable_rank(devices):
    network, layout = toy_conv_network(), toy_layout()
    return msr_darts(network, layout, epochs=EPOCHS, sgd=QUICK["sgd"], weigh_by_rank=True, devices=devices)


CASES = {
    "darts_first_order": partial(one_level, first_order),
    "darts_difference": partial(one_level, second_order_difference),
    "darts_exact": partial(one_level, second_order_exact),
    "darts_by_parts": by_parts,
    "pc_darts": partial_channels,
    "gdas": drawn,
    "drnas": dirichlet,
    "p_darts": progressive,
    "msr_darts": stable_rank,
}


def one_step(make, batch, devices):
    """The state and the metrics after a step from a fixed start, on the host."""
    learner = make(devices)
    state = learner.init(jax.random.key(0), batch)
    return jax.tree.map(np.asarray, learner.step(jax.random.key(1), state, batch))
