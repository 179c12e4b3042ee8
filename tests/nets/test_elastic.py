"""Supernets whose operators are parts of the largest, and the networks that are cut out of any supernet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.tiny_choice_chains import images, quick, shaken, tiny, tiny_shuffle

from nasjax.nets.choice_chain.network import choice_chain
from nasjax.nets.choice_chain.supernet import choice_supernet, groups
from nasjax.nets.vit_chain.network import vit_chain
from nasjax.nets.vit_chain.supernet import vit_supernet
from nasjax.spaces.vit_chain.plan import VitPlan
from nasjax.spaces.vit_chain.space import VitChain

ELASTIC = tiny(operators=("mbconv_k3_e3", "mbconv_k5_e6"), choose_identity=True, channel_factors=(0.5, 1.0))
PLAIN = tiny(depths=(2,), operators=("mbconv_k3_e3", "mbconv_k7_e3"), choose_identity=True)
WIDE = tiny_shuffle(depths=(2,), operators=("shuffle_k5", "shuffle_xception"), channel_factors=(0.5, 1.5))
VIT = VitPlan(VitChain((1, 2), (4, 6), (1, 2), (1.0, 2.0), patch=2, head_width=3, distance=1), (6, 6, 2), 3)
CASES = {  # supernet, a path's own network, paths
    "entangled": (
        choice_supernet(ELASTIC, entangled=True),
        lambda arch: choice_chain(ELASTIC, arch),
        [(0, 1, 0, 0, 1, 0), (1, 2, 0, 1, -1, 1)],
    ),
    "without scales": (
        choice_supernet(PLAIN, affine=False),
        lambda arch: choice_chain(PLAIN, arch),
        [(0, 1)],
    ),
    "channels": (choice_supernet(WIDE), lambda arch: choice_chain(WIDE, arch), [(0, 1, 0, 1)]),
    "transformers": (
        vit_supernet(VIT),
        lambda arch: vit_chain(VIT, arch),
        [(0, 0, 1, 0, -1, -1), (1, 0, 0, 1, 1, 0)],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_network_that_is_cut_out_computes_what_the_supernet_computes(case):
    supernet, network, archs = CASES[case]
    with jax.enable_x64(True):
        x, _ = images(0, 4, jnp.float64)
        variables = shaken(supernet.init(jax.random.key(1), jnp.array(archs[0]), x))
        inside = quick(lambda arch: supernet.apply(variables, arch, x)[0])
        seen = []
        for arch in archs:
            own, alone = supernet.own(variables, np.array(arch)), network(np.array(arch))
            needed = jax.tree.map(np.shape, alone.init(jax.random.key(0), None, x))
            assert jax.tree.map(np.shape, own) == needed
            seen.append(np.asarray(inside(jnp.array(arch, jnp.int32))))
            np.testing.assert_allclose(alone.apply(own, None, x)[0], seen[-1], rtol=1e-9, atol=1e-11)
        assert len(seen) == 1 or not np.allclose(*seen)


@pytest.mark.slow
def test_a_path_of_an_entangled_supernet_moves_its_own_part_alone():
    """A kernel's centre and the first channels: gradients, statistics, and what `select` takes."""
    supernet, arch = choice_supernet(ELASTIC, entangled=True), np.array([0, 1, 2, 0, 1, -1], np.int32)
    x, _ = images(0, 4)
    variables = shaken(supernet.init(jax.random.key(1), None, x))

    @quick
    def slope(params):
        def loss(params):
            logits, after = supernet.apply({**variables, "params": params}, arch, x, train=True)
            return jnp.square(logits).sum(), after["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    gradient, stats = jax.tree.map(np.asarray, slope(variables["params"]))
    (first, second) = groups(ELASTIC)  # stride 2; then two layers, of which the second is skipped
    moved = np.abs(gradient[first]["main1"]["depthwise"][0]) > 0
    inside = np.zeros((5, 5, 24), bool)
    inside[1:4, 1:4, :6] = True  # 3x3 of 5x5, half of 4 * 3 of the 4 * 6 channels
    assert not moved[~inside].any() and moved[inside].mean() > 0.5
    changed = stats[first]["main1"]["mean"][0] != variables["batch_stats"][first]["main1"]["mean"][0]
    np.testing.assert_array_equal(changed, np.arange(24) < 6)
    assert not np.any(gradient[second]["main1"]["depthwise"][1])
    new = jax.tree.map(lambda leaf: leaf + 1, variables["params"])
    taken = jax.tree.map(np.asarray, supernet.select(jnp.array([arch]), new, variables["params"]))
    of = taken[first]["main1"]["depthwise"][0] != variables["params"][first]["main1"]["depthwise"][0]
    whole = np.zeros((5, 5, 24), bool)
    whole[1:4, 1:4, :12] = True  # channel search: an operator counts as a whole
    np.testing.assert_array_equal(of, whole)
    five = taken[second]["main1"]["depthwise"] != variables["params"][second]["main1"]["depthwise"]
    assert five[0].all() and not five[1].any()


@pytest.mark.slow
def test_an_entangled_supernet_has_the_parameters_of_its_plan():
    for affine in (True, False):
        variables = choice_supernet(ELASTIC, affine=affine, entangled=True).init(
            jax.random.key(0), None, images(0, 1)[0]
        )
        count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        assert count == ELASTIC.supernet_params(affine, entangled=True) < ELASTIC.supernet_params(affine)


def test_operators_that_differ_in_more_than_size_are_not_entangled():
    with pytest.raises(ValueError, match="the shuffle family differ in more than size"):
        choice_supernet(WIDE, entangled=True)


@pytest.mark.slow
@pytest.mark.parametrize("plan", [ELASTIC, PLAIN, WIDE, VIT], ids=["elastic", "plain", "wide", "vit"])
def test_the_ends_of_a_space_have_the_most_and_the_fewest_multiply_adds(plan):
    costs = [plan.count(arch)[1] for arch in plan.space.enumerate()]
    largest, smallest = plan.ends()
    assert (plan.count(largest)[1], plan.count(smallest)[1]) == (max(costs), min(costs))
