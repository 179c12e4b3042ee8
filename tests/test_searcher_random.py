"""Random search samples the whole space, at the depth it is told."""

import jax
import numpy as np
import pytest

from nasjax.searchers import depth_schedule, random_search
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.spaces.vit_chain.space import VitChain

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


def test_a_schedule_needs_a_space_that_samples_at_a_depth():
    with pytest.raises(ValueError, match=r"vit_chain cannot sample at a given depth: .*--set search.depth_first=none"):
        random_search(VitChain(), depth_schedule=depth_schedule())
