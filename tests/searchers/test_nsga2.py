"""NSGA-II: ranks and crowding by hand, elitism, and the true front of a space that can be enumerated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.searchers.nsga2 import crowding_distance, domination_rank, front, nsga2
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Status

QUICK = {"xla_backend_optimization_level": 0}
CELLS = TabularCell(edges=5, ops=("a", "b", "c", "d"))  # 1,024
GAIN = jnp.array([0.0, 1.0, 2.0, 3.25])  # sums of these are exact, compiled in any way
WEIGHT = jnp.array([1.0, 1.25, 0.75, 2.0, 0.5])
PRICE = jnp.array([0.0, 1.0, 3.0, 7.0])
SMALL = {"population": 6, "capacity": 24}
INF = np.inf


def objectives(arch):
    """A sum to gain and a sum to save, f32[N, 2]."""
    return jnp.stack([GAIN[arch] @ WEIGHT, -PRICE[arch].sum(-1)], -1)


def three(arch):
    return jnp.concatenate([objectives(arch), -arch[:, :2].sum(1, keepdims=True).astype(jnp.float32)], 1)


def evaluation(fitness, status=None):
    fitness = jnp.asarray(fitness, jnp.float32)
    status = jnp.zeros(len(fitness), jnp.int8) if status is None else jnp.asarray(status, jnp.int8)
    return Evaluation(fitness, jnp.zeros(len(fitness)), status, {})


def best_rows(fitness):
    """The naive front: row numbers that no other row dominates."""
    fitness = np.asarray(fitness)
    return [
        i for i, a in enumerate(fitness) if not any((b >= a).all() and (b > a).any() for b in fitness if b is not a)
    ]


@partial(jax.jit, static_argnums=(0, 3), compiler_options=QUICK)
def ask(searcher, key, state, n):
    return searcher.ask(key, state, n)


def searched(searcher, fitness, trials, width, seeds):
    """The states after `trials` trials, one per seed."""

    def search(key):
        def body(state, _):
            state, proposal = searcher.ask(key, state, width)
            return searcher.tell(state, proposal, evaluation(fitness(proposal.arch))), None

        return jax.lax.scan(body, searcher.init(key), length=trials // width)[0]

    return jax.jit(jax.vmap(search), compiler_options=QUICK)(jax.random.split(jax.random.key(0), seeds))


def test_domination_ranks_by_hand():
    points = [(1, 5), (2, 4), (5, 1), (1, 4), (2, 3), (2, 4), (0, 0), (4, 0)]
    assert domination_rank(jnp.array(points, jnp.float32)).tolist() == [0, 0, 0, 1, 1, 0, 2, 1]


def test_domination_ranks_of_three_objectives_are_repeated_fronts():
    fitness = np.random.default_rng(0).integers(0, 5, (40, 3)).astype(np.float32)
    rank = np.array(domination_rank(jnp.array(fitness)))
    left = np.arange(40)
    for level in range(rank.max() + 1):
        ours = left[best_rows(fitness[left])]
        assert set(ours) == set(np.flatnonzero(rank == level))
        left = np.setdiff1d(left, ours)
    assert not len(left) and rank.max() >= 3


@pytest.mark.slow
def test_crowding_by_hand():
    """A front of four over ranges 4 and 8, and a front of two; rows in no order."""
    points = np.array([(3, 2), (0, 8), (1, 6), (0, 0), (4, 0), (1, -1)], np.float32)
    rank = np.array([0, 0, 0, 1, 0, 1])
    distance = crowding_distance(jnp.array(points), jnp.array(rank))
    np.testing.assert_allclose(distance, [(4 - 1) / 4 + 6 / 8, INF, (3 - 0) / 4 + 6 / 8, INF, INF, INF])


def test_crowding_without_range_and_with_failures():
    points = np.array([(1, 0), (1, 1), (1, 2), (1, 3), (-INF, -INF), (-INF, -INF)], np.float32)
    distance = crowding_distance(jnp.array(points), jnp.array([0, 0, 0, 0, 6, 6]))
    assert not np.isnan(distance).any()
    np.testing.assert_allclose(distance[1:3], 2 / 3)  # ends of the first objective are ends of the second, too


SEARCHER = nsga2(CELLS, objectives=2, **SMALL)
KEY = jax.random.key(0)


def second_generation(fitness, status=None):
    """The first proposal told so, then the state and proposal that follow."""
    state, first = ask(SEARCHER, KEY, SEARCHER.init(KEY), 6)
    state = SEARCHER.tell(state, first, evaluation(fitness, status))
    return first, *ask(SEARCHER, KEY, state, 6)


@pytest.mark.slow
def test_members_are_the_best_ranks_then_the_least_crowded():
    """Generation 1 is bad; of 8 on the front (its 2 best and 6 children) those 6 that are least crowded stay."""
    _, state, second = second_generation([(0, 9), (9, 0), (0, 0), (0, 0), (0, 0), (0, 0)])
    assert set(np.array(state.members)) == set(range(6))
    # Distances, times 9: 4 for (1, 8), 2.2, 0.4, 4.8 for (2.2, 6.8), 11.6 and 9.
    crowd = [(1, 8), (2, 7), (2.1, 6.9), (2.2, 6.8), (5, 5), (8, 1)]
    state = SEARCHER.tell(state, second, evaluation(crowd))
    state, third = ask(SEARCHER, KEY, state, 6)
    assert set(np.array(state.members)) == {0, 1, 6, 9, 10, 11}
    assert np.array(third.id).tolist() == list(range(12, 18))
    assert np.flatnonzero(front(state)).tolist() == [0, 1, 6, 7, 8, 9, 10, 11]
    state = SEARCHER.tell(state, third, evaluation(np.zeros((6, 2))))  # worse children replace nobody
    state, _ = ask(SEARCHER, KEY, state, 6)
    assert set(np.array(state.members)) == {0, 1, 6, 9, 10, 11}


@pytest.mark.slow
def test_failures_are_never_parents():
    status = np.array([Status.OK, Status.OK, Status.LOST, Status.OK, Status.OK, Status.OK])
    fitness = [(0, 1), (np.nan, 9), (9, 9), (9, np.nan), (1, 0), (np.inf, 0)]
    first, state, second = second_generation(fitness, status)
    assert np.array(state.members).tolist()[2:] == [-1] * 4 and set(np.array(state.members)[:2]) == {0, 4}
    assert np.flatnonzero(front(state)).tolist() == [0, 4]
    parents = np.array(first.arch)[[0, 4]]
    crossed = (second.arch[:, None] == parents[None]).any(1)
    assert ((~crossed).sum(1) <= 1).all()  # each is a child of the two, with one gene changed


@pytest.mark.slow
def test_a_round_that_failed_as_a_whole_is_told_like_any_other():
    _, state, second = second_generation(np.full(6, np.nan))
    assert (np.array(state.members) == -1).all() and not front(state).any()
    assert (np.array(second.id) == np.arange(6, 12)).all()


@pytest.mark.slow
def test_tournaments_go_to_the_better_rank_then_to_the_less_crowded():
    """Of two uniform draws out of six, the i-th best (from 0) wins 11 - 2 i in 36; without crossover all are mutants.

    First trial 2 dominates the rest. Then all six lie on one front, whose ends, trials 0 and 5, are equally far.
    """
    searcher = nsga2(TabularCell(edges=12, ops=("a", "b", "c")), objectives=2, crossover_rate=0.0, **SMALL)
    better = jnp.where(jnp.arange(6) == 2, 1.0, 0.0)
    x = jnp.array([0.0, 1.0, 3.0, 8.0, 9.0, 10.0])  # neighbours of 1 to 4: 3, 7, 6 and 2 apart

    @partial(jax.jit, compiler_options=QUICK)
    @partial(jax.vmap, in_axes=(0, None))
    def children(key, fitness):
        state, first = searcher.ask(key, searcher.init(key), 6)
        state = searcher.tell(state, first, evaluation(fitness))
        return ((searcher.ask(key, state, 6)[1].arch[:, None] != first.arch[None]).sum(2) == 1).mean(0)

    keys = jax.random.split(KEY, 200)
    shares = 36 * children(keys, jnp.stack([better, better], 1)).mean(0)
    assert abs(shares[2] - 11) < 1.5 and abs(shares.sum() - 36) < 1
    shares = 36 * children(keys, jnp.stack([x, -x], 1)).mean(0)
    np.testing.assert_allclose(shares, [10, 3, 7, 5, 1, 10], atol=1.5)


@pytest.mark.slow
def test_any_width_and_order_gives_the_same_sequence():
    sequences = []
    for n in (4, 6):
        state, waiting, archs = SEARCHER.init(KEY), [], []
        while len(archs) < 18:
            state, proposal = ask(SEARCHER, KEY, state, n)
            archs += list(np.array(proposal.arch)[np.array(proposal.id) >= 0])
            waiting.append(jax.tree.map(lambda x: x[::-1], proposal))
            if len(archs) % 6 == 0:
                for late in reversed(waiting):
                    state = SEARCHER.tell(state, late, evaluation(objectives(late.arch)))
                waiting = []
        sequences.append(np.array(archs))
    np.testing.assert_array_equal(*sequences)


@pytest.mark.slow
def test_reaches_the_true_front_of_1024_cells():
    """In 500 trials nearly all of the front's 33 cells are found; random draws without repetition find half."""
    everything = CELLS.enumerate()
    truth = {everything[i].tobytes() for i in best_rows(objectives(everything))}
    assert len(truth) == 33
    states = searched(nsga2(CELLS, objectives=2, population=20, capacity=500), objectives, 500, 20, seeds=4)
    for archs, on_front in zip(np.array(states.archive.arch), np.array(jax.vmap(front)(states)), strict=True):
        assert len({row.tobytes() for row in archs}) == 500  # none twice
        assert len(truth & {row.tobytes() for row in archs[on_front]}) > 0.85 * len(truth)


@pytest.mark.slow
def test_three_objectives_within_a_limit():
    searcher = nsga2(CELLS, population=10, capacity=60, feasible=lambda arch: PRICE[arch].sum() <= 12)
    states = searched(searcher, three, 60, 10, seeds=2)
    for seed in range(2):
        state = jax.tree.map(lambda x, seed=seed: x[seed], states)
        assert int(state.archive.made) == 60 and (PRICE[state.archive.arch].sum(1) <= 12).all()
        fitness = np.array(three(state.archive.arch))
        assert np.flatnonzero(front(state)).tolist() == best_rows(fitness)
        assert np.array_equal(state.archive.fitness, fitness)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": 0}, "objectives must be at least 1"),
        ({"population": 1}, "population at least 2"),
        ({"capacity": 5}, "capacity no less than it; got 2, 6, 5"),
        ({"crossover_rate": -0.1}, "rates must be in"),
        ({"mutation_rate": 2}, "rates must be in"),
        ({"fill_tries": 0}, "tries and fill_tries at least 1"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        nsga2(CELLS, **{"objectives": 2, **SMALL, **changes})


@pytest.mark.slow
def test_another_number_of_objectives_is_refused():
    state, first = ask(SEARCHER, KEY, SEARCHER.init(KEY), 6)
    with pytest.raises(ValueError, match="ranks 2 objectives, the evaluator gives 3"):
        SEARCHER.tell(state, first, evaluation(np.zeros((6, 3))))
