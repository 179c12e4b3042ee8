"""The space of choice blocks and its plans, beyond the contract of all spaces."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.catalog import named
from nasjax.spaces.choice_chain.plan import ChoicePlan, counter, mid_channels
from nasjax.spaces.choice_chain.space import _VARIANTS, MOBILE, SHUFFLE, ChoiceChain, LayerShape, variant

ALL = ChoiceChain(
    channels=(32, 64),
    depths=(3, 3),
    strides=(2, 2),
    removed=(1,),
    choose_identity=True,
    channel_factors=(0.5, 1.0, 1.5),
)
PLAN = ChoicePlan(ALL, (16, 16, 3), 10)
L, M, N = ALL.layers, len(ALL.operators), 4000
ARCH = np.array([0, -1, 4, 3, 4, 2, 0, -1, -1, 2, -1, 1], np.int32)  # layers 2 and 4 chose identity


@pytest.fixture(scope="module")
def archs():
    return np.asarray(jax.jit(jax.vmap(ALL.sample))(jax.random.split(jax.random.key(0), N)))


@pytest.fixture(scope="module")
def counters():
    return {what: jax.jit(counter(PLAN, what)) for what in ("params", "macs")}


def test_operators_are_numbered_as_published():
    names = [f"mbconv_k{kernel}_e{expansion}" for kernel in (3, 5, 7) for expansion in (3, 6)]
    assert list(MOBILE) == names
    assert SHUFFLE == ("shuffle_k3", "shuffle_k5", "shuffle_k7", "shuffle_xception")
    pairs = (
        "3,7 3,3 3,7 6,3 6,7 3,3 3,3 6,7 6,7 3,5 6,3 3,5 3,5 6,3 6,3 6,7 6,3 6,7 6,5"  # FairNAS-A, expansion, kernel
    )
    assert named("FAIRNAS_A")["path"] == [MOBILE.index(f"mbconv_k{pair[2]}_e{pair[0]}") for pair in pairs.split()]


def test_shapes_of_the_published_chains():
    shapes = variant("fairnas").layer_shapes
    assert len(shapes) == 19 and [i for i, shape in enumerate(shapes) if shape.stride == 2] == [0, 2, 6, 14]
    assert shapes[0] == (16, 32, 2) and shapes[10] == (80, 96, 1) and shapes[18] == (192, 320, 1)
    assert not shapes[10].skippable and shapes[11].skippable and not shapes[0].skippable
    shapes = variant("bn_nas").layer_shapes
    assert len(shapes) == 21 and [i for i, shape in enumerate(shapes) if shape.stride == 2] == [0, 4, 8, 16]
    shapes = variant("spos").layer_shapes
    assert len(shapes) == 20 and [i for i, shape in enumerate(shapes) if shape.stride == 2] == [0, 4, 8, 16]
    assert variant("spos_channels").channel_factors == (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)


@pytest.mark.parametrize("name", _VARIANTS)
def test_variants_can_be_planned(name):
    sizes = {"digits": (8, 8, 1), "cifar": (16, 16, 3)}
    plan = ChoicePlan(variant(name), sizes.get(name.split("_")[-1], (224, 224, 3)), 10)
    assert plan.places[-1] >= 4  # the tail still sees an area
    arch = np.asarray(plan.space.sample(jax.random.key(1)))
    assert plan.count(arch)[0] <= plan.supernet_params()


@pytest.mark.parametrize(
    ("name", "chain"), [("SPOS_RELEASED", "spos"), ("FAIRNAS_A", "fairnas"), ("BN_NAS_RELEASED", "bn_nas")]
)
def test_released_paths_round_trip(name, chain):
    space = variant(chain)
    arch = space.decode(named(name))
    assert space.encode(arch) == named(name)
    assert space.path(jnp.asarray(arch)).tolist() == named(name)["path"]
    assert np.flatnonzero(arch < 0).tolist() == list(space.removed)


def test_both_forms_of_identity_are_minus_one_in_a_path():
    ALL.validate(ARCH)
    np.testing.assert_array_equal(ALL.path(np.stack([ARCH, ARCH])), [[0, -1, -1, 3, -1, 2]] * 2)
    tree = {"space": "choice_chain", "path": [0, -1, -1, 3, -1, 2], "channels": [0, -1, -1, 2, -1, 1]}
    assert ALL.encode(ARCH) == tree
    np.testing.assert_array_equal(ALL.decode(tree), ARCH)


def test_identity_is_a_choice_only_where_shapes_allow_it():
    offered = ["identity" in site.choices for site in ALL.sites[:L]]
    assert offered == [False, False, True, False, True, True]  # strides at 0 and 3; 1 is removed
    assert ALL.size() == 12**2 * 13**3
    assert dataclasses.replace(ALL, channel_factors=()).size() == 4**2 * 5**3
    assert dataclasses.replace(ALL, channel_factors=(), choose_identity=False, removed=()).size() == 4**6
    mobile = ChoiceChain(
        "mobile", channels=(16, 24), depths=(2, 2), strides=(1, 1), operators=MOBILE, choose_identity=True
    )
    assert ["identity" in site.choices for site in mobile.sites] == [True, True, False, True]


@pytest.mark.parametrize("name", ["spos", "bn_nas"])
def test_samples_are_uniform_in_every_layer(name):
    space = variant(name)
    draws = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(2), N)))
    m = len(space.operators)
    for layer, column in enumerate(draws.T):
        if layer in space.removed:
            assert (column == -1).all()
            continue
        counts = np.bincount(column, minlength=m)
        assert ((counts - N / m) ** 2 / (N / m)).sum() < 25  # chi-square; 5 degrees of freedom: p = 1e-4


def test_mutate_genes_draws_each_gene_with_the_given_rate():
    draw = jax.jit(jax.vmap(ALL.mutate_genes, (0, None, None)))
    keys = jax.random.split(jax.random.key(3), N)
    np.testing.assert_array_equal(draw(keys, ARCH, 0.0), np.broadcast_to(ARCH, (N, 2 * L)))
    mutants = np.asarray(draw(keys, ARCH, 0.4))
    for mutant in mutants[:50]:
        ALL.validate(mutant)
    assert (mutants[:, [1, L + 1]] == -1).all()
    for site, choices in enumerate(len(s.choices) for s in ALL.sites):
        if ARCH[site] < 0:
            continue
        column = mutants[:, site]
        there = column >= 0
        # It may be drawn as it was: changes are rarer than draws.
        changed = (column[there] != ARCH[site]).mean()
        assert abs(changed - 0.4 * (1 - 1 / choices)) < 0.04, ALL.sites[site].name
    back = mutants[mutants[:, 2] < M]  # was identity: its channels are drawn whenever the operator is
    np.testing.assert_allclose(np.bincount(back[:, L + 2], minlength=3) / len(back), 1 / 3, atol=0.05)
    every = np.asarray(draw(keys, ARCH, 1.0))
    assert 0.7 < (every[:, 0] != ARCH[0]).mean() < 0.8


def test_crossover_takes_the_channels_along_with_an_operator():
    other = ALL.decode({"space": "choice_chain", "path": [1, -1, 3, 1, 1, -1], "channels": [1, -1, 1, 0, 2, -1]})
    children = np.asarray(
        jax.vmap(ALL.crossover, (0, None, None))(jax.random.split(jax.random.key(4), 500), ARCH, other)
    )
    for child in children:
        ALL.validate(child)
    with_operator = children[children[:, 2] == 3]
    assert len(with_operator) > 100 and (with_operator[:, L + 2] == 1).all()
    assert (children[children[:, 2] == M][:, L + 2] == -1).all()
    assert abs((children[:, :L] == ARCH[:L])[:, [0, 2, 3, 4, 5]].mean() - 0.5) < 0.05


def test_entry_minus_one_of_a_table_is_identity():
    """A table of m columns, indexed with -1, would silently give the last operator."""
    for table in PLAN.table:
        assert table.shape == (L, M + 1, 3)
        assert not table[:, -1].any() and not table[1].any()
        assert table[[0, 2, 3, 4, 5], :-1].all()
    fixed = PLAN.fixed.weights + PLAN.fixed.scales, PLAN.fixed.macs
    weights, scales, macs = (
        sum(int(table[layer, ARCH[layer], ARCH[L + layer]]) for layer in (0, 3, 5)) for table in PLAN.table
    )
    assert PLAN.count(ARCH) == (fixed[0] + weights + scales, fixed[1] + macs)


def test_a_chain_counted_by_hand():
    space = ChoiceChain("mobile", 4, 1, 2, (6,), (2,), (2,), 8, ("mbconv_k5_e3",), choose_identity=True)
    plan = ChoicePlan(space, (5, 5, 3), 10)  # 5x5, behind the first layer 3x3
    stem, first = 9 * 3 * 4, 9 * 4 + 4 * 2
    layer0, layer1 = (2 * 6, 25 * 6, 6 * 6), (6 * 18, 25 * 18, 18 * 6)
    tail, head = 6 * 8, 8 * 10
    scales = 2 * (4 + 4 + 2 + (6 + 6 + 6) + (18 + 18 + 6) + 8)
    macs = 25 * (stem + first + layer0[0]) + 9 * (sum(layer0[1:]) + sum(layer1) + tail) + head
    assert plan.count(np.array([0, 0])) == (
        stem + first + sum(layer0) + sum(layer1) + tail + head + 10 + scales,
        macs,
    )
    assert plan.count(np.array([0, 1]))[1] == macs - 9 * sum(layer1)
    assert plan.supernet_params(affine=False) == plan.supernet_params() - scales


def test_look_up_is_the_count(archs, counters):
    for arch in archs[:25]:
        assert tuple(int(counters[what](arch)) for what in ("params", "macs")) == PLAN.count(arch)


def test_look_up_of_many(archs, counters):
    many = np.asarray(counters["macs"](archs[:6].reshape(2, 3, -1)))
    assert many.dtype == np.int32
    np.testing.assert_array_equal(many.ravel(), [PLAN.count(arch)[1] for arch in archs[:6]])


def test_wider_larger_and_present_costs_more(archs):
    """A wider factor, a larger kernel, or an operator in the place of identity: each adds multiply-adds."""
    for n, layer, operator, factor in itertools.product(range(4), (0, 2, 3, 4, 5), (0, 1), (0, 1)):
        arch = archs[n].copy()
        arch[layer], arch[L + layer] = operator, factor
        before = PLAN.count(arch)
        for site in (layer, L + layer):
            more = arch.copy()
            more[site] += 1
            assert all(a > b for a, b in zip(PLAN.count(more), before, strict=True))
        if "identity" in ALL.sites[layer].choices:
            arch[layer], arch[L + layer] = M, -1
            assert all(a < b for a, b in zip(PLAN.count(arch), before, strict=True))


def test_inner_channels():
    shape = LayerShape(16, 90, 2)
    assert mid_channels("shuffle", "shuffle_k3", shape, 1.0) == 45
    assert mid_channels("shuffle", "shuffle_k3", shape, 0.5) == 22  # rounded down
    assert mid_channels("shuffle", "shuffle_k3", shape, 7 / 5) == 63  # 62.99... in floating point
    assert mid_channels("mobile", "mbconv_k7_e6", shape, 1.0) == 96


def test_counts_beyond_32_bits_are_refused():
    plan = ChoicePlan(variant("spos"), (1024, 1024, 3))
    assert plan.count(np.zeros(20, int))[1] > 2**31
    with pytest.raises(ValueError, match=r"macs of this chain reach 2\^31"):
        counter(plan, "macs")
    counter(plan, "params")
    with pytest.raises(ValueError, match="choose params or macs"):
        counter(PLAN, "flops")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "dense"}, "choose shuffle, mobile"),
        ({"family": "mobile"}, "operators must be distinct, out of mbconv_k3_e3"),
        ({"operators": ("shuffle_k3", "shuffle_k3")}, "operators must be distinct"),
        ({"operators": ()}, "operators must be distinct"),
        ({"depths": (4, 4, 8)}, "one entry per stage"),
        ({"channels": (), "depths": (), "strides": ()}, "at least one"),
        ({"depths": (4, 4, 0, 4)}, "must be positive"),
        ({"strides": (2, 2, 3, 2)}, "strides 1 or 2"),
        ({"first": 16}, "set first=0"),
        ({"channels": (64, 161, 320, 640)}, "channels must be even"),
        ({"strides": (2, 1, 2, 2)}, "change only where the stride is 2"),
        ({"channels": (64, 64, 320, 640)}, "channels must rise"),
        ({"removed": (4,)}, "removed names layer 4"),
        ({"removed": (20,)}, "removed names layer 20"),
        ({"removed": (-1,)}, "removed names layer -1"),
        ({"removed": (1, 1)}, "distinct layers"),
        ({"channel_factors": (0.0, 1.0)}, "positive and distinct"),
        ({"channel_factors": (1.0, 1.0)}, "positive and distinct"),
        ({"channel_factors": (float("nan"),)}, "positive and distinct"),
    ],
)
def test_chains_that_cannot_be_built_say_why(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(variant("spos"), **changes)


def test_other_mistakes_say_what_to_write():
    with pytest.raises(ValueError, match="all positive"):
        ChoicePlan(ALL, (0, 8, 1))
    with pytest.raises(ValueError, match="leaves no channels inside a layer"):
        ChoicePlan(dataclasses.replace(ALL, channel_factors=(0.05, 1.0)))
    with pytest.raises(ValueError, match="choose spos, spos_channels, fairnas"):
        variant("resnet")
    with pytest.raises(ValueError, match="too large to enumerate"):
        variant("spos").enumerate()
    with pytest.raises(ValueError, match="architectures of 12 entries"):
        ALL.validate(ARCH[:L])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": [0, 0]}, '"path" must list 6 whole numbers'),
        ({"path": [0, -1, 0, True, 0, 0]}, '"path" must list 6 whole numbers'),
        ({"path": [0, -1, 0, 1.5, 0, 0]}, '"path" must list 6 whole numbers'),
        ({"path": [0, 2, 0, 0, 0, 0]}, "entry 1 must be -1: the space has removed this layer"),
        ({"path": [-1, -1, 0, 0, 0, 0]}, r"entry 0 must be 0\.\.3; got -1"),
        ({"path": [0, -1, 4, 0, 0, 0]}, r"entry 2 must be 0\.\.3, or -1 for identity; got 4"),
        ({"channels": [0, -1, 0, 0, 0, 3]}, r"layer5/channels has no choice number 3; choose 0\.\.2"),
        ({"channels": [0, 0, 0, 0, 0, 0]}, "layer1/channels is not there, so its entry must be -1"),
        ({"channels": None}, '"channels" must list 6 whole numbers'),
    ],
)
def test_wrong_json_says_what_to_write(changes, message):
    tree = {"space": "choice_chain", "path": [0, -1, 0, 0, 0, 0], "channels": [0, -1, 0, 0, 0, 0]}
    ALL.decode(tree)
    with pytest.raises(ValueError, match=message):
        ALL.decode(tree | changes)


def test_channels_without_channel_search_are_refused():
    space = variant("spos")
    with pytest.raises(ValueError, match=r'leave out "channels", or set space\.channel_factors'):
        space.decode({**named("SPOS_RELEASED"), "channels": [0] * 20})
