"""Chains of choice blocks that compile in seconds: layers alone and in groups, stride 1 and 2, for 6x6x2 images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import ChoiceChain

quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # to compile, not to run
THREE = ("mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k3_e6")


def tiny(**changes):
    """L = 3, m = 3: a layer of stride 2, then a group of two that may be added to their input."""
    settings = {"family": "mobile", "stem": 4, "stem_stride": 1, "first": 4, "channels": (6,), "depths": (3,)}
    settings |= {"strides": (2,), "tail": 8, "operators": THREE}
    return ChoicePlan(ChoiceChain(**settings | changes), (6, 6, 2), 3)


def tiniest():
    """L = 2, m = 2: one group."""
    return tiny(stem=6, first=0, depths=(2,), strides=(1,), operators=THREE[:2])


def tiny_shuffle(**changes):
    """L = 3, m = 4 (with Xception), or fewer operators."""
    settings = {"stem": 4, "stem_stride": 1, "channels": (8,), "depths": (3,), "strides": (2,), "tail": 8}
    return ChoicePlan(ChoiceChain(**settings | changes), (6, 6, 2), 3)


def images(seed, count, dtype=jnp.float32):
    """x [count, 6, 6, 2], y [count]."""
    keys = jax.random.split(jax.random.key(seed))
    return jax.random.normal(keys[0], (count, 6, 6, 2), dtype), jax.random.randint(keys[1], (count,), 0, 3)


def shaken(variables, spread=0.3):
    """`variables` with noise on every scale, shift, mean and variance, so that each of them counts; on the host."""
    rng = np.random.default_rng(7)

    def noisy(path, leaf):
        noise = rng.uniform(-spread, spread, leaf.shape).astype(leaf.dtype)
        return np.asarray(leaf) + (path[-1].key in ("gamma", "beta", "mean", "var")) * noise

    return jax.tree_util.tree_map_with_path(noisy, variables)
