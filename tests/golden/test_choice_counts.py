"""Counts of the published paths: by pure functions, by the command, and by what the networks are made of."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import commands
from nasjax.catalog import named
from nasjax.nets.choice_chain import blocks as choice_blocks
from nasjax.nets.choice_chain import frame
from nasjax.nets.choice_chain.network import choice_chain
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.spaces.choice_chain.plan import ChoicePlan, counter, dense
from nasjax.spaces.choice_chain.space import variant

BLOCK_PATH = [0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2]
CHANNELS = [6, 5, 3, 5, 2, 6, 3, 4, 2, 5, 7, 5, 4, 6, 7, 4, 4, 5, 4, 3]
SPOS_IN_BN_NAS = [0, -1, 0, 0, 4, -1, -1, 2, 0, -1, 4, 4, 3, 0, 2, 1, 0, 4, 2, 5, 2]


def tree(path, **more):
    return {"space": "choice_chain", "path": path, **more}


PUBLISHED = {
    "SPOS_RELEASED": ("spos", named("SPOS_RELEASED"), 3_558_464, 322_918_720),
    "spos block search": ("spos", tree(BLOCK_PATH), 3_345_088, 318_729_024),
    "spos channel search": ("spos_channels", tree(BLOCK_PATH, channels=CHANNELS), 3_432_579, 327_857_920),
    "spos all 0": ("spos", tree([0] * 20), 3_154_880, 295_842_496),
    "spos all 1": ("spos", tree([1] * 20), 3_211_968, 313_654_976),
    "FAIRNAS_A": ("fairnas", named("FAIRNAS_A"), 4_651_352, 388_122_848),
    "BN_NAS_RELEASED": ("bn_nas", named("BN_NAS_RELEASED"), 5_228_536, 471_822_240),
    "spos in bn_nas": ("bn_nas", tree(SPOS_IN_BN_NAS), 5_780_560, 467_080_608),
}


@pytest.fixture(params=PUBLISHED)
def published(request):
    chain, arch, params, macs = PUBLISHED[request.param]
    plan = ChoicePlan(variant(chain))
    return plan, plan.space.decode(arch), arch, (params, macs)


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def convolved(network, variables, plan, monkeypatch):
    """Multiply-adds of the convolutions and the dense layer that `network` really runs on one image."""
    macs = variables["params"]["head"]["dense"].size

    def counted(op):
        def run(x, w, *args, **options):
            nonlocal macs
            y = op(x, w, *args, **options)
            macs += w.size * y.shape[1] * y.shape[2]
            return y

        return run

    for name in ("conv2d", "depthwise_conv2d"):
        monkeypatch.setattr(choice_blocks, name, counted(getattr(choice_blocks, name)))
    x = jax.ShapeDtypeStruct((1, *plan.image), jnp.float32)
    jax.eval_shape(lambda v, x: network.apply(v, None, x)[0], variables, x)
    return macs


def test_published_counts(published):
    plan, arch, _, counts = published
    assert plan.count(arch) == counts
    assert tuple(int(counter(plan, what)(jnp.asarray(arch))) for what in ("params", "macs")) == counts


def test_published_counts_are_those_of_the_network(published, monkeypatch):
    plan, arch, _, counts = published
    network = choice_chain(plan, arch)
    monkeypatch.setattr(frame, "draws", lambda draw, key, size, dtype: np.zeros(size, dtype))  # only sizes count
    variables = network.init(jax.random.key(0), None, np.zeros((1, 8, 8, 3), np.float32))
    assert (size(variables["params"]), convolved(network, variables, plan, monkeypatch)) == counts


def test_inspect_prints_the_published_counts(published):
    plan, _, arch, counts = published
    method = "spos" if plan.space.family == "shuffle" else "bn_nas" if plan.space.removed else "fairnas"
    config = dataclasses.replace(commands.configure(method, "paper"), space=plan.space)
    found = commands.inspect(config, json.dumps(arch))
    assert (found["params"], found["macs"]) == counts and found["arch"] == arch
    assert found["space_size"] == str(plan.space.size())


def test_the_release_of_bn_nas_counts_the_dense_layer_otherwise():
    plan = ChoicePlan(variant("bn_nas"))
    _, macs = plan.count(plan.space.decode(named("BN_NAS_RELEASED")))
    convolutions = macs - dense(1728, 1000, bias=True).macs
    assert convolutions + (2 * 1728 - 1) * 1000 == 473_549_240
    _, macs = plan.count(plan.space.decode(tree(SPOS_IN_BN_NAS)))
    assert macs - 1_728_000 + 3_455_000 == 468_807_608


def test_sizes_of_the_spaces():
    assert variant("spos").size() == 4**20
    assert variant("spos_channels").size() == 32**20
    assert variant("fairnas").size() == 6**19
    assert variant("bn_nas").size() == 6**17


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", ["spos_digits", "fairnas_digits", "removed"])
def test_supernet_parameters_are_those_of_its_arrays(name, affine):
    if name == "removed":
        space = dataclasses.replace(
            variant("spos_digits"), removed=(1,), choose_identity=True, channel_factors=(0.5, 1.5)
        )
    else:
        space = variant(name)
    plan = ChoicePlan(space, (8, 8, 1), 10)
    x = np.zeros((1, 8, 8, 1), np.float32)
    variables = choice_supernet(plan, affine=affine).init(jax.random.key(0), None, x)
    assert plan.supernet_params(affine) == size(variables["params"])
