"""Random search samples the whole space, at the depth it is told."""

import jax
import numpy as np
import pytest

from nasjax.searchers import depth_schedule, random_search
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.spaces.vit_chain.space import VitChain
from nasjax.types import Site

KEY = jax.random.key(0)
SPACE = ConvChain(1, 3, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4,))


def ask(searcher, n):
    state, proposal = jax.jit(searcher.ask, static_argnums=2)(jax.random.key(0), searcher.init(jax.random.key(1)), n)
    assert int(state.asked) == n
    return np.array(proposal.arch)


def test_depths_and_choices_are_uniform():
    archs = ask(random_search(SPACE), 3000)
    assert len(np.unique(archs, axis=0)) == SPACE.size()
    np.testing.assert_allclose(np.bincount(archs[:, 0]) / 3000, 1 / 3, atol=0.03)


def test_a_schedule_sets_the_depth():
    archs = ask(random_search(SPACE, depth_schedule=depth_schedule(first=2, step=2, every=2)), 4)
    assert list(archs[:, 0] + 1) == [2, 2, 3, 3]
    for arch in archs:
        SPACE.validate(arch)


@pytest.mark.slow
def test_the_same_trial_is_the_same_whatever_the_batch():
    searcher = random_search(SPACE)
    key, state, rows = jax.random.key(0), searcher.init(jax.random.key(1)), []
    for n in (3, 2):
        state, proposal = jax.jit(searcher.ask, static_argnums=2)(key, state, n)
        rows.append(np.array(proposal.arch))
    assert np.array_equal(np.concatenate(rows), ask(searcher, 5))
    assert searcher.live(state).shape == (0,)


def test_a_schedule_needs_a_depth():
    with pytest.raises(ValueError, match="has no depth: leave depth_schedule=None"):
        random_search(TabularCell(), depth_schedule=depth_schedule())


class Bare:
    """A space whose `sample` takes no depth."""

    name, sites = "bare", (Site("depth", (1, 2), "depth", -1), Site("width", (4, 8), "width", 0))

    def sample(self, key):
        return jax.random.randint(key, (2,), 0, 2)


def test_a_schedule_needs_a_space_that_samples_at_a_depth():
    with pytest.raises(ValueError, match=r"bare cannot sample at a given depth: .*--set search.depth_first=none"):
        random_search(Bare(), depth_schedule=depth_schedule())


def test_sites_drawn_uniformly_have_the_depth_that_is_asked_for():
    space = VitChain(depths=(1, 2, 4), widths=(8, 16), heads=(1, 2), mlp_ratios=(1.0, 2.0), patch=4, distance=0)
    for depth, layers in ((1, 1), (2, 2), (3, 2), (9, 4)):  # to the nearest choice
        archs = np.asarray(jax.vmap(lambda key, depth=depth: space.sample(key, depth))(jax.random.split(KEY, 50)))
        assert {space.depths[arch[0]] for arch in archs} == {layers} and len(np.unique(archs, axis=0)) > 3
        assert ((archs[:, 2:] >= 0).sum(1) == 2 * layers).all()
