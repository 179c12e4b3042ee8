"""Aging evolution (Real et al. 2019, algorithm 1): against the paper's loop, and with many trials at a time."""

import functools
import heapq
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.searchers.aging import aging
from nasjax.spaces.resolution_graph.space import ResolutionGraph
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Status

QUICK = {"xla_backend_optimization_level": 0}
CELLS = TabularCell(4, ("a", "b", "c"))
TABLE = np.random.default_rng(0).integers(0, 12, CELLS.size()) / 12  # with ties
WEIGHTS = 3 ** np.arange(4)[::-1]  # CELLS.index
P, S = 7, 3
KEY = jax.random.key(1)


def evaluation(fitness, status=None):
    fitness = jnp.asarray(fitness, jnp.float32)
    status = np.zeros(len(fitness), np.int8) if status is None else np.asarray(status, np.int8)
    return Evaluation(fitness, np.zeros(len(fitness), np.float32), status, {})


class Search:
    """A searcher on CELLS with its functions compiled, and what it was told."""

    def __init__(self, **options):
        options = {"population": P, "sample_size": S, **options}
        self.searcher, self._ask, self._tell, self._live = compiled(**options)
        self.state, self.history = self.searcher.init(KEY), []

    def ask(self, n=1):
        self.state, proposal = self._ask(KEY, self.state, n)
        return proposal

    def tell(self, proposal, fitness=None, status=None):
        fitness = TABLE[np.asarray(proposal.arch) @ WEIGHTS] if fitness is None else fitness
        self.state = self._tell(self.state, proposal, evaluation(fitness, status))
        self.history += np.asarray(proposal.id).tolist()

    def members(self):
        """Trials from the oldest to the youngest."""
        order = np.argsort(self.state.born)
        return [int(trial) for trial in np.asarray(self.state.id)[order] if trial >= 0]

    def live(self):
        return set(np.asarray(self._live(self.state)).tolist()) - {-1}


@functools.cache
def compiled(**options):
    searcher = aging(CELLS, **options)
    ask = jax.jit(searcher.ask, static_argnums=2, compiler_options=QUICK)
    return searcher, ask, jax.jit(searcher.tell, compiler_options=QUICK), jax.jit(searcher.live)


def row(proposal, i):
    where = i if isinstance(i, slice) else slice(i, i + 1)
    return jax.tree.map(lambda x: np.asarray(x)[where], proposal)


def loop(trials, ages):
    """Algorithm 1 in plain Python, with the searcher's draws. A queue of (slot, trial), the oldest at its left."""
    queue, history = deque(), []
    sample, mutate = jax.jit(CELLS.sample, compiler_options=QUICK), jax.jit(CELLS.mutate, compiler_options=QUICK)
    for trial in range(trials):
        key_sample, key_member, key_mutate = jax.random.split(jax.random.fold_in(KEY, trial), 3)
        if trial < P:
            arch, parent = sample(key_sample), -1
        else:
            slots = dict(queue)
            drawn = [slots[int(slot)] for slot in jax.random.randint(key_member, (S,), 0, P)]
            parent = max(drawn, key=lambda member: history[member][2])  # the first of equal ones
            worst = min(drawn, key=lambda member: history[member][2])
            arch = mutate(key_mutate, history[parent][0])
        arch = np.asarray(arch)
        history.append((arch, parent, TABLE[arch @ WEIGHTS]))
        slot = trial
        if trial >= P:
            gone = queue[0] if ages else next(entry for entry in queue if entry[1] == worst)
            queue.remove(gone)
            slot = gone[0]
        queue.append((slot, trial))
    return history, [trial for _, trial in queue]


@pytest.mark.slow
@pytest.mark.parametrize("ages", [True, False])
def test_one_trial_at_a_time_is_the_papers_loop_bit_for_bit(ages):
    search, trials = Search(ages=ages), 60
    history, members = loop(trials, ages)
    for arch, parent, fitness in history:
        proposal = search.ask()
        assert int(proposal.parent[0]) == parent
        np.testing.assert_array_equal(proposal.arch[0], arch)
        search.tell(proposal, [fitness])
    assert search.members() == members
    assert (members == list(range(trials - P, trials))) == ages


@pytest.mark.slow
def test_members_are_the_last_completions_and_the_best_dies_of_age():
    search = Search()
    for trial in range(5 * P):
        proposal = search.ask()
        search.tell(proposal, [2.0 if trial == P + 2 else 0.5])
        assert search.members() == search.history[-P:]
        assert int(search.state.told) == len(search.history) == trial + 1
        assert (P + 2 in search.members()) == (P + 2 <= trial < 2 * P + 2)


@pytest.mark.slow
def test_parents_are_the_best_of_samples_with_replacement():
    """1 - (1 - 1/P)^S of the children are of the single best, 1/P with S = 1."""
    for size, expected in ((25, 0.2222), (1, 0.01)):
        search = Search(population=100, sample_size=size)
        first = row(search.ask(3000), slice(100))
        search.tell(first, np.r_[np.zeros(40), 1.0, np.zeros(59)])
        parents = np.asarray(search.ask(3000).parent)
        assert np.mean(parents == 40) == pytest.approx(expected, abs=0.025)
        assert set(parents.tolist()) <= set(range(100))


@pytest.mark.slow
def test_given_architectures_are_the_first_trials():
    first = np.arange(12).reshape(3, 4) % 3
    searcher = aging(CELLS, population=P, sample_size=S, first=first)
    proposal = searcher.ask(KEY, searcher.init(KEY), P)[1]
    np.testing.assert_array_equal(proposal.arch[:3], first)
    np.testing.assert_array_equal(proposal.arch[3:], Search().ask(P).arch[3:])
    assert (np.asarray(proposal.parent) == -1).all()
    for wrong in (first[:0], np.zeros((P + 1, 4))):
        with pytest.raises(ValueError, match="must have 1 to 7 architectures"):
            aging(CELLS, population=P, sample_size=S, first=wrong)


@pytest.mark.slow
def test_failures_take_their_place_below_everything():
    search = Search()
    status = [Status.OK, Status.FAILED, Status.LOST, Status.OK, Status.OK, Status.TIMEOUT, Status.REJECTED]
    fitness = [-5.0, 9.0, 9.0, np.nan, -6.0, 9.0, 9.0]
    search.tell(search.ask(P), fitness, status)
    assert search.members() == list(range(P - 1))  # what a limit rejects is no member
    parents = np.concatenate([search.ask(P).parent for _ in range(43)])[:300]
    tally = np.bincount(parents, minlength=P) / 300
    assert tally[0] == pytest.approx(1 - (5 / 6) ** 3, abs=0.09)
    assert tally[4] == pytest.approx((5 / 6) ** 3 - (4 / 6) ** 3, abs=0.09)
    with pytest.raises(ValueError, match="ranks one objective"):
        search.searcher.tell(search.state, search.ask(1), evaluation(np.zeros((1, 2))))


def simulated(search, workers, durations, trials):
    """Workers on a virtual clock: completions in order, and how often a worker that was free got nothing to do."""
    running, idle, done = [], 0, []
    for _ in range(workers):
        proposal = search.ask()
        heapq.heappush(running, (durations[int(proposal.id[0])], int(proposal.id[0]), proposal))
    while len(done) < trials:
        now, trial, proposal = heapq.heappop(running)
        assert set(np.asarray(proposal.parent).tolist()) - {-1} <= search.live()
        search.tell(proposal)
        done.append(trial)
        proposal = search.ask()
        idle += int(proposal.id[0]) < 0
        parent = int(proposal.parent[0])
        assert parent == -1 or parent in search.members()
        heapq.heappush(running, (now + durations[int(proposal.id[0])], int(proposal.id[0]), proposal))
    return done, idle


@pytest.mark.slow
def test_simulated_workers():
    """One worker gives the loop without workers; of eight none waits, and completion is what counts as age."""
    even, uneven = np.ones(200), np.random.default_rng(0).exponential(size=200)
    alone, plain = Search(), Search()
    done, _ = simulated(alone, 1, even, 40)
    for _ in range(40):
        plain.tell(plain.ask())
    plain.ask()  # the one that the worker has begun
    assert done == plain.history == list(range(40))
    assert all(map(np.array_equal, jax.tree.leaves(alone.state), jax.tree.leaves(plain.state)))
    crowd = Search()
    done, idle = simulated(crowd, 8, uneven, 80)
    assert idle == 0 and done != sorted(done)
    assert crowd.members() == done[-P:]
    assert crowd.live() >= set(done[-P:])


@pytest.mark.slow
def test_children_are_bred_before_the_last_random_ones_are_back():
    search = Search()
    first = search.ask(P)
    assert (np.asarray(first.parent) == -1).all()
    orphans = search.ask(P)  # nobody is there to breed from
    assert (np.asarray(orphans.parent) == -1).all()
    for i in (3, 5):
        search.tell(row(first, i))
    assert {int(parent) for _ in range(5) for parent in search.ask(P).parent} == {3, 5}
    assert search.members() == [3, 5]  # nothing is dropped before the population is full


@pytest.mark.slow
def test_live_keeps_the_parents_of_what_runs():
    search = Search()
    search.tell(search.ask(P))
    child = search.ask()
    parent = int(child.parent[0])
    for _ in range(2 * P):
        search.tell(search.ask())
    assert parent not in search.members() and parent in search.live()
    search.tell(child)
    assert parent not in search.live() and int(child.id[0]) in search.members()
    assert search.live() == set(search.members())


@pytest.mark.slow
@pytest.mark.parametrize("ages", [True, False])
def test_more_trials_at_a_time_than_slots_for_them(ages):
    search = Search(ages=ages, in_flight=2)
    search.tell(search.ask(P))
    many = search.ask(P)
    assert len(search.live() - set(search.members())) == 0
    for i in (4, 0, 5, 6, 1, 3, 2):
        search.tell(row(many, i))
        assert len(search.members()) == P
    assert set(many.id.tolist()) <= set(search.members())


@pytest.mark.slow
def test_without_aging_the_worst_of_the_sample_leaves():
    search = Search(ages=False)
    search.tell(search.ask(P), [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    for _ in range(30):
        search.tell(search.ask(), [0.55])
    assert 0 in search.members() and 1 not in search.members()  # the best never is the worst of a mixed sample


def test_a_wide_tell_is_many_narrow_ones():
    wide, narrow = Search(), Search()
    for _ in range(4):
        a, b = wide.ask(P), narrow.ask(P)
        wide.tell(a)
        for i in range(P):
            narrow.tell(row(b, i))
    assert all(map(np.array_equal, jax.tree.leaves(wide.state), jax.tree.leaves(narrow.state)))


@pytest.mark.parametrize("wrong", [{"population": 0}, {"sample_size": 0}, {"in_flight": 0}])
def test_settings(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        aging(CELLS, **wrong)


@pytest.mark.slow
def test_graphs_evolve_inside_jit_and_grow_where_fitness_says_nothing():
    """Two seeds as one vmapped program, the space's numpy behind it; every individual is valid and in range."""
    space = ResolutionGraph(4, 30, 90, channels=(2,), min_params=200, max_params=200_000)
    searcher = aging(space, population=10, sample_size=2)

    def run(key):
        def body(state, _):
            state, proposal = searcher.ask(key, state, 5)
            return searcher.tell(state, proposal, evaluation(jnp.ones(5))), proposal

        return jax.lax.scan(body, searcher.init(key), length=36)[1]

    keys = jax.random.split(KEY, 2)
    asked = jax.tree.map(np.asarray, jax.jit(jax.vmap(run), compiler_options=QUICK)(keys))
    alone = jax.jit(run, compiler_options=QUICK)(keys[1])
    np.testing.assert_array_equal(asked.arch[1], alone.arch)
    edges = np.array([[len(space.graph(arch).edges) for arch in archs.reshape(180, -1)] for archs in asked.arch])
    for arch in asked.arch[0].reshape(180, -1)[::9]:
        space.validate(arch)
    assert edges[:, -40:].mean() > edges[:, 40:80].mean() > edges[:, :10].mean()
    assert (asked.parent.reshape(2, -1)[:, 10:] >= 0).all() and (asked.parent.reshape(2, -1)[:, :10] == -1).all()
