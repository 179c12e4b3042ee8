"""Local search: its neighbours, the walk against one in NumPy, several candidates at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.searchers.local_search import local_search
from nasjax.searchers.neighbours import neighbours
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.darts_cell.space import DartsCell
from nasjax.spaces.site_space import SiteSpace
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Status

SPACES = {
    "cells": TabularCell(3, ("a", "b", "c")),
    "pairs of sources": DartsCell(("sep_conv_3x3", "skip_connect")),
    "sites that hang on others": SiteSpace("own", {"kind": ("a", "b"), "size": (1, 2, 3)}, {"size": {"kind": ["b"]}}),
    "depths": ConvChain(1, 2, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4,), skips=False),
}


def rows(archs):
    return {tuple(arch) for arch in np.asarray(archs).tolist()}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_neighbours_are_what_a_mutation_can_give(name):
    space = SPACES[name]
    arch = space.sample(jax.random.key(3))
    one = jax.jit(neighbours(space))
    archs, there = jax.vmap(one, (0, None))(jax.random.split(jax.random.key(0), 40), arch)
    found = rows(archs[there])
    mutants = jax.vmap(jax.jit(space.mutate), (0, None))(jax.random.split(jax.random.key(1), 3000), arch)
    assert found == rows(mutants) and tuple(arch.tolist()) not in found
    for row in found:
        space.validate(np.array(row))


def test_the_key_draws_the_order_of_the_neighbours():
    space = SPACES["cells"]
    one, other = (neighbours(space)(jax.random.key(n), jnp.zeros(3, jnp.int32))[0] for n in (0, 1))
    assert one.tolist() != other.tolist() and rows(one) == rows(other) and len(rows(one)) == 6


class Bare:
    """A space that says no more than it must."""

    name, sites = "bare", TabularCell(2, ("a", "b", "c")).sites
    sample, mutate = TabularCell(2, ("a", "b", "c")).sample, TabularCell(2, ("a", "b", "c")).mutate


def test_a_space_without_neighbours_has_mutants():
    archs, there = neighbours(Bare())(jax.random.key(0), jnp.zeros(2, jnp.int32))
    assert len(archs) == 4 and there.all() and all(row.count(0) == 1 for row in archs.tolist())


CELL = TabularCell(4, ("a", "b", "c"))
FITNESS = np.random.default_rng(5).permutation(CELL.size()).astype(np.float32)


def walk(n, rounds, fitness=FITNESS, **settings):
    """Rows of CELL that were asked for, round by round, and the last state."""
    searcher = local_search(CELL, capacity=100, **settings)
    ask, tell = jax.jit(searcher.ask, static_argnums=2), jax.jit(searcher.tell)
    state, asked = searcher.init(jax.random.key(0)), []
    for _ in range(rounds):
        state, proposal = ask(jax.random.key(1), state, n)
        index = np.array(CELL.index(proposal.arch))[np.array(proposal.id) >= 0]
        values = np.resize(fitness[index], n) if len(index) else np.zeros(n)
        status = jnp.where(jnp.isnan(values), Status.FAILED, Status.OK).astype(jnp.int8)
        state = tell(state, proposal, Evaluation(jnp.asarray(values, jnp.float32), jnp.ones(n), status, {}))
        asked.append(index.tolist())
    return asked, state


def around(row):
    """Rows of CELL one edge apart."""
    every = CELL.enumerate()
    return set(np.flatnonzero((every != every[row]).sum(1) == 1).tolist())


@pytest.mark.slow
def test_one_at_a_time_it_is_the_papers_algorithm():
    """All neighbours, then those of the best if it is better; else a random start. Nothing twice, to the last cell."""
    (*asked,) = (row for rows in walk(1, 83, first_better=False)[0] for row in rows)
    assert sorted(asked) == list(range(81))
    at, seen, walks = 0, set(), 0
    while at < 40:  # later few are left around a start
        centre, walks = asked[at], walks + 1
        seen.add(centre)
        at += 1
        while True:
            new = around(centre) - seen
            assert set(asked[at : at + len(new)]) == new
            seen, at = seen | new, at + len(new)
            best = max(around(centre), key=lambda row: FITNESS[row])
            if FITNESS[best] <= FITNESS[centre]:
                break
            centre = best
    assert walks > 1


@pytest.mark.slow
def test_it_may_move_to_the_first_better_neighbour():
    smooth = np.arange(81, dtype=np.float32)  # no local optimum but the last cell
    whole, first = (walk(1, 60, smooth, first_better=choice)[0] for choice in (False, True))
    assert first.index([80]) < whole.index([80])


@pytest.mark.slow
def test_several_at_a_time_are_distinct_and_wait_for_no_one():
    asked, state = walk(7, 12)
    assert all(len(rows) == 7 for rows in asked[:11]) and sorted(row for some in asked for row in some) == list(
        range(81)
    )
    assert int(state.archive.made) == 81


@pytest.mark.slow
def test_failures_are_never_a_centre():
    fails = np.where(np.arange(81) % 3 == 0, np.nan, FITNESS)
    for n in (1, 4):
        _, state = walk(n, 30, fails)
        assert int(state.centre) < 0 or np.isfinite(float(state.archive.fitness[state.centre, 0]))


def test_a_capacity_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="capacity"):
        local_search(CELL, capacity=0)
