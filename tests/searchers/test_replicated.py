"""Replicas of the controller as a searcher: it is the simulated scheme, and the plain searcher where it must be."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.drive.scan import scan
from nasjax.searchers import metrics, reinforce
from nasjax.searchers.distributed import distributed_reinforce
from nasjax.searchers.replicated import replicated
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Evaluator, Proposal, Status

CELL = TabularCell(edges=4, ops=("none", "skip", "conv"))
KEY = jax.random.key(3)
SETTINGS = {"policy": "independent", "learning_rate": 0.1}


def judge(key, proposal, inherited=None):
    good = (proposal.arch == 2).mean(1)
    return Evaluation(0.2 + 0.6 * good, good, jnp.zeros(len(good), jnp.int8), {}), None


def searched(searcher, trials, width):
    return jax.jit(lambda key: scan(key, searcher, Evaluator(judge), trials=trials, width=width))(KEY)


@pytest.mark.slow
def test_replicas_that_end_in_turn_are_the_simulated_scheme():
    found = searched(replicated(CELL, replicas=3, children=2, accumulate=2, **SETTINGS), 36, 2)
    simulate = distributed_reinforce(
        CELL,
        Evaluator(judge),
        replicas=3,
        children=2,
        shards=2,
        accumulate=2,
        seconds=lambda key, proposal, evaluation: jnp.full(len(proposal.id), 5.0),
        **SETTINGS,
    )
    run = simulate(KEY, 36)
    np.testing.assert_array_equal(found.arch, run.children.arch)
    params = jax.flatten_util.ravel_pytree(run.params)[0]
    np.testing.assert_allclose(found.state.params, params, rtol=2e-5, atol=2e-6)
    assert np.ptp(params) > 0.2  # they did move
    assert int(found.state.updates) == 18 and float(metrics(found.state)["staleness"]) == 2


@pytest.mark.slow
def test_one_replica_is_the_plain_searcher():
    one = searched(replicated(CELL, replicas=1, children=4, **SETTINGS), 24, 4)
    plain = searched(reinforce(CELL, samples_per_update=4, **SETTINGS), 24, 4)
    np.testing.assert_array_equal(one.arch, plain.arch)
    ours, theirs = metrics(one.state), metrics(plain.state)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_children_end_in_any_order_and_are_refused_or_fail():
    searcher = replicated(CELL, replicas=3, children=2, **SETTINGS)
    ask, tell = jax.jit(searcher.ask, static_argnums=2), jax.jit(searcher.tell)
    state, proposal = ask(KEY, jax.jit(searcher.init)(KEY), 8)
    assert proposal.id.tolist() == [0, 1, 2, 3, 4, 5, -1, -1]  # K m of them, and then it waits
    start = np.asarray(state.params)

    def told(state, *trials, status=Status.OK, fitness=0.5):
        ids = np.int32([*trials, -1][:2])
        found = Evaluation(np.full(2, fitness, np.float32), np.ones(2, np.float32), np.full(2, status, np.int8), {})
        return tell(state, Proposal(ids, np.asarray(proposal.arch)[ids], np.full(2, -1, np.int32)), found)

    def asked(state):
        state, more = ask(KEY, state, 8)
        return state, [trial for trial in more.id.tolist() if trial >= 0]

    state = told(state, 5, 0)  # no replica has all of its own
    assert int(state.updates) == 0 and (state.params == start).all()
    state, more = asked(state)
    assert more == []
    state = told(told(state, 2, status=Status.REJECTED), 3, status=Status.REJECTED)
    assert int(state.updates) == 0  # both were refused: no gradient, but new children
    state, more = asked(state)
    assert more == [6, 7]
    state = told(state, 4, status=Status.FAILED, fitness=np.nan)
    assert int(state.updates) == 1 and float(state.reward) == pytest.approx(0.5**3 / 2)  # a failed one has reward 0
    moved = np.asarray(state.params)
    state = told(state, 1, fitness=0.9)
    assert int(state.updates) == 2 and int(state.staleness) == 1 and (state.params != moved).any()
    assert np.isfinite(state.params).all()


@pytest.mark.parametrize("wrong", [{"replicas": 0}, {"children": 0}, {"accumulate": 0}])
def test_numbers_below_1_are_refused(wrong):
    with pytest.raises(ValueError, match="write 1 or more instead of"):
        replicated(CELL, **{"replicas": 2, **wrong})
