"""The pure form of a search: what is told, when the budget ends, and that it is the host loop's search."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.real_data import TABLE

from nasjax.drive import search as drive
from nasjax.drive.scan import History, incumbent, scan
from nasjax.drive.work import worker
from nasjax.evaluators.table import Table, load_table, table
from nasjax.runtime.inline import inline
from nasjax.searchers.random import random_search
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Budget, Evaluation, Evaluator, Proposal, Searcher

SPACE = TabularCell(edges=3, ops=("none", "skip", "conv"))  # 27 cells
FITNESS = np.random.default_rng(0).permutation(27).astype(np.float32) / 27
ROWS = Table(FITNESS, np.arange(27, dtype=np.float32) + 1, FITNESS**2, np.ones(27, bool))
EVALUATOR = table(SPACE, ROWS)
KEY = jax.random.key(3)


class Told(NamedTuple):
    """State of `sweep`."""

    asked: jax.Array  # i32[]
    fitness: jax.Array  # f32[64], what was told of trial i; -1 = nothing


def sweep():
    """A searcher that asks the lattice in order, one id in four left out, and remembers what it is told."""
    rows = jnp.asarray(SPACE.enumerate())

    def init(key):
        return Told(jnp.int32(0), jnp.full(64, -1.0))

    def ask(key, state, n):
        ids = state.asked + jnp.arange(n)
        return state._replace(asked=state.asked + n), Proposal(
            jnp.where(ids % 4 == 3, -1, ids), rows[ids % 27], jnp.full(n, -1)
        )

    def tell(state, proposal, evaluation):
        at = jnp.where(proposal.id >= 0, proposal.id, 64)
        return state._replace(fitness=state.fitness.at[at].set(evaluation.fitness, mode="drop"))

    return Searcher(init, ask, tell, lambda state: jnp.zeros(0, jnp.int32))


@pytest.mark.parametrize("width", [1, 3, 10])
def test_budget_ends_with_the_trial_that_would_exceed_it(width):
    history = scan(KEY, sweep(), EVALUATOR, trials=10, width=width, budget_cost=24.0)
    # Trial i costs i + 1 seconds; 3 and 7 were never asked: 1 + 2 + 3 + 5 + 6 + 7 = 24, the next would be 33.
    counted = [0, 1, 2, 4, 5, 6]
    np.testing.assert_array_equal(np.flatnonzero(history.valid), counted)
    np.testing.assert_array_equal(np.flatnonzero(history.state.fitness >= 0), counted)
    np.testing.assert_array_equal(history.state.fitness[np.array(counted)], FITNESS[counted])
    np.testing.assert_array_equal(history.cost, np.arange(10) + 1)
    less = scan(KEY, sweep(), EVALUATOR, trials=10, width=width, budget_cost=23.9)
    np.testing.assert_array_equal(np.flatnonzero(less.valid), counted[:-1])


@pytest.mark.parametrize(("trials", "width"), [(9, 1), (9, 3), (9, 4), (2, 5)])
def test_history_has_one_row_per_trial(trials, width):
    history = scan(KEY, sweep(), EVALUATOR, trials=trials, width=width)
    np.testing.assert_array_equal(history.arch, SPACE.enumerate()[:trials])
    np.testing.assert_array_equal(history.fitness, FITNESS[:trials])
    np.testing.assert_array_equal(history.info["result"], FITNESS[:trials] ** 2)
    np.testing.assert_array_equal(history.valid, np.arange(trials) % 4 != 3)
    assert (history.state.fitness >= 0).sum() == history.valid.sum()  # the padding of a last round is not told


@pytest.mark.slow
def test_incumbent_is_the_first_best_valid_trial():
    fitness = np.array([np.nan, 0.2, 0.9, 0.5, 0.5, np.inf, 0.7, 0.8], np.float32)
    valid = np.array([1, 1, 0, 1, 1, 1, 1, 0], bool)
    rest = np.zeros(8)
    history = History(rest, jnp.asarray(fitness), rest, rest, {}, jnp.asarray(valid), None)
    np.testing.assert_array_equal(incumbent(history), [-1, 1, 1, 3, 3, 3, 6, 6])
    with pytest.raises(ValueError, match=r"one objective, got fitness of shape \(8, 2\)"):
        incumbent(history._replace(fitness=jnp.ones((8, 2))))


@pytest.mark.slow
def test_many_searches_are_one_program():
    keys = jax.random.split(KEY, 5)
    run = jax.jit(lambda key: scan(key, random_search(SPACE), EVALUATOR, trials=12, width=2, budget_cost=100.0))
    many = jax.jit(jax.vmap(run))(keys)
    for n in (0, 4):
        jax.tree.map(lambda a, b, n=n: np.testing.assert_array_equal(a[n], b), many, run(keys[n]))
    assert len({arch.tobytes() for arch in np.asarray(many.arch)}) == 5
    lengths = many.valid.sum(1)
    assert lengths.min() < lengths.max() < 12


@pytest.mark.slow
def test_random_search_finds_what_order_statistics_say():
    trials, seeds = 8, 4000
    run = jax.jit(jax.vmap(lambda key: scan(key, random_search(SPACE), EVALUATOR, trials=trials)._replace(state=None)))
    history = run(jax.random.split(jax.random.key(1), seeds))
    best = jax.vmap(incumbent)(history)[:, -1]
    found = np.take_along_axis(np.asarray(history.info["result"]), np.asarray(best)[:, None], 1)[:, 0]
    # P(the best of T draws is among the k worst of 27) = (k / 27)^T
    steps = np.diff((np.arange(28) / 27) ** trials)
    exact = (steps * np.sort(FITNESS) ** 2).sum()
    assert abs(found.mean() - exact) < 4 * found.std() / seeds**0.5


@pytest.mark.slow
def test_it_is_the_search_of_the_host_loop(tmp_path):
    searcher, key = random_search(SPACE), jax.random.key(7)
    summary = drive.search(
        key,
        searcher,
        inline(worker(EVALUATOR, tmp_path)),
        workdir=tmp_path,
        budget=Budget(trials=7),
        width=3,
        describe=lambda arch: {"arch": SPACE.encode(arch), "params": None, "macs": None},
    )
    history = scan(key, searcher, EVALUATOR, trials=7, width=3)
    rows = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal([SPACE.decode(row["arch"]) for row in rows], history.arch)
    np.testing.assert_array_equal(np.float32([row["fitness"] for row in rows]), history.fitness)
    assert summary.best["id"] == int(incumbent(history)[-1])


@pytest.mark.slow
def test_costs_and_failures_come_through():
    def evaluate(key, proposal, inherited):
        nothing = jnp.full(len(proposal.id), jnp.nan)
        return Evaluation(nothing, jnp.ones(len(proposal.id)), jnp.ones(len(proposal.id), jnp.int8), {}), None

    history = scan(KEY, random_search(SPACE), Evaluator(evaluate), trials=4, budget_cost=3.0)
    np.testing.assert_array_equal(history.valid, [True, True, True, False])  # a failed trial is a trial, and costs
    np.testing.assert_array_equal(incumbent(history), -1)


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"trials": 3, "width": 0}])
def test_wrong_use(wrong):
    with pytest.raises(ValueError, match="trials and width must be at least 1"):
        scan(KEY, sweep(), EVALUATOR, **wrong)


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.exists(), reason="no NAS-Bench-201 table; set NASJAX_DATA")
def test_random_search_on_nas_bench_201():
    """The paper's protocol: 93.70 +- 0.36 published, 93.76 +- 0.35 from a plain reference on this table."""
    space = TabularCell()
    evaluator = table(space, load_table(TABLE, space))

    def run(key):
        history = scan(key, random_search(space), evaluator, trials=160, budget_cost=12_000.0)
        return history.info["result"][incumbent(history)[-1]], history.valid

    found, valid = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 300))
    assert not valid[:, -1].any()  # the budget ended every search
    assert 105 < valid.sum(1).mean() < 116
    assert found.mean() == pytest.approx(0.9376, abs=0.0008)  # 4 standard errors
    assert found.std() == pytest.approx(0.0035, abs=0.001)
