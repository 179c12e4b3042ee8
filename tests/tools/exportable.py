"""Random networks of every space that has networks, small enough to compile in a second; and whether they export.

This is the one place of the export checks that builds networks.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tools.tiny_choice_chains import shaken

from nasjax.nets.choice_chain.network import choice_chain
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.nets.vit_chain.network import vit_chain
from nasjax.ops import portable
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import MOBILE, ChoiceChain
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import TYPES, ConvChain
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import DartsCell, genotype
from nasjax.spaces.vit_chain.plan import VitPlan
from nasjax.spaces.vit_chain.space import VitChain

CLASSES = 3
BATCHES = (1, 3, 7)
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # to compile, not to run

_CHAIN = {"min_layers": 2, "max_layers": 4, "filter_counts": (3, 8, 24)}
_PATH = {"stem": 4, "stem_stride": 1, "channels": (8, 12), "depths": (2, 2), "strides": (2, 2), "tail": 8}


class Case(NamedTuple):
    """Networks of a space with some settings."""

    space: object
    image: tuple[int, int, int]
    form: dict | None = None  # what a network of cells is besides its genotype


CASES = {
    "conv_chain": Case(ConvChain(**_CHAIN), (8, 8, 2)),
    "conv_chain strides": Case(ConvChain(**_CHAIN, strides=(1, 2, 3)), (9, 8, 1)),
    "conv_chain types": Case(ConvChain(**_CHAIN, types=TYPES), (8, 8, 3)),
    "conv_chain v3": Case(ConvChain(3, 3, filter_counts=(3, 6), block_layers=2, pool_after=(0, 1)), (8, 8, 3)),
    "conv_chain large": Case(ConvChain(2, 2, filter_counts=(3, 8, 24)), (24, 24, 3)),  # spectra beyond the cache
    "darts_cell": Case(DartsCell(), (8, 8, 3), {"channels": 4, "layers": 2}),
    "darts_cell noise": Case(DartsCell(robust="S4"), (8, 8, 3), {"channels": 4, "layers": 2}),
    "darts_cell imagenet": Case(DartsCell(), (32, 32, 3), {"channels": 4, "layers": 3, "stem": "imagenet"}),
    "choice_chain shuffle": Case(ChoiceChain("shuffle", **_PATH, channel_factors=(0.5, 1.0)), (8, 8, 3)),
    "choice_chain mobile": Case(
        ChoiceChain("mobile", **_PATH, first=4, operators=MOBILE, removed=(1,), choose_identity=True), (8, 8, 3)
    ),
    "choice_chain channels": Case(
        ChoiceChain("mobile", **_PATH, operators=MOBILE, choose_identity=True, channel_factors=(0.5, 1.5)), (7, 7, 3)
    ),
    "vit_chain": Case(VitChain((1, 2), (8, 12), (1, 2), (1.0, 2.0), 4, 4, 1), (8, 12, 3)),
}


def network_of(case, seed):
    """A random architecture's network; None where its images are too small for it."""
    arch = np.asarray(case.space.sample(jax.random.key(seed)))
    match case.space:
        case ConvChain():
            try:
                return conv_chain(plan(case.space, arch, case.image, CLASSES))
            except ValueError:
                return None
        case DartsCell():
            cells = genotype(case.space.encode(arch))
            form = {"stem": "cifar"} | (case.form or {})
            return darts_eval(DartsPlan(cells, classes=CLASSES, image=case.image, auxiliary=False, **form))
        case VitChain():
            return vit_chain(VitPlan(case.space, case.image, CLASSES), arch)
        case ChoiceChain():
            return choice_chain(ChoicePlan(case.space, case.image, CLASSES), arch)


def difference(case, network, seed):
    """The largest difference of the exported artifact's logits, read back, from the network's: over three batches.

    In units of the network's largest logit: those of a fresh path of SPOS are below 1e-4 themselves. The running
    statistics are those of the images, without which little of them reaches the logits of some networks.
    """
    x = jax.random.normal(jax.random.key(seed), (max(BATCHES), *case.image))
    fresh = shaken(network.init(jax.random.key(seed + 1), None, x[:1]))
    moved = partial(network.apply, key=jax.random.key(seed), train=True, bn_momentum=0.0)
    variables = quick(lambda v: moved(v, None, x)[1])(fresh)

    def apply(variables, x):
        return network.apply(variables, None, x)[0]

    def images(size):
        return jax.ShapeDtypeStruct((size, *case.image), jnp.float32)

    artifact = portable.batched(apply, variables, images).serialize()
    exported = jax.export.deserialize(artifact)
    assert [str(n) for n in exported.in_avals[0].shape] == ["b", *map(str, case.image)]
    expected = quick(apply)(variables, x)
    scale = np.abs(expected).max()
    assert np.ptp(expected, 0).max() > 1e-3 * scale, "the samples do not count"
    return max(float(np.abs(quick(exported.call)(x[:n]) - expected[:n]).max() / scale) for n in BATCHES)
