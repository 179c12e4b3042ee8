"""Top-k evolution as SPOS's release has it: who breeds, what is dropped, and the optimum of a small space."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.tiny_choice_chains import tiny

from nasjax.searchers import archive, best_path, random_search, top, topk_evolution
from nasjax.spaces.choice_chain.space import ChoiceChain
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Status

PATHS = tiny(depths=(4,)).space  # 4 layers, 3 operators, 81 paths; it knows mutate_genes
RNG = np.random.default_rng(3)
SCORES, COSTS, LIMIT = RNG.uniform(0, 1, (4, 3)), RNG.integers(10, 40, (4, 3)), 107
CELLS = TabularCell()  # 5^6 cells; a mutant differs in one edge
QUICK = {"xla_backend_optimization_level": 0}
SMALL = {"population": 12, "top_k": 2, "mutants": 5, "crossovers": 4, "capacity": 60}
SEARCHER = topk_evolution(CELLS, **SMALL)


def score(arch):
    return jnp.asarray(SCORES, jnp.float32)[jnp.arange(4), arch].sum(-1)


def cost(arch):
    return jnp.asarray(COSTS, jnp.int32)[jnp.arange(4), arch].sum(-1)


def within(arch):
    return cost(arch) <= LIMIT


def evaluation(fitness, status=None):
    fitness = jnp.asarray(fitness, jnp.float32)
    status = jnp.zeros(len(fitness), jnp.int8) if status is None else jnp.asarray(status, jnp.int8)
    return Evaluation(fitness, jnp.zeros(len(fitness)), status, {})


@partial(jax.jit, static_argnums=(0, 3), compiler_options=QUICK)
def asking(searcher, key, state, n):
    return searcher.ask(key, state, n)


def generations(searcher, tellings):
    """Archs of a first generation and of those that follow when each is told the next of `tellings`."""
    key = jax.random.key(0)
    state, archs = searcher.init(key), []
    for telling in (*tellings, None):
        state, proposal = asking(searcher, key, state, SMALL["population"])
        archs.append(np.array(proposal.arch))
        if telling is not None:
            state = searcher.tell(state, proposal, evaluation(*telling(np.arange(len(proposal.id)))))
    return archs


@pytest.fixture(scope="module")
def fifty():
    """50 seeds at once search the 81 paths to the end, in rounds of 10: ids and archs [50, rounds, 10], last states."""
    searcher = topk_evolution(
        PATHS, population=10, top_k=4, mutants=5, crossovers=5, feasible=within, capacity=100, fill_tries=800
    )

    def search(key):
        def body(state, _):
            state, proposal = searcher.ask(key, state, 10)
            return searcher.tell(state, proposal, evaluation(score(proposal.arch))), (proposal.id, proposal.arch)

        return jax.lax.scan(body, searcher.init(key), length=8)

    state, (ids, archs) = jax.jit(jax.vmap(search), compiler_options=QUICK)(jax.random.split(jax.random.key(0), 50))
    return np.array(ids), np.array(archs), state


@pytest.mark.slow
def test_every_seed_finds_the_optimum_of_81_paths_under_a_limit(fifty):
    _, archs, state = fifty
    everything = PATHS.enumerate()
    allowed = everything[np.array(within(everything))]
    best = allowed[np.array(score(allowed)).argmax()]
    assert 40 < len(allowed) < 70  # the limit matters
    exact, value, spent = best_path(SCORES, COSTS, LIMIT)
    assert np.array_equal(exact, best) and spent <= LIMIT
    assert SCORES.argmax(1).tolist() != best.tolist()
    paths, fitness = jax.vmap(partial(top, k=3))(state)
    assert (np.array(paths[:, 0]) == best[None]).all()
    np.testing.assert_allclose(fitness[:, 0], value, rtol=1e-6)
    early = (archs[:, :3] == best[None, None, None]).all(-1).any((1, 2))
    assert early.mean() > 0.7  # within 30 trials; random draws without repetition: 30 of 49


@pytest.mark.slow
def test_every_feasible_path_is_asked_once_and_then_nothing(fifty):
    ids, archs, _ = fifty
    feasible = {row.tobytes() for row in PATHS.enumerate() if within(row)}
    for seed in range(50):
        there = ids[seed] >= 0
        assert ids[seed][there].tolist() == list(range(len(feasible)))
        assert {row.tobytes() for row in archs[seed][there]} == feasible
        assert not there[-3:].any() and (archs[seed][~there] == -1).all()
    assert len({archs[seed, 0].tobytes() for seed in range(50)}) == 50


@pytest.mark.slow
def test_any_width_and_order_gives_the_same_sequence():
    """One at a time or a generation at once, told backwards; nothing is asked while results are missing."""
    searcher, key = SEARCHER, jax.random.key(4)
    sequences = []
    for n in (1, 12):
        state, waiting, archs = searcher.init(key), [], []
        while len(archs) < 36:
            state, proposal = asking(searcher, key, state, n)
            asked = np.array(proposal.id) >= 0
            archs += list(np.array(proposal.arch)[asked])
            waiting.append(proposal)
            if len(archs) % 12 == 0:
                assert (np.array(asking(searcher, key, state, n)[1].id) == -1).all()
                for late in reversed(waiting):
                    late = jax.tree.map(lambda x: x[::-1], late)
                    fitness = (late.arch == 3).mean(1) + late.arch[:, 0] / 100
                    state = searcher.tell(state, late, evaluation(fitness))
                waiting = []
        sequences.append(np.array(archs))
    for other in sequences[1:]:
        np.testing.assert_array_equal(sequences[0], other)


@pytest.mark.slow
def test_mutants_then_crossovers_of_the_best_k_then_random():
    first, second = generations(SEARCHER, [lambda i: (jnp.where((i == 3) | (i == 8), 1.0, 0.1),)])
    parents = first[[3, 8]]
    distance = (second[:, None] != parents[None]).sum(2).min(1)
    assert (distance[:5] == 1).all()
    crossed = ((second[:, None] == parents[None]).any(1)).all(1)
    assert crossed[5:9].all() and (distance[5:9] > 0).all()
    assert not crossed[9:].any() and (distance[9:] > 1).any()


@pytest.mark.slow
def test_parents_are_the_best_of_all_generations():
    """The second generation is told to be bad: the third has the first's parents; one good late-comer joins them."""
    good = lambda i: (jnp.where((i == 3) | (i == 8), 1.0, 0.1),)  # noqa: E731
    late = lambda i: (jnp.where(i == 11, 2.0, 0.0),)  # noqa: E731
    first, second, third = generations(SEARCHER, [good, late])
    parents = np.stack([second[11], first[3], first[8]])
    assert (parents[0] != first).any(1).all()
    distance = (third[:5, None] != parents[None]).sum(2)
    assert (distance[:, :2].min(1) == 1).all()  # the top 2 of all: the late-comer and, equal ones in order, trial 3
    assert (distance[:, 0] == 1).any() and (distance[:, 1] == 1).any()


@pytest.mark.slow
def test_failures_have_no_children():
    """NaN, infinity and a status other than OK; where all fail, the next generation is random."""
    status = np.where(np.arange(12) == 7, Status.OK, Status.TIMEOUT)
    only = [
        lambda i: (jnp.where(i == 7, 0.1, jnp.where(i % 2 == 0, jnp.nan, jnp.inf)),),
        lambda i: (jnp.where(i == 7, 0.1, 0.9), status),
    ]
    for telling in only:
        first, second = generations(SEARCHER, [telling])
        assert ((second[:5] != first[7][None]).sum(1) == 1).all()
        assert ((second[5:] != first[7][None]).sum(1) > 0).all()  # a child of equal parents is no new one
    first, second = generations(SEARCHER, [lambda i: (jnp.full(12, jnp.nan),)])
    distance = (second[:, None] != first[None]).sum(2)
    assert distance.min() > 0 and (distance == 1).sum() <= 1  # of a random pair with probability 24 / 5^6


@pytest.mark.slow
def test_the_best_are_there_before_the_next_generation():
    searcher, key = SEARCHER, jax.random.key(0)
    state, proposal = asking(searcher, key, searcher.init(key), 12)
    _, fitness = top(state, 2)
    assert np.isneginf(fitness).all()
    state = searcher.tell(state, proposal, evaluation(np.where(np.arange(12) == 5, np.nan, np.arange(12) % 11)))
    archs, fitness = top(state, 3)
    assert fitness.tolist() == [10, 9, 8]
    np.testing.assert_array_equal(archs, proposal.arch[np.array([10, 9, 8])])


@pytest.mark.slow
def test_genes_are_drawn_anew_at_the_mutation_rate():
    """A gene of m = 4 values changes with probability p = 3/4 rate; of 20, given that any changed, 20 p / P(any)."""
    p = 0.75 * 0.2
    searcher = topk_evolution(
        ChoiceChain(), population=12, top_k=1, mutants=12, crossovers=0, mutation_rate=0.2, capacity=24
    )

    def changed(key):
        state, first = searcher.ask(key, searcher.init(key), 12)
        state = searcher.tell(state, first, evaluation(-jnp.arange(12.0)))
        return (searcher.ask(key, state, 12)[1].arch != first.arch[:1]).sum(1)

    counts = np.array(jax.jit(jax.vmap(changed), compiler_options=QUICK)(jax.random.split(jax.random.key(0), 40)))
    expected = 20 * p / (1 - (1 - p) ** 20)
    assert counts.min() >= 1
    assert abs(counts.mean() - expected) < 0.12 * expected


@pytest.mark.slow
def test_nothing_feasible_is_nothing_to_ask():
    none = lambda arch: jnp.zeros((), bool)  # noqa: E731
    searcher = topk_evolution(CELLS, **SMALL, feasible=none, fill_tries=50)
    state, proposal = asking(searcher, jax.random.key(0), searcher.init(jax.random.key(0)), 4)
    assert (np.array(proposal.id) == -1).all() and int(state.made) == 0


def test_draws_are_limited():
    """To 70, and by a limit that a quarter keeps to; every one of these draws is new."""
    draw = lambda key: jax.random.randint(key, (6,), 0, 2**30, jnp.int32)  # noqa: E731
    quarter = lambda arch: arch[0] < 2**28  # noqa: E731
    for feasible, expected in ((None, {70}), (quarter, range(10, 26))):
        made = archive.fill(jax.random.key(0), CELLS, archive.empty(CELLS, 200, 1), draw, 200, 70, feasible).made
        assert int(made) in expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": 11}, "capacity=11 is less than a population of 12; give the number of trials"),
        ({"mutants": 9}, r"mutants \+ crossovers at most population; got 12, 2, 9 \+ 4"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"crossovers": -1}, "must be at least 1"),
        ({"mutation_rate": 1.5}, "mutation_rate must be in"),
        ({"tries": 0}, "tries and fill_tries at least 1"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        topk_evolution(CELLS, **SMALL | changes)


def test_several_objectives_are_refused():
    searcher, key = SEARCHER, jax.random.key(0)
    state, proposal = asking(searcher, key, searcher.init(key), 12)
    with pytest.raises(ValueError, match="ranks 1 objectives, the evaluator gives 2"):
        searcher.tell(state, proposal, evaluation(jnp.zeros((12, 2))))


@pytest.mark.slow
def test_a_lone_parent_is_crossed_in_vain_and_the_budget_ends_a_generation_short():
    """Its children are no new ones, so the search goes on at random; of 7 trials the second generation has 3."""
    searcher = topk_evolution(CELLS, population=4, top_k=1, mutants=0, crossovers=4, capacity=7)
    state, ids, archs = searcher.init(jax.random.key(0)), [], []
    for _ in range(3):
        state, proposal = asking(searcher, jax.random.key(0), state, 4)
        state = searcher.tell(state, proposal, evaluation(jnp.arange(4.0)))
        ids.append(np.array(proposal.id).tolist())
        archs.append(np.array(proposal.arch))
    assert ids == [[0, 1, 2, 3], [4, 5, 6, -1], [-1] * 4]
    assert len(np.unique(np.concatenate(archs), axis=0)) == 7 + 1  # and the row of -1


@pytest.mark.slow
def test_it_beats_random_search_where_80_asks_are_a_ten_thousandth_of_the_space():
    """10 layers of 3 operators, 59,049 paths, one planted score table a seed; the sum's optimum is 10."""
    space, rounds = tiny(depths=(10,)).space, 8
    settings = {"population": 10, "top_k": 4, "mutants": 5, "crossovers": 5, "capacity": 80}
    searchers = (topk_evolution(space, **settings), random_search(space))

    def best(searcher, key):
        key_table, key_search = jax.random.split(key)
        table = jax.random.uniform(key_table, (10, 3))
        table = table / table.max(1, keepdims=True)

        def body(state, i):
            state, proposal = searcher.ask(key_search, state, 10)
            fitness = table[jnp.arange(10), proposal.arch].sum(-1)
            return searcher.tell(state, proposal, evaluation(fitness)), (fitness, proposal.id)

        fitness, ids = jax.lax.scan(body, searcher.init(key_search), jnp.arange(rounds))[1]
        return fitness.max(1), ids

    keys, found = jax.random.split(jax.random.key(1), 50), []
    for searcher in searchers:
        by_round, ids = jax.jit(jax.vmap(partial(best, searcher)), compiler_options=QUICK)(keys)
        assert (np.array(ids).reshape(50, -1) == np.arange(80)).all()  # nothing was exhausted
        found.append(np.array(by_round).max(1))
    gain = found[0] - found[1]
    assert gain.mean() > 6 * gain.std() / np.sqrt(50) and found[0].max() <= 10 + 1e-5
