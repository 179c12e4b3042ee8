"""The samplers of paths: uniform, strictly fair, by bins of multiply-adds."""

import jax
import numpy as np
import pytest
from scipy.stats import chisquare
from tools.tiny_choice_chains import tiny

from nasjax.learners import samplers
from nasjax.spaces.choice_chain.plan import ChoicePlan, counter
from nasjax.spaces.choice_chain.space import variant
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.site_space import SiteSpace


def drawn(sampler, count):
    return np.asarray(jax.jit(jax.vmap(sampler))(jax.random.split(jax.random.key(5), count)))


def test_uniform_paths_pass_chi_square():
    """Operators of each layer, identity counting as one; and pairs of layers are independent."""
    space = tiny(first=0, stem=6, depths=(4,), strides=(1,), choose_identity=True, removed=(1,)).space
    archs = drawn(samplers.uniform(space), 4000)
    assert archs.shape == (4000, 1, 4)
    archs = archs[:, 0]
    assert np.all(archs[:, 1] == -1)
    for layer in (0, 2, 3):
        assert chisquare(np.bincount(archs[:, layer], minlength=4)).pvalue > 1e-3
    assert chisquare(np.bincount(4 * archs[:, 0] + archs[:, 2], minlength=16)).pvalue > 1e-3
    skewed = np.where(archs[:, 0] == 0, np.arange(4000) % 3, archs[:, 0])  # the test would see it
    assert chisquare(np.bincount(skewed, minlength=4)).pvalue < 1e-9


@pytest.mark.slow
def test_strict_paths_are_permutations():
    space = tiny(depths=(4,), removed=(2,)).space
    archs = drawn(samplers.strict_fairness(space), 600)
    assert archs.shape == (600, 3, 4) and np.all(archs[:, :, 2] == -1)
    orders = archs[:, :, [0, 1, 3]].transpose(0, 2, 1)  # [draw, layer, path]
    assert np.all(np.sort(orders, -1) == np.arange(3))
    for layer in range(3):  # all six orders, equally often
        assert chisquare(np.unique(orders[:, layer] @ [9, 3, 1], return_counts=True)[1]).pvalue > 1e-3
    assert 60 < (orders[:, 0] == orders[:, 1]).all(-1).sum() < 140  # layers draw independently: 100 expected


@pytest.mark.parametrize(
    ("space", "paths"),
    [
        (SiteSpace("mixed", {"width": (16, 32), "depth": (1, 2, 3), "act": ("relu",)}), 6),
        pytest.param(
            ConvChain(1, 2, (1, 3), (1, 3), (4,), skips=False), 4, marks=pytest.mark.slow
        ),  # half have two layers
        pytest.param(ConvChain(1, 3, (1, 3), (1,), (4, 8, 16), skips=False), 18, marks=pytest.mark.slow),
    ],
)
def test_strict_paths_use_every_choice_equally_often_where_the_numbers_differ(space, paths):
    assert samplers.strict_paths(space) == paths
    archs = drawn(samplers.strict_fairness(space), 200)
    assert archs.shape == (200, paths, len(space.sites))
    for arch in archs[0]:
        space.validate(arch)
    for column, site in enumerate(space.sites):
        times = np.array(
            [np.bincount(step[step[:, column] >= 0, column], minlength=len(site.choices)) for step in archs]
        )
        assert np.all(times == times[0, 0]) and times[0, 0] > 0, site.name
    first = archs[:, 0, 0]  # which choice a path has is random
    assert chisquare(np.bincount(first, minlength=len(space.sites[0].choices))).pvalue > 1e-3


@pytest.mark.slow
def test_bins_of_multiply_adds_are_hit_and_equally_often():
    plan = ChoicePlan(variant("spos_digits"), (8, 8, 1), 10)
    macs = counter(plan, "macs")
    cost = np.sort(np.asarray(macs(plan.space.enumerate())))
    edges = [int(cost[int(q * (len(cost) - 1))]) for q in (0.2, 0.3, 0.45, 0.7)]
    found = np.asarray(macs(drawn(samplers.macs_bins(plan.space, macs, edges), 1500)[:, 0]))
    assert found.min() >= edges[0] and found.max() < edges[-1]
    assert chisquare(np.histogram(found, edges)[0]).pvalue > 1e-3
    outside = drawn(samplers.macs_bins(plan.space, macs, (1, 2), tries=3), 5)[:, 0]  # an empty bin: any path will do
    for arch in outside:
        plan.space.validate(arch)


def test_wrong_use():
    plan = tiny()
    with pytest.raises(ValueError, match="choose_identity=false"):
        samplers.strict_fairness(tiny(choose_identity=True).space)
    with pytest.raises(ValueError, match="5, 8 choices takes more than 36 paths"):
        samplers.strict_fairness(SiteSpace("coprime", {"a": tuple(range(5)), "b": tuple(range(8))}))
    with pytest.raises(ValueError, match="ascending"):
        samplers.macs_bins(plan.space, counter(plan, "macs"), (5, 4))
