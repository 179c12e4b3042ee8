"""Pooling against windows written out in numpy, and the traced window against the static one."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.ops.pool import avg_pool, avg_pool_masked, halve, max_pool, max_pool_masked

FORMS = [(max_pool, max_pool_masked, np.max), (avg_pool, avg_pool_masked, np.mean)]


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def by_definition(x, window, stride, reduce):
    (kh, kw), (sh, sw) = window, stride
    _, h, w, _ = x.shape
    rows = []
    for i in range(0, h, sh):
        tops = slice(max(0, i - kh // 2), i + kh // 2 + 1)
        rows.append([reduce(x[:, tops, max(0, j - kw // 2) : j + kw // 2 + 1], axis=(1, 2)) for j in range(0, w, sw)])
    return np.array(rows).transpose(2, 0, 1, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("window", "stride"), [((3, 3), (1, 1)), ((5, 1), (2, 3)), ((1, 7), (3, 2)), ((7, 3), (1, 2))])
def test_static_window_equals_the_definition(form, window, stride):
    op, _, reduce = form
    x = draw(2, 6, 9, 3)
    with jax.enable_x64(True):
        y = jax.jit(lambda x: op(x, window, stride))(x)
    np.testing.assert_allclose(y, by_definition(x, window, stride, reduce), atol=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_traced_window_equals_the_static_one_with_its_gradient(form):
    op, masked, _ = form
    x = np.maximum(draw(2, 6, 7, 3), 0)  # many ties, as after a ReLU
    weight = draw(2, 6, 7, 3)
    windows = list(product((1, 3, 5), repeat=2))
    with jax.enable_x64(True):
        kh, kw = (jnp.array(sizes) for sizes in zip(*windows, strict=True))
        run = jax.value_and_grad(lambda x, kh, kw: (masked(x, kh, kw, (1, 3, 5)) * weight).sum())
        values, gradients = jax.jit(jax.vmap(run, (None, 0, 0)))(x, kh, kw)
        expected = jax.jit(
            lambda x: [jax.value_and_grad(lambda x, k=k: (op(x, k) * weight).sum())(x) for k in windows]
        )(x)
    for value, gradient, (v, g) in zip(values, gradients, expected, strict=True):
        np.testing.assert_allclose(value, v, atol=1e-12)
        np.testing.assert_allclose(gradient, g, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_masked_positions_count_as_padding(form):
    op, masked, _ = form
    x = draw(2, 5, 6, 3) - 3  # negative, so that a leaking 0 would win the maximum
    dirty = np.full((2, 8, 7, 3), 99.0)
    dirty[:, :5, :6] = x
    mask = (np.arange(8) < 5)[:, None] & (np.arange(7) < 6)[None, :]
    with jax.enable_x64(True):
        run = jax.value_and_grad(
            lambda x: (y := masked(x, 5, 3, (1, 3, 5, 7), mask), jnp.sin(y).sum())[::-1], has_aux=True
        )
        (_, y), gradient = jax.jit(run)(dirty)
        np.testing.assert_allclose(y[:, :5, :6], op(x, (5, 3)), atol=1e-14)
    for z in (y, gradient):
        assert not np.any(z[:, 5:]) and not np.any(z[:, :, 6:]) and np.any(z[:, :5, :6])


def test_halve_drops_the_odd_rest():
    x = draw(2, 7, 4, 3)
    expected = np.stack([x[:, i : i + 6 : 2, j::2] for i in (0, 1) for j in (0, 1)]).max(0)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(halve(x), expected)
