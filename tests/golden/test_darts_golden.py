"""Numbers of the DARTS family: second-order toys, fixed points, schedules, finite difference against exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_search_network import toy_batch, toy_network

from nasjax.learners import architecture_gradient
from nasjax.learners.architecture_gradient import (
    Problem,
    first_order,
    second_order_difference,
    second_order_exact,
)
from nasjax.learners.descent import cosine, descend
from nasjax.learners.mixed_product import mixed_product
from nasjax.learners.p_darts import skip_dropout
from nasjax.ops.pool import max_pool
from nasjax.train.objective import CLASSIFICATION
from nasjax.train.passes import Pass, gradient_pass
from nasjax.train.sgd import Sgd

PLAIN = Sgd(momentum=0.0, weight_decay=0.0)


def problem(train_loss, val_loss, w, a, xi):
    """A bilevel problem whose "batches" are its two loss functions of (w, a)."""

    def gradients(w, loss):
        value, (by_w, by_a) = jax.value_and_grad(loss, (0, 1))(w, a)
        return Pass(value, None, by_w, by_a, None)

    def mixed(w, v, loss):
        return jax.grad(lambda a: jax.grad(loss)(w, a) * v)(a)

    return Problem(gradients, mixed, lambda g: descend(PLAIN, w, 0.0, g, xi)[0], w, xi, train_loss, val_loss)


def test_second_order_by_hand():
    """w' = 0.2, v = -0.8, eps = 0.0125, g = -0.08; first order 0."""
    case = problem(lambda w, a: (w - a) ** 2 / 2, lambda w, a: (w - 1) ** 2 / 2, jnp.float32(0), jnp.float32(2), 0.1)
    ahead = case.look_ahead(case.gradients(case.params, case.train).params)
    v = case.gradients(ahead, case.val).params
    np.testing.assert_allclose([ahead, v], [0.2, -0.8], rtol=1e-6)
    np.testing.assert_allclose(architecture_gradient._around(case.params, v, 0.01)[0], 0.0125, rtol=1e-6)
    assert first_order(case)[1] == 0
    for method in (second_order_difference, second_order_exact):
        np.testing.assert_allclose(method(case)[1], -0.08, rtol=1e-4)


@pytest.mark.parametrize(("xi", "fixed"), [(0.0, (2.0, 2.0)), (0.5, (1.0, 1.0)), (0.25, (4 / 3, 4 / 3))])
@pytest.mark.parametrize("method", [second_order_difference, second_order_exact])
def test_fixed_points_of_the_papers_toy(method, xi, fixed):
    """L_train = w^2 - 2aw + a^2, L_val = aw - 2a + 1 from (a, w) = (2, -2): a = w = 2 / (1 + 2 xi)."""
    with jax.enable_x64(True):

        def move(_, aw):
            a, w = aw
            case = problem(lambda w, a: w**2 - 2 * a * w + a**2, lambda w, a: a * w - 2 * a + 1, w, a, xi)
            a = a - 0.1 * method(case)[1]
            return a, w - 0.1 * 2 * (w - a)

        a, w = jax.lax.fori_loop(0, 600, move, (jnp.float64(2), jnp.float64(-2)))
    np.testing.assert_allclose((a, w), fixed, rtol=1e-6)


def test_look_ahead_knows_momentum_and_decay():
    ahead, buffer = descend(Sgd(momentum=0.9, weight_decay=0.1), 1.0, 2.0, 3.0, 0.5)
    np.testing.assert_allclose((ahead, buffer), (1 - 0.5 * (0.9 * 2 + 3 + 0.1), 4.9))


def network_problem(activation, xi, dtype=np.float64):
    network, batch = toy_network(activation=activation), toy_batch(0, dtype=dtype)
    keys = jax.random.split(jax.random.key(3), 3)
    alpha = {cell: jax.random.normal(k, (14, 8), dtype) for cell, k in zip(("normal", "reduce"), keys[:2], strict=True)}
    choice = jax.tree.map(jax.nn.softmax, alpha)
    variables = network.init(keys[2], choice, jnp.asarray(batch["train"][0]))
    params, stats = variables["params"], variables["batch_stats"]
    momentum, fixed = jax.tree.map(jnp.cos, params), (stats, choice, keys[0], None)
    gradients, mixed = gradient_pass(network, CLASSIFICATION, 1), mixed_product(network, CLASSIFICATION, 1)
    return Problem(
        gradients=lambda params, batch: gradients(params, *fixed, batch),
        mixed=lambda params, v, batch: mixed(params, *fixed, v, batch),
        look_ahead=lambda grads: descend(Sgd(), params, momentum, grads, xi)[0],
        params=params,
        rate=xi,
        train=batch["train"],
        val=batch["val"],
    )


def implicit_error(activation):
    """Of the finite difference's implicit term, relative to the exact one's norm; xi = 0.025."""
    with jax.enable_x64(True):
        case = network_problem(activation, 0.025)
        direct = case.gradients(case.look_ahead(case.gradients(case.params, case.train).params), case.val).choice
        difference, exact = (
            np.concatenate([np.ravel(method(case)[1][cell] - direct[cell]) for cell in direct])
            for method in (second_order_difference, second_order_exact)
        )
    assert np.linalg.norm(exact) > 1e-6 and exact.dtype == np.float64
    return np.linalg.norm(difference - exact) / np.linalg.norm(exact)


@pytest.mark.slow
def test_finite_difference_against_exact_on_a_smooth_network():
    assert implicit_error(jax.nn.softplus) < 1e-2


@pytest.mark.slow
def test_finite_difference_against_exact_on_a_kinked_network():
    """Kinks within eps of the weights cost accuracy; no bound is promised, but the direction is right."""
    assert implicit_error(lambda h: max_pool(jax.nn.relu(h), (3, 3), (1, 1))) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("method", [second_order_difference, second_order_exact])
def test_first_order_is_second_order_with_xi_zero(method):
    case = network_problem(jax.nn.softplus, np.float32(0), np.float32)
    first, second = first_order(case)[1], method(case)[1]
    for cell in first:
        np.testing.assert_array_equal(first[cell], second[cell])


def test_learning_rates():
    rate = partial(cosine, Sgd(), epochs=50)
    np.testing.assert_allclose([rate(0), rate(25), rate(49)], [0.025, 0.013, 0.0010237], atol=5e-8)
    warm = partial(cosine, Sgd(learning_rate=0.5, final_rate=0.0, warmup_epochs=5), epochs=50)
    np.testing.assert_allclose([warm(0), warm(4)], [0.1, 0.25 * (1 + np.cos(np.pi * 4 / 50))])


def test_p_darts_dropout():
    epochs = (0, 9, 10, 15, 24)
    expected = (0.384, 0.24, 0.4, 0.147152, 0.024324)
    np.testing.assert_allclose([skip_dropout(0.4, e) for e in epochs], expected, rtol=2e-5)
