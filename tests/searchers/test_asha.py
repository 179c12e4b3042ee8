"""ASHA: the paper's rule, without barriers, over any sampler."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import commands
from nasjax.drive.scan import History, incumbent, scan
from nasjax.experiments import asha as experiment
from nasjax.problem.problem import Problem
from nasjax.searchers.asha import AshaState, asha, geometric
from nasjax.settings import override
from nasjax.types import Evaluation, Evaluator, Proposal, Searcher, Site, Status

RUNGS, ETA, CAPACITY, KEY = (1, 3, 9), 3, 60, jax.random.key(0)


class Line:
    """A space of one decision."""

    name, sites = "line", (Site("only", tuple(range(100)), "number", 0),)


class Told(NamedTuple):
    """State of a sampler that proposes 0, 1, 2, ... and notes what it hears."""

    asked: jax.Array
    fitness: jax.Array
    times: jax.Array


def counting(most=1000):
    def ask(key, state, n):
        ids = state.asked + jnp.arange(n)
        ids = jnp.where(ids < most, ids, -1)
        return state._replace(asked=state.asked + (ids >= 0).sum()), Proposal(ids, ids[:, None], ids - 1)

    def tell(state, proposal, evaluation):
        place = jnp.where(proposal.id < 0, CAPACITY, proposal.id)
        return state._replace(
            fitness=state.fitness.at[place].set(evaluation.fitness, mode="drop"),
            times=state.times.at[place].add(1, mode="drop"),
        )

    start = Told(jnp.int32(0), jnp.zeros(CAPACITY), jnp.zeros(CAPACITY, jnp.int32))
    return Searcher(lambda key: start, ask, tell, lambda state: jnp.zeros(0, jnp.int32))


def searcher(most=1000):
    found = asha(counting(most), Line(), rungs=RUNGS, eta=ETA, capacity=CAPACITY)
    return found._replace(ask=jax.jit(found.ask, static_argnums=2), tell=jax.jit(found.tell))


@pytest.fixture(scope="module")
def plain():
    return searcher()


def told(found, state, proposal, fitness, status=Status.OK):
    n = len(proposal.id)
    status = np.full(n, status, np.int8)
    return found.tell(state, proposal, Evaluation(np.full(n, fitness, np.float32), np.zeros(n), status, {}))


class Rule:
    """Algorithm 2 of the paper in plain Python; failures are the worst, rejected trials do not count."""

    def __init__(self):
        self.trials, self.configs = [], 0  # [rung, fitness | None = running, promoted, counts]

    def ask(self):
        """(parent, rung)"""
        for rung in (1, 0):
            ended = [i for i, t in enumerate(self.trials) if t[0] == rung and t[1] is not None and t[3]]
            best = sorted(ended, key=lambda i: (-self.trials[i][1], i))[: len(ended) // ETA]
            for i in best:
                if not self.trials[i][2] and np.isfinite(self.trials[i][1]):
                    self.trials[i][2] = True
                    self.trials.append([rung + 1, None, False, True])
                    return i, rung + 1
        self.trials.append([0, None, False, True])
        return -1, 0

    def tell(self, i, fitness, counts):
        self.trials[i][1], self.trials[i][3] = fitness, counts


def test_it_promotes_by_the_papers_rule_whatever_the_order_of_results(plain):
    """Four workers whose results come in any order; some fail, some are rejected, some are equally good."""
    rng, rule, running = np.random.default_rng(0), Rule(), []
    state, numbers = plain.init(KEY), {}
    for _ in range(CAPACITY):
        state, proposal = plain.ask(KEY, state, 1)
        trial, parent, epochs = (int(x[0]) for x in (proposal.id, proposal.parent, proposal.fidelity))
        assert (parent, epochs) == (lambda p, rung: (p, RUNGS[rung]))(*rule.ask()) and trial == len(rule.trials) - 1
        numbers[trial] = len({*numbers.values()}) if parent < 0 else numbers[parent]
        assert proposal.arch.tolist() == [[numbers[trial]]]  # a new one, or the parent's own
        running.append(proposal)
        if len(running) == 4:
            done = running.pop(rng.integers(4))
            fitness, status = float(rng.integers(20)), Status.OK
            if rng.random() < 0.2:
                fitness, status = np.nan, [Status.FAILED, Status.REJECTED][rng.integers(2)]
            rule.tell(int(done.id[0]), -np.inf if np.isnan(fitness) else fitness, status != Status.REJECTED)
            state = told(plain, state, done, fitness, status)
    rungs = [trial[0] for trial in rule.trials]
    assert state.rung.tolist() == rungs and rungs.count(2) >= 2  # the rule was tried in every rung
    assert state.promoted.tolist() == [trial[2] for trial in rule.trials]
    ended = [i for i, t in enumerate(rule.trials) if t[1] is not None and t[3]]
    places = {}  # in its rung, of the trials that may still be promoted
    for i in ended:
        rung, fitness, promoted, _ = rule.trials[i]
        if rung < 2 and not promoted and np.isfinite(fitness):
            same = [j for j in ended if rule.trials[j][0] == rung]
            places[i] = sorted(same, key=lambda j: (-rule.trials[j][1], j)).index(i)
    live = {int(i) for i in plain.live(state)} - {-1}
    assert live == {i for i, place in places.items() if place < CAPACITY // ETA} and len(places) > len(live) > 0
    assert plain.ask(KEY, state, 2)[1].id.tolist() == [-1, -1]  # no trial beyond the capacity


def test_the_sampler_hears_of_every_architecture_once_and_at_the_lowest_rung(plain):
    state = plain.init(KEY)
    for trial in range(20):
        state, proposal = plain.ask(KEY, state, 1)
        state = told(plain, state, proposal, 100.0 * (int(proposal.fidelity[0]) > 1) + trial)
    new = [i for i in range(20) if int(state.rung[i]) == 0]
    assert len(new) < 20 and int(state.sampler.asked) == len(new)
    assert state.sampler.times.tolist() == [1] * len(new) + [0] * (CAPACITY - len(new))
    assert state.sampler.fitness[: len(new)].tolist() == new


def test_where_the_sampler_has_nothing_more_the_promotions_go_on():
    few = searcher(most=3)
    state, proposal = few.ask(KEY, few.init(KEY), 4)
    assert proposal.id.tolist() == [0, 1, 2, -1] and proposal.fidelity.tolist() == [1, 1, 1, -1]
    state = told(few, state, proposal, 0.5)
    state, proposal = few.ask(KEY, state, 4)
    assert proposal.id.tolist() == [3, -1, -1, -1] and proposal.parent[0] == 0 and proposal.fidelity[0] == 3


def test_the_best_is_among_the_longest_trained():
    fitness = jnp.array([0.5, 0.9, 0.3, 0.4, jnp.nan])
    nothing = jnp.zeros(5)
    history = History(nothing, fitness, nothing, nothing, {}, jnp.ones(5, bool), None, jnp.array([1, 1, 3, 3, 9]))
    best = jax.jit(lambda history: (incumbent(history), incumbent(history._replace(fidelity=None))))(history)
    assert [found.tolist() for found in best] == [[0, 1, 2, 3, 3], [0, 1, 1, 1, 1]]


@pytest.mark.slow
def test_many_searches_are_one_program():
    """A short training flatters: its results are larger than those of the whole one."""

    def evaluate(key, proposal, inherited):
        fitness = proposal.arch[:, 0] / 100 + 1.0 / proposal.fidelity
        nothing = jnp.zeros(len(fitness))
        return Evaluation(fitness, nothing, nothing.astype(jnp.int8), {}), None

    found = asha(counting(), Line(), rungs=RUNGS, eta=ETA, capacity=CAPACITY)
    search = jax.jit(jax.vmap(lambda key: scan(key, found, Evaluator(evaluate), trials=20, width=2)))
    history = search(jax.random.split(KEY, 2))
    one = jax.tree.map(lambda leaf: leaf[1], history)
    best = int(incumbent(one)[-1])
    assert one.fidelity[best] == 9 and one.fitness[best] < one.fitness.max()
    assert isinstance(one.state, AshaState) and one.state.rung[best] == 2


def test_rungs_are_powers_and_end_with_the_whole_training():
    assert geometric(1, 9, 3) == (1, 3, 9) and geometric(1, 10, 3) == (1, 3, 10) and geometric(2, 50, 4) == (2, 8, 50)
    with pytest.raises(ValueError, match="more than the 3 epochs"):
        geometric(1, 3, 4)
    with pytest.raises(ValueError, match="two increasing"):
        asha(counting(), Line(), rungs=(3, 3))
    with pytest.raises(ValueError, match="eta must be at least 2"):
        asha(counting(), Line(), rungs=(1, 3), eta=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "bo", "evolution", "reinforce"])
def test_it_takes_any_sampler_and_its_state_keeps_its_form(name):
    """Traced, not compiled."""
    config = override(commands.configure("asha"), f"search.sampler={name}", "space.min_layers=2", "space.max_layers=2")
    problem = Problem(config)
    found = asha(experiment.sampler(problem, 20), problem.space, rungs=RUNGS, eta=ETA, capacity=20)
    state = jax.eval_shape(found.init, KEY)
    after, proposal = jax.eval_shape(lambda state: found.ask(KEY, state, 3), state)
    rows = jax.ShapeDtypeStruct((3,), jnp.float32)
    told = jax.eval_shape(found.tell, after, proposal, Evaluation(rows, rows, jnp.zeros(3, jnp.int8), {}))
    forms = [[(x.shape, x.dtype) for x in jax.tree.leaves(one)] for one in (state, after, told)]
    assert forms[0] == forms[1] == forms[2] and proposal.fidelity.shape == (3,)
