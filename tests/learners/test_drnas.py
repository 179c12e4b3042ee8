"""DrNAS: its distributions against JAX's own and against their moments, its stages on toy networks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_search_network import toy_batch, toy_network

from nasjax.learners import drnas
from nasjax.learners.architecture_gradient import first_order
from nasjax.learners.descent import cosine
from nasjax.spaces.darts_cell.derivation import every_edge
from nasjax.spaces.darts_cell.space import CELLS, OPERATORS
from nasjax.train.sgd import Sgd

EDGES = {"cell": ((0, 1), (0, 2))}
ALPHA = jnp.array([[0.5, -0.5, 0.0, 1.0], [-2.0, 0.3, 0.1, -0.1]])
DROPPED = ALPHA.at[:, 1].set(drnas.DROPPED)
RELAXATION = drnas.dirichlet_relaxation(4, EDGES)
KEY = jax.random.key(0)


def draws(alpha, count):
    keys = jax.random.split(KEY, count)
    return jax.vmap(lambda key: RELAXATION.choice({"cell": alpha}, key, 0)["cell"])(keys)


def test_the_concentration_is_elu_plus_one():
    np.testing.assert_allclose(drnas.concentration(ALPHA), jax.nn.elu(ALPHA) + 1, rtol=1e-6)
    assert not drnas.concentration(DROPPED)[:, 1].any()


@pytest.mark.slow
def test_mixing_weights_are_dirichlet_variates():
    found = RELAXATION.choice({"cell": ALPHA}, KEY, 0)["cell"]
    expected = jax.random.dirichlet(jax.random.split(KEY, 1)[0], jax.nn.elu(ALPHA) + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


@pytest.mark.slow
def test_without_a_key_they_are_the_mean():
    beta = np.asarray(jax.nn.elu(ALPHA) + 1)
    expected = beta / beta.sum(1, keepdims=True)
    np.testing.assert_allclose(RELAXATION.choice({"cell": ALPHA}, None, 0)["cell"], expected, rtol=1e-6)
    np.testing.assert_allclose(draws(ALPHA, 4000).mean(0), expected, atol=0.02)


@pytest.mark.slow
def test_the_gradient_is_that_of_the_mean_on_average():
    """E <c, w> is linear in the mean, whose derivative is known; the implicit gradient has no bias."""
    slope = jnp.array([[1.0, -1.0, 2.0, 0.0], [0.5, 0.0, -1.0, 1.0]])

    def told(alpha, key):
        return (slope * RELAXATION.choice({"cell": alpha}, key, 0)["cell"]).sum()

    gradients = jax.vmap(jax.grad(told), (None, 0))(ALPHA, jax.random.split(KEY, 8000))
    expected = jax.grad(lambda alpha: (slope * drnas.mean(alpha)).sum())(ALPHA)
    np.testing.assert_allclose(gradients.mean(0), expected, atol=0.008)
    assert float(jnp.abs(expected).max()) > 0.2 and float(gradients.std(0).min()) > 0.03


@pytest.mark.slow
def test_dropped_operators_leave_the_distribution_of_the_others():
    found = draws(DROPPED, 4000)
    assert not found[..., 1].any()
    beta = np.delete(np.asarray(jax.nn.elu(ALPHA) + 1), 1, axis=1)
    total = beta.sum(1, keepdims=True)
    others = np.delete(np.asarray(found), 1, axis=2)
    np.testing.assert_allclose(others.mean(0), beta / total, atol=0.02)
    variance = beta * (total - beta) / (total**2 * (total + 1))
    np.testing.assert_allclose(others.var(0), variance, atol=0.01)
    gradient = jax.grad(lambda alpha: RELAXATION.choice({"cell": alpha}, KEY, 0)["cell"][0, 0])(DROPPED)
    assert np.isfinite(gradient).all() and not gradient[:, 1].any() and gradient[0, 0] != 0


def test_what_grew_is_copies():
    old = {"kernel": np.arange(8.0).reshape(2, 2, 2), "same": np.arange(3.0)}
    found = drnas.widened(old, {"kernel": np.zeros((2, 3, 4)), "same": np.zeros(3)})
    np.testing.assert_array_equal(found["kernel"], old["kernel"][:, [0, 1, 0]][:, :, [0, 1, 0, 1]])
    np.testing.assert_array_equal(found["same"], old["same"])


@pytest.mark.slow
def test_the_second_stage_goes_on_with_fewer_operators_and_more_channels():
    batch, names, sgd, rates = toy_batch(0), every_edge(OPERATORS[:5]), Sgd(learning_rate=0.1, final_rate=0.0), []

    def seen(problem):
        rates.append(float(problem.rate))
        return first_order(problem)

    networks = [toy_network(width=width, operators=5) for width in (2, 4)]
    stages = drnas.drnas(
        networks,
        operators=(5, 3),
        epochs=2,
        frozen_epochs=1,
        sgd=sgd,
        names=names,
        architecture_gradient=seen,
        devices=1,
    )
    facts, state = stages.facts(0, None, None), None
    for i in (0, 1):
        assert facts == {cell: [list(OPERATORS[:5])] * 14 for cell in CELLS}
        learner = stages.learner(i, json.loads(json.dumps(facts)))
        start = learner.init(jax.random.key(i), batch)
        before, state = state, start if state is None else stages.carry(i, facts, state, start)
        if i == 1:
            assert state.params["stem"].shape == (4, 4) and state.epoch == 0
            for old, new in ((before.params, state.params), (before.momentum, state.momentum)):
                np.testing.assert_array_equal(new["normal"], np.tile(old["normal"], 2))
            np.testing.assert_array_equal(state.batch_stats["normal"]["mean"], np.zeros(4))
            left = drnas.likeliest(drnas.probabilities(before)["normal"], 3)
            assert (left.sum(1) == 3).all()
            np.testing.assert_array_equal(state.alpha["normal"][left], before.alpha["normal"][left])
            assert (drnas.probabilities(state)["normal"] > 0).tolist() == left.tolist()
            assert state.adam is before.adam
        for epoch in range(2):
            state, metrics = learner.step(jax.random.key(epoch), state, batch)
            assert np.isfinite(metrics["train_loss"])
            state, done = learner.epoch(jax.random.key(epoch), state, [batch["val"]])
        assert done and 0 <= state.valid_accuracy <= 1
        facts = stages.facts(i + 1, facts, state)
    assert facts is None
    np.testing.assert_allclose(rates, [cosine(sgd, epoch, 4) for epoch in (1, 3)], rtol=1e-6)
    assert not drnas.probabilities(state)["normal"][~left].any()  # what was dropped stays so


def test_a_stage_keeps_the_operators_of_the_largest_mean():
    p = np.array([[0.4, 0.1, 0.3, 0.2], [0.2, 0.5, 0.15, 0.15]])
    assert drnas.likeliest(p, 2).tolist() == [[True, False, True, False], [True, True, False, False]]
    assert drnas.likeliest(np.full((1, 4), 0.25), 3).tolist() == [[False, True, True, True]]


@pytest.mark.parametrize(
    ("networks", "operators", "message"),
    [(1, (7, 4), "give every stage"), (2, (8, 4), "space's 7"), (2, (7, 1), "at least 2"), (2, (7, 9), "fall")],
)
def test_stages_must_fit(networks, operators, message):
    with pytest.raises(ValueError, match=message):
        drnas.drnas([None] * networks, operators=operators)
