"""--max_params and --max_macs of an evolution: what is beyond costs no trial; what cannot be reached is told first."""

import dataclasses

import jax
import numpy as np
import pytest

from nasjax import commands
from nasjax.experiments.families.limits import limited, require_reachable
from nasjax.problem.problem import Problem


def problem(**limits):
    return Problem(dataclasses.replace(commands.configure("evolution"), **limits))


def test_without_limits_the_space_is_itself():
    about = problem()
    assert limited(about) is about.space
    require_reachable(about, about.space)


@pytest.mark.slow
def test_graphs_and_their_mutants_keep_to_limits_that_hardly_any_random_one_keeps_to():
    about = problem(max_params=20_000, max_macs=9_000_000)  # random ones have 26,000 and 10 million or more
    space = limited(about)
    assert space.name == about.space.name and space.arch_size == about.space.arch_size
    require_reachable(about, space)
    sample, mutate = jax.jit(space.sample), jax.jit(space.mutate)
    for seed in range(3):
        arch = sample(jax.random.key(seed))
        for one in (arch, mutate(jax.random.key(seed), arch)):
            built = about.build(np.asarray(one))
            assert built.params <= 20_000 and built.macs <= 9_000_000


@pytest.mark.slow
def test_a_limit_below_every_network_is_refused_before_the_search():
    about = problem(max_params=400)
    with pytest.raises(
        ValueError,
        match=r"no architecture .* within max_params=400: the nearest has params \d+; give a larger limit. It is {",
    ):
        require_reachable(about, limited(about))
