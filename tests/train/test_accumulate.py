"""A batch in parts: the same step as of the whole where nothing but means over samples enters it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.learners import architecture_gradient as order
from nasjax.learners.bilevel import bilevel
from nasjax.learners.darts import softmax_relaxation
from nasjax.learners.descent import Adam
from nasjax.train.accumulate import passes_in_parts, product_in_parts
from nasjax.train.passes import Pass
from nasjax.train.sgd import Sgd
from nasjax.types import Network

X = np.random.default_rng(0).normal(size=(8, 3))


def test_means_over_the_parts_are_those_of_the_batch():
    keys = []

    def run(params, batch_stats, choice, key, drop_rate, batch):
        keys.append(jax.random.key_data(key).tolist())
        x, y = batch
        return Pass((x * y).mean(), x.mean(), {"w": params["w"] * x.mean()}, choice * y.mean(), [*batch_stats, len(x)])

    given = ({"w": np.float32(3)}, [0], np.float32(2), jax.random.key(0), None)
    batch = (X[:, 0], X[:, 1])
    whole, parted = run(*given, batch), passes_in_parts(run, 4)(*given, batch)
    for one, other in zip(jax.tree.leaves(whole[:4]), jax.tree.leaves(parted[:4]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert parted.batch_stats == [0, 2, 2, 2, 2]  # the statistics of one part after the other
    assert len({tuple(key) for key in keys}) == 5
    product = product_in_parts(lambda params, stats, choice, key, drop, v, batch: v * batch[0].mean(), 2)
    np.testing.assert_allclose(product(*given, np.float32(3), batch), 3 * X[:, 0].mean(), rtol=1e-5)
    assert passes_in_parts(run, 1) is run and product_in_parts(run, 1) is run
    with pytest.raises(ValueError, match="a batch of 8 does not divide into 3 parts"):
        passes_in_parts(run, 3)(*given, batch)


def smooth():
    """Mixes four maps of the input by the choice of both cells, without batch norm."""

    def init(key, choice, x):
        k = jax.random.split(key, 3)
        maps = {cell: 0.3 * jax.random.normal(k[n], (4, 4, 4), x.dtype) for n, cell in enumerate(("normal", "reduce"))}
        return {"params": {**maps, "head": jax.random.normal(k[2], (4, 3), x.dtype)}, "batch_stats": {}}

    def apply(variables, choice, x, **options):
        h, params = x.mean((1, 2)), variables["params"]
        for cell in ("normal", "reduce"):
            h = jnp.tanh(h + jnp.einsum("o,oij,bi->bj", choice[cell].mean(0)[:4], params[cell], h))
        return h @ params["head"], variables

    return Network(init, apply)


@pytest.mark.slow
@pytest.mark.parametrize(
    "gradient", [order.first_order, order.second_order_difference, order.second_order_exact], ids=lambda f: f.__name__
)
def test_a_search_in_parts_makes_the_steps_of_whole_batches(gradient):
    """Both sides, every pass and the mixed product of the architecture gradient; float64, two steps."""
    with jax.enable_x64(True):
        rng, batch = np.random.default_rng(1), {}
        for side in ("train", "val"):
            batch[side] = (jnp.asarray(rng.normal(size=(12, 4, 4, 4))), jnp.asarray(rng.integers(3, size=12)))
        ends = []
        for parts in (1, 3):
            learner = bilevel(
                smooth(),
                softmax_relaxation(8),
                sgd=Sgd(learning_rate=0.1, clip=0.2),
                adam=Adam(learning_rate=0.01),
                architecture_gradient=gradient,
                accumulate=parts,
                devices=1,
            )
            state = learner.init(jax.random.key(0), batch)
            for t in range(2):
                state, metrics = learner.step(jax.random.key(t), state, batch)
            ends.append((state.params, state.momentum, state.alpha, state.adam, metrics))
        for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-9)
        moved = np.abs(np.asarray(ends[0][2]["normal"])).max()
        assert moved > 0.01  # alpha has left its start
