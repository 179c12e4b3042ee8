"""Stable ranks and spectral norms: by hand, and against the matrix of the very convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.ops import stable_rank
from nasjax.ops.conv import conv2d
from nasjax.ops.spectral_norm import estimate, power_iteration

PLUS = jnp.array([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]])


def draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


@pytest.mark.slow
def test_matrices_by_hand():
    rank_one = jnp.outer(jnp.arange(1.0, 4), jnp.arange(2.0, 6))
    for a, rank in [(jnp.eye(5), 5), (rank_one, 1), (jnp.diag(jnp.array([2.0, 1, 1])), 1.5)]:
        np.testing.assert_allclose(stable_rank.matrix(a), rank, rtol=1e-5)
    both = jnp.stack([jnp.eye(3), jnp.diag(jnp.array([2.0, 1, 1]))])
    np.testing.assert_allclose(stable_rank.matrix(both), [3, 1.5], rtol=1e-5)


def test_kernel_is_read_as_out_times_the_rest():
    w = draw(3, 3, 2, 5)
    matrix = np.asarray(w).transpose(3, 2, 0, 1).reshape(5, -1)
    s = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(stable_rank.kernel(w), (s**2).sum() / s[0] ** 2, rtol=1e-5)
    np.testing.assert_allclose(stable_rank.kernel(jnp.stack([w, 3 * w])), [stable_rank.kernel(w)] * 2, rtol=1e-5)


@pytest.mark.slow
def test_circular_by_hand():
    spectrum = stable_rank._spectrum(PLUS[..., None, None], (4, 4), 1)
    np.testing.assert_allclose(jnp.abs(spectrum).max(), 8, rtol=1e-6)
    np.testing.assert_allclose(stable_rank.circular(PLUS[..., None, None], (4, 4)), 5.0, rtol=1e-5)
    np.testing.assert_allclose(stable_rank.circular_depthwise(PLUS[..., None], (4, 4)), 5.0, rtol=1e-5)
    one = jnp.diag(jnp.array([2.0, 1]))[None, None]
    np.testing.assert_allclose(stable_rank.circular(one, (4, 4)), 20, rtol=1e-5)
    np.testing.assert_allclose(stable_rank.circular(one, (4, 4)), 16 * stable_rank.kernel(one), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dilation", [1, 2])
def test_circular_equals_the_operators_matrix(dilation):
    """(b) against the singular values of the circular convolution written out as a 50 x 75 matrix."""
    w, size = draw(3, 3, 2, 3), (5, 5)
    taps = [(i * dilation, j * dilation, i, j) for i in range(3) for j in range(3)]

    def conv(x):  # [H, W, in] -> [H, W, out]
        return sum(jnp.roll(x, (di, dj), (0, 1)) @ w[i, j] for di, dj, i, j in taps)

    matrix = np.asarray(jax.jacobian(conv)(jnp.zeros((*size, 2)))).reshape(75, 50)
    s = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(stable_rank.circular(w, size, dilation), (s**2).sum() / s[0] ** 2, rtol=1e-4)


@pytest.mark.slow
def test_depthwise_is_block_diagonal():
    w = draw(3, 3, 4)
    norms = np.square(w).sum((0, 1))
    np.testing.assert_allclose(stable_rank.depthwise_kernel(w), norms.sum() / norms.max(), rtol=1e-5)
    dense = jnp.zeros((3, 3, 4, 4)).at[:, :, jnp.arange(4), jnp.arange(4)].set(w)
    np.testing.assert_allclose(
        stable_rank.circular_depthwise(w, (6, 5)), stable_rank.circular(dense, (6, 5)), rtol=1e-4
    )


def test_stable_rank_does_not_see_the_scale():
    w = draw(1, 1, 6, 6)
    np.testing.assert_allclose(stable_rank.kernel(w / 7), stable_rank.kernel(w), rtol=1e-5)


@pytest.mark.slow
def test_power_iteration_of_many_matrices_at_once():
    """After division by sigma every matrix has spectral norm 1, and its stable rank is what it was."""
    w = draw(3, 2, 6, 6)

    def linear(x):
        return jnp.einsum("...i,...io->...o", x, w)

    u, v = power_iteration(linear, draw(3, 2, 6), jnp.zeros((3, 2, 6)), axes=(-1,), iterations=200)
    sigma = estimate(u, linear(v), (-1,))
    normalised = w / sigma[..., None, None]
    np.testing.assert_allclose(np.linalg.norm(normalised, 2, axis=(-2, -1)), 1, atol=1e-3)
    np.testing.assert_allclose(stable_rank.matrix(normalised), stable_rank.matrix(w), rtol=1e-5)


@pytest.mark.slow
def test_power_iteration_of_a_strided_convolution():
    """The operator norm with its zero padding and stride, against the written-out matrix."""
    w, like = draw(3, 3, 2, 3), jnp.zeros((1, 6, 5, 2))

    def linear(x):
        return conv2d(x, w, (2, 2))

    u, v = power_iteration(linear, draw(1, 3, 3, 3), like, axes=(0, 1, 2, 3), iterations=100)
    matrix = np.asarray(jax.jacrev(linear)(like)).reshape(27, 60)
    np.testing.assert_allclose(estimate(u, linear(v), (0, 1, 2, 3)), np.linalg.norm(matrix, 2), rtol=1e-3)


def test_one_iteration_follows_u():
    """v = W^T u / |.|, then u = W v / |.|: the order matters where few iterations are spent."""
    w = jnp.array([[3.0, 1], [0, 2]])
    u, v = power_iteration(lambda x: w @ x, jnp.array([0.0, 1]), jnp.zeros(2), axes=(0,), iterations=1)
    np.testing.assert_allclose(v, [0, 1], atol=1e-6)
    np.testing.assert_allclose(u, np.array([1, 2]) / np.sqrt(5), rtol=1e-6)


def test_the_vectors_are_constants():
    """d (W / sigma) / dW with u, v fixed, against the formula by hand."""
    w, u, v = draw(3, 3), draw(3), draw(2, 3)[0]
    gradient = jax.grad(lambda w: estimate(u, w @ v, (0,)))(w)
    np.testing.assert_allclose(gradient, jnp.outer(u, v), rtol=1e-6)
    assert not jax.grad(lambda u: estimate(u, w @ v, (0,)))(u).any()
