"""The spectral convolution: equal to the direct one, shareable, and never a grouped convolution under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasjax.ops.spectral import (
    from_spectrum,
    kernel_spectrum,
    multiply,
    spectral_conv,
    spectral_conv_looped,
    to_spectrum,
)


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def by_definition(x, w):
    """Sum over taps of shifted products, in numpy."""
    (kh, kw), (h, wd) = w.shape[:2], x.shape[1:3]
    padded = np.pad(x, [(0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)])
    return sum(padded[:, i : i + h, j : j + wd] @ w[i, j] for i in range(kh) for j in range(kw))


# One-matrix transform (at most 64 positions) and one per axis (more), even and odd sizes and periods.
SIZES = [(8, 8), (5, 7), (8, 9), (12, 10)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op", [spectral_conv, spectral_conv_looped])
def test_equals_the_definition(op, size):
    kernels = [(1, 1), (3, 3), (1, 7), (7, 1), (5, 3), (7, 7)]
    x, ws = draw(2, *size, 3), [draw(*k, 3, 4) for k in kernels]
    with jax.enable_x64(True):
        ys = jax.jit(lambda x, ws: [op(x, w) for w in ws])(x, ws)
    for w, y in zip(ws, ys, strict=True):
        np.testing.assert_allclose(y, by_definition(x, w), atol=1e-11)


@pytest.mark.parametrize("size", [(8, 8), (12, 10)])
@pytest.mark.parametrize("op", [spectral_conv, spectral_conv_looped])
def test_gradients_equal_those_of_lax(op, size):
    def lax_conv(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), [(2, 2), (3, 3)], dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def gradients(f):
        return jax.jit(jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), (0, 1)))

    with jax.enable_x64(True):
        x, w = draw(2, *size, 3), draw(5, 7, 3, 4)
        for a, b in zip(gradients(op)(x, w), gradients(lax_conv)(x, w), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("period", [11, 12, (11, 13), (12, 16)])
def test_any_long_enough_period(period):
    x, w = draw(2, 8, 8, 3), draw(7, 7, 3, 4)
    with jax.enable_x64(True):
        ys = multiply(to_spectrum(x, period), kernel_spectrum(w, period))
        np.testing.assert_allclose(from_spectrum(ys, (8, 8)), by_definition(x, w), atol=1e-11)


def test_readers_share_a_transform():
    """Spectra are concatenated along channels instead of the tensors, and are linear."""
    a, b, w = draw(2, 9, 8, 2), draw(2, 9, 8, 3), draw(3, 5, 5, 4)
    with jax.enable_x64(True):
        spectra = jnp.concatenate([to_spectrum(a, 12), to_spectrum(b, 12)], -1)
        y = from_spectrum(multiply(spectra, kernel_spectrum(w, 12)), (9, 8))
        np.testing.assert_allclose(y, by_definition(np.concatenate([a, b], -1), w), atol=1e-11)


def test_small_kernels_may_sit_in_the_centre_of_large_ones():
    x, w = draw(2, 8, 8, 3), draw(3, 1, 3, 4)
    with jax.enable_x64(True):
        large = np.pad(w, [(2, 2), (3, 3), (0, 0), (0, 0)])
        np.testing.assert_allclose(spectral_conv(x, large), by_definition(x, w), atol=1e-11)


def test_float32_error_is_at_rounding():
    x, w = draw(2, 16, 16, 8), draw(7, 7, 8, 8)
    y = jax.jit(spectral_conv)(np.float32(x), np.float32(w))
    exact = by_definition(x, w)
    assert np.abs(y - exact).max() / np.abs(exact).max() < 2e-6


def test_vmap_over_kernels_is_matmuls_only():
    xs, ws = np.float32(draw(3, 2, 8, 8, 4)), np.float32(draw(3, 7, 7, 4, 5))

    def loss(w, x):
        return jnp.square(spectral_conv(x, w)).sum()

    run = jax.jit(jax.vmap(jax.value_and_grad(loss))).lower(ws, xs)
    assert "stablehlo.convolution" not in run.as_text() and "stablehlo.fft" not in run.as_text()
    values, gradients = run.compile()(ws, xs)
    value, gradient = jax.jit(jax.value_and_grad(loss))(ws[1], xs[1])
    np.testing.assert_allclose(values[1], value, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], gradient, rtol=1e-4, atol=1e-2)


def test_wrong_use_is_refused():
    x = jnp.zeros((1, 8, 8, 2))
    with pytest.raises(ValueError, match="use 11"):
        spectral_conv(x, jnp.zeros((7, 7, 2, 2)), 10)
    with pytest.raises(ValueError, match="odd"):
        spectral_conv(x, jnp.zeros((2, 3, 2, 2)))
