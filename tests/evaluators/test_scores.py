"""Training-free scores against explicit formulas in NumPy, over a network of two layers with known derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.evaluators.scores.gradient import grad_norm, snip, zico
from nasjax.evaluators.scores.jacobian import jacob_cov, of_gradients
from nasjax.evaluators.scores.named import SCORES, untrained_scores
from nasjax.evaluators.scores.ranks import rank_sum
from nasjax.evaluators.scores.synaptic_flow import logsynflow, synflow
from nasjax.types import Network, Part

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 2, 2, 4)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
PARAMS = {
    "first": {"kernel": RNG.normal(size=(16, 12)), "bias": RNG.normal(size=12)},
    "second": {"kernel": RNG.normal(size=(12, 3)), "bias": RNG.normal(size=3)},
}
VARIABLES = {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)}
FLAT = X.reshape(6, 16).astype(float)
A, B = PARAMS["first"]["kernel"], PARAMS["second"]["kernel"]


def first(variables, choice, inputs, **options):
    (x,), own = inputs, variables["params"]
    return (jnp.maximum(x.reshape(len(x), -1) @ own["kernel"] + own["bias"][None], 0),), variables


def second(variables, choice, inputs, **options):
    return (inputs[0] @ variables["params"]["kernel"] + variables["params"]["bias"][None],), variables


PARTS = (
    Part(("first",), first, ("x",), ("h",), lambda choice: choice),
    Part(("second",), second, ("h",), ("y",), lambda choice: choice),
)


def apply(variables, choice, x, **options):
    own = [{"params": variables["params"][name]} for name in ("first", "second")]
    return second(own[1], None, first(own[0], None, (x,))[0])[0][0], variables


NETWORK = Network(lambda *_: VARIABLES, apply)


def passed(x):
    """Hidden values, and which of them are on."""
    h = x @ A + PARAMS["first"]["bias"]
    return np.maximum(h, 0), h > 0


def gradients(x, y):
    """Of the mean cross-entropy by both kernels."""
    h, on = passed(x)
    logits = h @ B + PARAMS["second"]["bias"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    slope = (p / p.sum(1, keepdims=True) - np.eye(3)[y]) / len(x)
    return x.T @ (slope @ B.T * on), h.T @ slope


@pytest.mark.slow
def test_synflow_is_the_sum_of_weights_times_gradients_of_the_absolute_network():
    a, b, ones = np.abs(A), np.abs(B), np.ones(16)
    h = ones @ a + np.abs(PARAMS["first"]["bias"])
    by_a, by_b = np.outer(ones, b.sum(1)), np.outer(h, np.ones(3))
    assert synflow(NETWORK, VARIABLES, None, X) == pytest.approx((a * by_a).sum() + (b * by_b).sum(), rel=1e-6)
    log = (a * np.log(1 + by_a)).sum() + (b * np.log(1 + by_b)).sum()
    assert logsynflow(NETWORK, VARIABLES, None, X) == pytest.approx(log, rel=1e-6)


@pytest.mark.slow
def test_synflow_holds_where_float32_would_overflow():
    deep = {"params": jax.tree.map(lambda leaf: leaf * 1e25, VARIABLES["params"])}
    bare = {"params": {name: {**layer, "bias": 0 * layer["bias"]} for name, layer in VARIABLES["params"].items()}}
    large = {"params": jax.tree.map(lambda leaf: leaf * 1e25, bare["params"])}
    plain = synflow(NETWORK, bare, None, X)
    assert synflow(NETWORK, large, None, X) == pytest.approx(plain * 1e50, rel=1e-5)
    assert np.isfinite(synflow(NETWORK, deep, None, X)) and jnp.zeros(1).dtype == jnp.float32


@pytest.mark.slow
def test_gradient_norm_and_snip():
    by_a, by_b = gradients(FLAT, Y)
    norm = np.linalg.norm(by_a) + np.linalg.norm(by_b)
    assert grad_norm(NETWORK, VARIABLES, None, X, Y) == pytest.approx(norm, rel=1e-5)
    saliency = np.abs(A * by_a).sum() + np.abs(B * by_b).sum()
    assert snip(NETWORK, VARIABLES, None, X, Y) == pytest.approx(saliency, rel=1e-5)


@pytest.mark.slow
def test_zico_by_two_batches():
    halves = [gradients(FLAT[i : i + 3], Y[i : i + 3]) for i in (0, 3)]
    total = 0.0
    for one, other in zip(*halves, strict=True):
        deviation, size = np.abs(one - other) / 2, (np.abs(one) + np.abs(other)) / 2
        total += np.log((size[deviation > 0] / deviation[deviation > 0]).sum())
    assert zico(NETWORK, VARIABLES, None, X, Y) == pytest.approx(total, rel=1e-3)
    with pytest.raises(ValueError, match="two batches or more"):
        zico(NETWORK, VARIABLES, None, X[:3], Y[:3])


@pytest.mark.slow
def test_jacobian_covariance():
    _, on = passed(FLAT)
    rows = (B.sum(1) * on) @ A.T  # of the sum of all outputs by every image
    values = np.linalg.eigvalsh(np.corrcoef(rows))
    expected = -(np.log(values + 1e-5) + 1 / (values + 1e-5)).sum()
    assert of_gradients(rows) == pytest.approx(expected, rel=1e-6)
    assert jacob_cov(NETWORK, VARIABLES, None, X) == pytest.approx(expected, rel=1e-3)
    still = {"params": jax.tree.map(jnp.zeros_like, VARIABLES["params"])}
    assert jacob_cov(NETWORK, still, None, X) == -np.inf
    with pytest.raises(ValueError, match="two or more"):
        jacob_cov(NETWORK, VARIABLES, None, X[:1])


@pytest.mark.slow
def test_parts_score_like_the_whole_and_every_name_is_known():
    parted = untrained_scores(SCORES, NETWORK._replace(parts=PARTS), VARIABLES, None, X, Y)
    whole = untrained_scores(SCORES, NETWORK, VARIABLES, None, X, Y)
    assert list(parted) == list(SCORES)
    for name in SCORES:
        assert parted[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-6)
    with pytest.raises(ValueError, match="no score 'synaptic'; choose from naswot, "):
        untrained_scores(("synaptic",), NETWORK, VARIABLES, None, X, Y)


@pytest.mark.parametrize("name", [name for name in SCORES if name != "naswot"])
def test_networks_of_words_or_with_a_state_are_refused(name):
    words = np.zeros((6, 4), np.int32)
    with pytest.raises(ValueError, match=f"{name} is for networks of images.*leave it out"):
        untrained_scores((name,), NETWORK, VARIABLES, None, words, Y)
    recurrent = NETWORK._replace(carry=lambda size: jnp.zeros(size))
    with pytest.raises(ValueError, match="carries a state"):
        untrained_scores((name,), recurrent, VARIABLES, None, X, Y)


def test_rank_sums_share_ties_and_put_what_has_no_score_last():
    found = rank_sum([[1, 3, 2, 0], [10, 1e9, 1e66, np.nan]])
    np.testing.assert_allclose(found, np.array([3 + 2, 4 + 3, 3 + 4, 1 + 1]) / 4 - np.array([0.25, 0, 0, 0]))
    np.testing.assert_allclose(rank_sum([[5, 5, -np.inf]]), [2.5 / 3, 2.5 / 3, 1 / 3])
