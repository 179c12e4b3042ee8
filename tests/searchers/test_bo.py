"""Bayesian optimisation: the Gaussian process against NumPy, what is compared, and that the best cell is found soon."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.drive.scan import scan
from nasjax.searchers import gaussian_process as gp
from nasjax.searchers.bo import bo
from nasjax.searchers.features import features
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Evaluator, Status

HYPER = gp.Hyper(jnp.log(jnp.float32([0.7, 1.3])), jnp.log(jnp.float32(0.1)))
RNG = np.random.default_rng(0)
POINTS = RNG.random((6, 2)).astype(np.float32)
DISTANCES = [np.abs(POINTS[:, None, b] - POINTS[None, :, b]) for b in range(2)]
TARGETS, THERE = RNG.normal(size=6).astype(np.float32), np.array([1, 1, 0, 1, 0, 1], bool)


def test_the_posterior_is_that_of_the_rows_that_are_there():
    """Against the textbook formula over the four rows alone."""
    posterior = gp.condition(HYPER, DISTANCES, jnp.asarray(TARGETS), jnp.asarray(THERE))
    whole = np.exp(-0.7 * DISTANCES[0] - 1.3 * DISTANCES[1])
    np.testing.assert_allclose(gp.kernel(HYPER, DISTANCES), whole, rtol=1e-5)
    matrix = whole[np.ix_(THERE, THERE)] + 0.1 * np.eye(4)
    np.testing.assert_allclose(
        gp.pull(posterior) @ whole, whole[:, THERE] @ np.linalg.solve(matrix, TARGETS[THERE]), rtol=2e-4, atol=1e-5
    )
    variance = 1 - np.einsum("ij,ij->j", whole[THERE], np.linalg.solve(matrix, whole[THERE]))
    np.testing.assert_allclose(1 - ((posterior.whiten @ whole) ** 2).sum(0), variance, rtol=2e-4)


def test_a_step_of_the_fit_follows_the_gradient_of_the_evidence(monkeypatch):
    """Plain descent by it, against the derivative of the textbook's evidence over the four rows alone."""
    import optax

    monkeypatch.setattr(optax, "adam", optax.sgd)
    prior = gp.Hyper(jnp.zeros(2), jnp.float32(-3))
    rows = np.ix_(THERE, THERE)

    def loss(hyper):
        matrix = gp.kernel(hyper, [distance[rows] for distance in DISTANCES]) + jnp.exp(hyper.noise) * jnp.eye(4)
        fits = TARGETS[THERE] @ jnp.linalg.solve(matrix, TARGETS[THERE]) + jnp.linalg.slogdet(matrix)[1]
        return 0.5 * fits + 0.5 * sum(((a - b) ** 2).sum() for a, b in zip(hyper, prior, strict=True))

    moved = gp.fit(HYPER, prior, DISTANCES, jnp.asarray(TARGETS), jnp.asarray(THERE), 1, 1.0)
    for now, before, slope in zip(moved, HYPER, jax.grad(loss)(HYPER), strict=True):
        np.testing.assert_allclose(before - now, slope, rtol=1e-4, atol=1e-5)


def test_targets_are_ranks_of_mean_0_and_failures_come_last():
    fitness = jnp.float32([3, -jnp.inf, 900, 3, 5])
    found = np.array(gp.scores(fitness, jnp.array([True, True, True, True, False])))
    assert found[4] == 0 and found[1] < found[0] == found[3] < found[2] and abs(found.sum()) < 1e-5


def test_paths_of_a_cell_are_features():
    """Cells that differ in one edge of NAS-Bench-201 differ in 1 edge, 5 pairs, and the paths through that edge."""
    space = TabularCell()
    of = features(space)
    one, other = of(jnp.zeros(6, jnp.int32)), of(jnp.zeros(6, jnp.int32).at[0].set(1))
    assert [int((a != b).sum()) for a, b in zip(one, other, strict=True)] == [1, 5, 2]
    assert [len(block) for block in one] == [6, 15, 4]


def test_decisions_of_a_layer_are_paired():
    space = ConvChain(2, 2, (1, 3), (1, 3), (4, 8), skips=False)
    singles, pairs = features(space)(space.sample(jax.random.key(0)))
    layers = [site.layer for site in space.sites]
    assert len(singles) == len(layers)
    assert len(pairs) == sum(layers.count(layer) * (layers.count(layer) - 1) // 2 for layer in set(layers))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"initial": 0}, "initial"),
        ({"shortlist": 0}, "shortlist"),
        ({"acquisition": "ei"}, "ucb or thompson"),
        ({"start_share": 0.0}, "start_share"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        bo(TabularCell(3), **changes)


CELL = TabularCell(6, ("a", "b", "c"))
BEST = np.array([0, 1, 2, 0, 1, 2])


def planted():
    """Fitness of cells: agreement with BEST, and with its paths; edge 0 = "c" fails."""

    def evaluate(key, proposal, inherited=None):
        same = proposal.arch == BEST[None]
        fitness = (same.sum(1) + 3 * same[:, jnp.array([0, 2, 5])].all(1)).astype(jnp.float32)
        fitness = jnp.where(proposal.arch[:, 0] == 2, jnp.nan, fitness)
        status = jnp.where(jnp.isnan(fitness), Status.FAILED, Status.OK).astype(jnp.int8)
        return Evaluation(fitness, jnp.ones_like(fitness), status, {}), None

    return Evaluator(evaluate)


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["ucb", "thompson"])
def test_the_best_of_729_cells_is_found_within_60(acquisition):
    """Random search finds it within 60 in 8 of 100 runs."""
    searcher = bo(CELL, capacity=60, acquisition=acquisition)
    run = jax.jit(lambda key: scan(key, searcher, planted(), trials=60, width=4).arch)
    for seed in range(3):
        archs = np.array(run(jax.random.key(seed)))
        assert (archs == BEST).all(1).any()
        assert len(np.unique(archs, axis=0)) == 60


@pytest.mark.slow
def test_scores_start_the_search_and_are_compared():
    """The start is drawn among those that score best; a score that is the truth shortens the search."""
    space = TabularCell(6, ("a", "b", "c"))

    def score(arch):
        return (arch == BEST).sum().astype(jnp.float32)

    searcher = bo(space, capacity=30, start=score, start_share=0.02, scores=lambda arch: score(arch)[None] / 3 - 1)
    archs = np.array(jax.jit(lambda key: scan(key, searcher, planted(), trials=30, width=5).arch)(jax.random.key(0)))
    best_15 = np.sort((np.array(list(space.enumerate())) == BEST).sum(1))[-14]
    assert ((archs[:10] == BEST).sum(1) >= best_15).all() and (archs == BEST).all(1).any()


@pytest.mark.slow
def test_a_space_that_ends_is_searched_to_its_end_and_running_trials_are_not_asked_again():
    space = TabularCell(2, ("a", "b", "c"))
    searcher = bo(space, capacity=100, initial=2)
    state = searcher.init(jax.random.key(0))
    ask = jax.jit(lambda state: searcher.ask(jax.random.key(1), state, 4))
    seen = []
    for _ in range(3):
        state, proposal = ask(state)
        seen += [
            tuple(arch) for arch, trial in zip(proposal.arch.tolist(), proposal.id.tolist(), strict=True) if trial >= 0
        ]
    assert len(seen) == len(set(seen)) == 9


@pytest.mark.slow
@pytest.mark.parametrize("shortlist", [2000, 3])
def test_the_last_of_a_space_are_proposed_once_by_the_model_too(shortlist):
    """With results told, in batches that are larger than what is left, or than all there is."""
    searcher = bo(TabularCell(2, ("a", "b", "c")), capacity=100, initial=1, shortlist=shortlist)
    state, seen = searcher.init(jax.random.key(0)), []
    for n in (2, 4, 4, 10, 10):
        state, proposal = searcher.ask(jax.random.key(1), state, n)
        status = jnp.full(n, Status.OK, jnp.int8)
        evaluation = Evaluation(proposal.arch.sum(1).astype(jnp.float32), jnp.ones(n), status, {})
        state = searcher.tell(state, proposal, evaluation)
        seen += [tuple(arch) for arch in proposal.arch[proposal.id >= 0].tolist()]
    assert len(seen) == len(set(seen)) == 9
