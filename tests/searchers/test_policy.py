"""Both policies are distributions: they sum to 1, sample what they score, and have the exact expected gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from nasjax.searchers.independent_policy import independent_policy
from nasjax.searchers.lstm_policy import lstm_policy
from nasjax.searchers.policy import blank_arch, depth_schedule
from nasjax.searchers.reinforce import score_loss
from nasjax.spaces.conv_chain.space import TYPES, ConvChain, variant
from nasjax.spaces.tabular_cell.space import TabularCell

SPACES = {
    "skips": ConvChain(1, 3, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4, 8)),
    "types": ConvChain(
        1,
        2,
        filter_heights=(1, 3),
        filter_widths=(1,),
        filter_counts=(4, 8),
        strides=(1, 2),
        skips=False,
        types=("batch_norm", "conv", "max_pool"),
        learning_rates=(0.1, 0.01, 0.001),
    ),
    "cell": TabularCell(edges=3, ops=("none", "skip", "conv")),
}


def make(kind, space):
    """A policy and parameters that are far from uniform."""
    if kind == "lstm":
        policy = lstm_policy(space, hidden=6, embedding=6, init_scale=1.0)
        return policy, policy.init(jax.random.key(1))
    policy = independent_policy(space)
    return policy, {"logits": jax.random.normal(jax.random.key(1), policy.init(jax.random.key(0))["logits"].shape)}


@pytest.fixture(
    scope="module", params=[(kind, name) for kind in ("lstm", "independent") for name in SPACES], ids="-".join
)
def enumerated(request):
    """space, policy, params, all archs, their probability."""
    kind, name = request.param
    space = SPACES[name]
    policy, params = make(kind, space)
    archs = space.enumerate()
    assert len(archs) == space.size()
    logp, entropy = jax.jit(jax.vmap(policy.log_prob, in_axes=(None, 0)))(params, archs)
    return space, policy, params, archs, np.exp(np.array(logp, np.float64)), np.array(entropy)


def depths_of(space, archs):
    return archs[:, 0] + space.min_layers if isinstance(space, ConvChain) else np.ones(len(archs), int)


@pytest.mark.slow
def test_probabilities_sum_to_one_at_every_depth(enumerated):
    space, _, _, archs, p, _ = enumerated
    depth = depths_of(space, archs)
    for d in np.unique(depth):
        assert p[depth == d].sum() == pytest.approx(1.0, abs=1e-5)
    assert p.std() > 0.1 * p.mean()  # not the uniform case


@pytest.mark.slow
def test_expected_entropy_is_the_entropy(enumerated):
    """The chain rule: the steps' entropies along a sample have the sequence's entropy as their mean."""
    space, _, _, archs, p, entropy = enumerated
    depth = depths_of(space, archs)
    for d in np.unique(depth):
        q = p[depth == d]
        assert (q * entropy[depth == d]).sum() == pytest.approx(-(q * np.log(q)).sum(), rel=1e-4)


@pytest.mark.slow
def test_samples_have_the_frequencies_that_log_prob_says(enumerated):
    space, policy, params, archs, p, _ = enumerated
    n = 20_000
    depth = depths_of(space, archs).max()
    keys = jax.random.split(jax.random.key(2), n)
    drawn = np.array(jax.jit(jax.vmap(policy.sample, in_axes=(0, None, None)))(keys, params, jnp.int32(depth)))
    row = {arch.tobytes(): i for i, arch in enumerate(archs)}
    counts = np.bincount([row[arch.tobytes()] for arch in drawn], minlength=len(archs))  # KeyError = not in the space
    p = np.where(depths_of(space, archs) == depth, p, 0.0)
    assert counts[p == 0].sum() == 0
    often = n * p >= 10
    observed, expected = (np.append(x[often], x[~often].sum() + 1e-9) for x in (counts, n * p))  # the rare ones pooled
    assert len(expected) > 5
    chi2, dof = ((observed - expected) ** 2 / expected).sum(), len(expected) - 1
    assert abs(chi2 - dof) < 5 * np.sqrt(2 * dof) + 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "independent"])
def test_score_function_gradient_is_exact_in_expectation_whatever_the_baseline(kind):
    """The probabilities of a tiny space sum to 1, by enumeration in float64."""
    space = ConvChain(
        2, 2, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4, 8), types=("conv", "batch_norm")
    )
    archs = space.enumerate()
    with jax.enable_x64(True):
        policy, params = make(kind, space)
        reward = jax.random.uniform(jax.random.key(3), (len(archs),))

        @jax.jit
        def probabilities(params):
            return jnp.exp(jax.vmap(policy.log_prob, in_axes=(None, 0))(params, archs)[0])

        estimate = jax.jit(lambda advantage: jax.grad(lambda q: score_loss(policy, q, archs, advantage)[0])(params))
        p = probabilities(params)
        flat, unflatten = ravel_pytree(params)
        for seed in range(3):  # the exact derivative of E[R] along a random direction, by central differences
            direction = jax.random.normal(jax.random.key(seed), flat.shape)
            ahead, behind = (probabilities(unflatten(flat + eps * direction)) @ reward for eps in (1e-5, -1e-5))
            exact = (ahead - behind) / 2e-5
            assert abs(exact) > 1e-3
            for baseline in (0.0, 0.7):  # the mean over a batch in which every arch appears in proportion to P
                gradient = -ravel_pytree(estimate(len(archs) * p * (reward - baseline)))[0]
                assert float(gradient @ direction) == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.parametrize("space", [ConvChain(1, 4, types=TYPES, strides=(1, 2), learning_rates=(0.1, 0.2))])
def test_whether_a_site_is_active_never_depends_on_later_sites(space):
    """What sampling in emission order relies on."""
    archs = np.array(jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 50)))
    active = jax.jit(jax.vmap(space.active))
    full = np.array(active(archs))
    for s in range(1, len(space.sites)):
        prefix = np.where(np.arange(archs.shape[1]) < s, archs, -1)
        assert np.array_equal(np.array(active(prefix))[:, s], full[:, s])


def test_depth_is_given_at_the_nearest_choice():
    space = variant("v1")
    assert [int(blank_arch(space, d)[0]) + 6 for d in (1, 6, 13, 20, 99)] == [6, 6, 13, 20, 20]
    assert int(blank_arch(TabularCell(), 6).sum()) == -6
    with pytest.raises(ValueError, match="every >= 1"):
        depth_schedule(every=0)
