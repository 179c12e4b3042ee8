"""Interpolation and transposed convolution against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.ops.resize import double, transposed_conv2d


@pytest.mark.parametrize("sides", [(5, 4), (1, 3), (2, 1)])
def test_double_is_interpolation_with_aligned_corners(sides):
    x = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
    expected = x.astype(np.float64)
    for axis in (1, 2):
        n = x.shape[axis]
        at = np.arange(2 * n) * (n - 1) / (2 * n - 1)
        expected = np.apply_along_axis(lambda row, at=at, n=n: np.interp(at, np.arange(n), row), axis, expected)
    np.testing.assert_allclose(double(jnp.asarray(x)), expected, atol=1e-6)


def test_transposed_convolution_places_every_kernel():
    x, w = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 3, 4, 5), (2, 2, 5, 6)]))
    y = np.asarray(transposed_conv2d(x, w, precision="highest"))
    assert y.shape == (2, 6, 8, 6)
    for i in range(2):
        for j in range(2):
            np.testing.assert_allclose(y[:, i::2, j::2], np.asarray(x) @ np.asarray(w[i, j]), rtol=1e-4, atol=1e-5)
