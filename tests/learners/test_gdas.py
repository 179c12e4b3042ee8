"""GDAS against its equations, written down anew with numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_search_network import toy_batch, toy_network

from nasjax.learners.bilevel import bilevel
from nasjax.learners.descent import Adam
from nasjax.learners.gdas import gdas, gumbel_relaxation
from nasjax.train.sgd import Sgd

EDGES = {"cell": ((0, 1), (0, 2), (1, 2))}
ALPHA = {"cell": jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)}
RELAXATION = gumbel_relaxation(4, EDGES, epochs=5, tau=(10.0, 0.1))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def drawn(epoch, key, slope):
    """The mixing weights, and the gradient of their inner product with `slope` by alpha."""
    found, back = jax.vjp(lambda alpha: RELAXATION.choice(alpha, key, epoch), ALPHA)
    return np.asarray(found["cell"]), np.asarray(back({"cell": jnp.asarray(slope, jnp.float32)})[0]["cell"])


@pytest.mark.slow
@pytest.mark.parametrize(("epoch", "tau"), [(0, 10.0), (2, 5.05), (4, 0.1)])
def test_one_operator_is_drawn_and_has_the_gradient_of_a_softmax_of_that_temperature(epoch, tau):
    key, slope = jax.random.key(7), np.random.default_rng(1).standard_normal((3, 4))
    found, gradient = drawn(epoch, key, slope)
    noise = np.asarray(jax.random.gumbel(jax.random.split(key, 1)[0], (3, 4)), np.float64)  # the only cell's key
    p = softmax(np.asarray(ALPHA["cell"], np.float64))
    noisy = np.log(p) + noise
    hard = np.eye(4)[noisy.argmax(1)]
    np.testing.assert_array_equal(found, hard)
    soft = softmax(noisy / tau)
    # d <slope, h> / d log p with d h = hard * d soft, and from log p to alpha
    by_soft = hard * slope
    by_log_p = soft * (by_soft - (soft * by_soft).sum(1, keepdims=True)) / tau
    expected = by_log_p - p * by_log_p.sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=1e-6)
    assert np.abs(expected).max() > 1e-4


def test_operators_are_drawn_as_often_as_their_probability_says():
    keys = jax.random.split(jax.random.key(0), 4000)
    often = jax.vmap(lambda key: RELAXATION.choice(ALPHA, key, 4)["cell"])(keys).mean(0)
    np.testing.assert_allclose(often, softmax(np.asarray(ALPHA["cell"])), atol=0.03)


def test_without_a_key_it_is_the_likeliest():
    np.testing.assert_array_equal(RELAXATION.choice(ALPHA, None, 0)["cell"].argmax(1), ALPHA["cell"].argmax(1))
    assert RELAXATION.choice(ALPHA, None, 0)["cell"].sum() == 3


@pytest.mark.parametrize("tau", [(0.1, 10.0), (1.0, 0.0), (-1.0, -2.0), (10.0,), (10.0, 1.0, 0.1)])
def test_temperatures_that_make_no_sense_are_refused(tau):
    with pytest.raises(ValueError, match="tau must fall"):
        gumbel_relaxation(4, EDGES, tau=tau)


@pytest.mark.slow
def test_the_learner_has_the_published_settings():
    """As `bilevel` with the relaxation and the code's optimisers, written out."""
    batch, network = toy_batch(0), toy_network()
    relaxation = gumbel_relaxation(8, epochs=250, tau=(10.0, 0.1))
    sgd = Sgd(learning_rate=0.025, final_rate=0.001, momentum=0.9, weight_decay=5e-4, clip=5.0)
    adam = Adam(learning_rate=3e-4, b1=0.5, b2=0.999, weight_decay=1e-3)
    one, other = gdas(network, devices=1), bilevel(network, relaxation, epochs=250, sgd=sgd, adam=adam, devices=1)
    ends = []
    for learner in (one, other):
        state = learner.init(jax.random.key(0), batch)
        for epoch in range(2):
            state, _ = learner.step(jax.random.key(epoch), state, batch)
            state, _ = learner.epoch(jax.random.key(epoch), state, [batch["val"]])
        ends.append(state)
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(a, b)
