"""A space that keeps to a limit: what is drawn again, and what is reached by mutation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.searchers.limits import Limited
from nasjax.spaces.tabular_cell.space import TabularCell

QUICK = {"xla_backend_optimization_level": 0}
CELLS = TabularCell(4, ("a", "b", "c"))
LONG = TabularCell(7, ("a", "b"))  # 21 edges: one of 2^21 random cells is all "a"
KEYS = jax.random.split(jax.random.key(0), 40)


def drawn(space, limit):
    """Random cells and their mutants within a limit on the sum of the operators' numbers."""
    limited = Limited(space, lambda arch: arch.sum() / limit)
    one = jax.jit(lambda key: limited.mutate(key, limited.sample(key)), compiler_options=QUICK)
    sample = jax.jit(limited.sample, compiler_options=QUICK)
    return [np.array([f(key) for key in KEYS]) for f in (sample, one)]


@pytest.mark.slow
def test_what_is_beyond_a_limit_is_drawn_again_and_what_is_within_stays():
    plain = np.array([CELLS.sample(key) for key in KEYS[:20]])
    within = plain.sum(1) <= 4
    samples, mutants = drawn(CELLS, 4)
    assert within.any() and not within.all()
    np.testing.assert_array_equal(samples[:20][within], plain[within])
    assert samples.sum(1).max() <= 4 and mutants.sum(1).max() <= 4
    assert len(np.unique(samples, axis=0)) > 10


@pytest.mark.slow
def test_a_limit_that_random_draws_do_not_meet_is_reached_by_mutation():
    samples, mutants = drawn(LONG, 1)
    assert samples.sum(1).max() <= 1 and mutants.sum(1).max() <= 1


@pytest.mark.slow
def test_what_no_draw_reaches_is_given_as_near_as_it_gets():
    limited = Limited(CELLS, lambda arch: jnp.float32(2) + arch.sum())
    nearest = jax.jit(limited.sample, compiler_options=QUICK)(KEYS[0])
    assert int(np.asarray(nearest).sum()) == 0
