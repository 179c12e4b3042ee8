"""Programs divided among devices, in a subprocess that has four; and the plain case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tools.four_devices import on_four_devices

from nasjax.nets.conv_chain.network import conv_chain
from nasjax.ops.collective import sample_index
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.fit import fit
from nasjax.train.parallel import data_parallel, device_count, mean, replicate
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data

X = np.arange(24, dtype=np.float32).reshape(8, 3)


def clipped_gradient(w, key, x):
    """Nonlinear in the gradient, noise per sample: right only if `mean` comes first and samples know their place."""
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(sample_index(len(x)))
    gradient = mean(jax.grad(lambda w: (jnp.square(x @ w) * noise).mean())(w))
    return {"clipped": gradient / jnp.sqrt(1 + jnp.square(gradient).sum()), "none": None}


def test_one_device_is_jit():
    np.testing.assert_array_equal(mean(X), X)
    np.testing.assert_array_equal(sample_index(3), [0, 1, 2])
    assert replicate(X, 1) is X
    out = data_parallel(clipped_gradient, 1)(jnp.ones(3), jax.random.key(0), X)
    expected = clipped_gradient(jnp.ones(3), jax.random.key(0), X)
    np.testing.assert_allclose(out["clipped"], expected["clipped"], rtol=1e-5)


def test_too_many_devices():
    with pytest.raises(ValueError, match="devices=99, but this process has"):
        data_parallel(clipped_gradient, 99)
    with pytest.raises(ValueError, match="devices=0"):
        device_count(0)


@pytest.mark.slow
def test_four_devices():
    assert on_four_devices(__file__) == ["agree"]


def trained(devices):
    """Two steps of a small network on 16 images: its weights, one vector."""
    space = ConvChain(1, 1, (3,), (3,), (4,))
    network = conv_chain(plan(space, np.asarray(space.sample(jax.random.key(0))), (4, 4, 1), 3))
    random = np.random.default_rng(0)
    x, y = random.standard_normal((16, 4, 4, 1)).astype(np.float32), random.integers(0, 3, 16)
    data = Data(*map(jnp.asarray, (x, y, x[:4], y[:4], np.zeros(1, np.float32), np.ones(1, np.float32))))
    recipe = Recipe(epochs=1, batch_size=8, augment=Augment("pad", 1, True))
    variables, history = fit(jax.random.key(1), network, data, recipe, TASK, devices=devices)
    return ravel_pytree(jax.device_get((variables, history)))[0]


def on_four():
    assert device_count() == 4
    np.testing.assert_allclose(trained(1), trained(None), rtol=2e-5, atol=1e-6)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **kwargs: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    programs = [data_parallel(clipped_gradient, devices) for devices in (1, 2, None)]
    w, key = jnp.ones(3), jax.random.key(0)
    one, two, four = (program(w, key, X) for program in programs)
    for other in (two, four):
        np.testing.assert_allclose(one["clipped"], other["clipped"], rtol=1e-5)
    assert len(four["clipped"].sharding.device_set) == 4
    w = replicate(w)
    assert replicate(w).sharding == w.sharding == four["clipped"].sharding
    programs[2](w, key, X)
    count = len(compiled)
    programs[2](four["clipped"], key, X)
    assert len(compiled) == count > 0
    try:
        programs[2](w, key, X[:6])
    except ValueError as error:
        assert "a batch of 6 does not divide among 4 devices; use a batch size that is a multiple of 4" in str(error)
        print("agree")


if __name__ == "__main__":
    on_four()
