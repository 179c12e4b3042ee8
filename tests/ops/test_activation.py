"""Activations against their definitions, and what their gradients keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.ops.activation import relu, relu6

X = np.array([-7.0, -1e-7, 0.0, 1e-7, 3.0, 5.9, 6.0, 6.1, np.nan], np.float32)


@pytest.mark.parametrize(("activation", "upper"), [(relu, np.inf), (relu6, 6.0)])
def test_values_and_slopes(activation, upper):
    np.testing.assert_array_equal(activation(jnp.asarray(X)), np.minimum(np.maximum(X, 0), upper))
    _, pull = jax.vjp(activation, jnp.asarray(X))
    slope = np.where((X > 0) & (upper > X), 2.0, 0.0)
    np.testing.assert_array_equal(pull(jnp.full(len(X), 2.0))[0], slope)


@pytest.mark.parametrize("activation", [relu, relu6])
def test_the_way_back_keeps_the_result_alone(activation):
    x = jnp.linspace(-3, 9, 24).reshape(2, 12)

    def layer(x):
        y = activation(x)
        return y, y

    _, pull, y = jax.vjp(layer, x, has_aux=True)
    (kept,) = jax.tree.leaves(pull)
    np.testing.assert_array_equal(kept, y)
    assert kept.dtype == x.dtype


@pytest.mark.parametrize("activation", [relu, relu6])
def test_gradients_may_be_differentiated_again(activation):
    def loss(a):
        return (activation(a**3) ** 2).sum()

    a = jnp.asarray([-1.0, 0.5, 1.2, 1.7, 2.5])  # a**6 where the slope is 1: second derivative 30 a**4
    inside = (a > 0) & (a**3 < (6 if activation is relu6 else np.inf))
    found = jax.grad(lambda a: jax.grad(loss)(a).sum())(a)
    np.testing.assert_allclose(found, np.where(inside, 30 * a**4, 0), rtol=1e-5)
