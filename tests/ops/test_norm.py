"""Batch norm and local contrast norm against definitions written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.ops.norm import batch_norm, local_contrast_norm


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def contrast_by_definition(x, size, sigma):
    """Jarrett et al. 2009, section 2, position by position; the window's weights renormalised at the border."""
    b, h, w, c = x.shape
    reach = size // 2

    def window_mean(maps):  # weighted mean over the window and all channels
        out = np.zeros((b, h, w))
        for i in range(h):
            for j in range(w):
                total = 0.0
                for p in range(max(0, i - reach), min(h, i + reach + 1)):
                    for q in range(max(0, j - reach), min(w, j + reach + 1)):
                        weight = np.exp(-((p - i) ** 2 + (q - j) ** 2) / (2 * sigma**2))
                        out[:, i, j] += weight * maps[:, p, q].sum(-1)
                        total += weight * c
                out[:, i, j] /= total
        return out

    v = x - window_mean(x)[..., None]
    spread = np.sqrt(window_mean(v**2))
    return v / np.maximum(spread, spread.mean((1, 2), keepdims=True))[..., None]


def test_batch_norm_trains_on_batch_statistics():
    x, gamma, beta, mean, var = draw(4, 5, 6, 3), draw(3), draw(3), draw(3), draw(3) ** 2
    with jax.enable_x64(True):
        y, (new_mean, new_var) = batch_norm(x, gamma, beta, mean, var, train=True, momentum=0.7, eps=1e-3)
    rows = x.reshape(-1, 3)
    np.testing.assert_allclose(y, (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-3) * gamma + beta, atol=1e-12)
    np.testing.assert_allclose(new_mean, 0.7 * mean + 0.3 * rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(new_var, 0.7 * var + 0.3 * rows.var(0), atol=1e-12)  # biased


def test_batch_norm_evaluates_with_running_statistics():
    x, gamma, beta, mean, var = draw(2, 3, 3, 4), draw(4), draw(4), draw(4), draw(4) ** 2
    with jax.enable_x64(True):
        y, statistics = batch_norm(x, gamma, beta, mean, var, train=False)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * gamma + beta, atol=1e-12)
    np.testing.assert_array_equal(statistics, (mean, var))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [bool, np.float64])
def test_batch_norm_of_valid_positions_equals_that_of_the_cropped_image(train, dtype):
    x, gamma, beta, mean, var = draw(4, 6, 7, 3), draw(3), draw(3), draw(3), draw(3) ** 2
    mask = (np.arange(6) < 4)[:, None] & (np.arange(7) < 5)[None, :]

    def run(x, mask):
        y, statistics = batch_norm(x, gamma, beta, mean, var, train=train, mask=mask)
        return jnp.sin(y).sum(), (y, statistics)

    with jax.enable_x64(True):
        masked = jax.jit(jax.grad(run, has_aux=True))(x, mask.astype(dtype))
        cropped = jax.jit(jax.grad(run, has_aux=True))(x[:, :4, :5], None)
    for a, b in zip((masked[0], masked[1][0]), (cropped[0], cropped[1][0]), strict=True):
        np.testing.assert_allclose(a[:, :4, :5], b, atol=1e-12)
        assert not np.any(a[:, 4:]) and not np.any(a[:, :, 5:])
    np.testing.assert_allclose(masked[1][1], cropped[1][1], atol=1e-12)


def test_batch_norm_keeps_statistics_in_float32():
    x = jnp.asarray(300 + draw(64, 8, 8, 2), jnp.bfloat16)
    y, (mean, var) = batch_norm(x, jnp.ones(2), jnp.zeros(2), jnp.zeros(2), jnp.ones(2), train=True, momentum=0.0)
    assert y.dtype == jnp.bfloat16 and mean.dtype == var.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize(("size", "sigma"), [(9, 2.25), (3, 0.8)])
def test_contrast_norm_equals_the_definition(size, sigma):
    x = draw(2, 11, 6, 3)
    with jax.enable_x64(True):
        y = local_contrast_norm(x, size=size, sigma=sigma)
    np.testing.assert_allclose(y, contrast_by_definition(x, size, sigma), atol=1e-12)


@pytest.mark.slow
def test_contrast_norm_ignores_what_is_masked():
    x = draw(2, 7, 8, 3)
    dirty = np.full((2, 10, 9, 5), 9.0)
    dirty[:, :7, :8, :3] = x
    places = (np.arange(10) < 7)[:, None] & (np.arange(9) < 8)[None, :]
    with jax.enable_x64(True):
        y = jax.jit(lambda x, c, m: local_contrast_norm(x, channel_mask=c, mask=m))(dirty, np.arange(5) < 3, places)
        np.testing.assert_allclose(y[:, :7, :8, :3], local_contrast_norm(x), atol=1e-12)
    assert not np.any(y[:, 7:]) and not np.any(y[:, :, 8:]) and not np.any(y[..., 3:])


@pytest.mark.slow
def test_contrast_norm_of_a_flat_image_is_zero_with_finite_gradients():
    def norm(x):
        return local_contrast_norm(x).sum()

    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(norm)(np.full((1, 12, 12, 2), 3.0))
        assert abs(value) < 1e-6 and np.all(np.isfinite(gradient))
