"""A network in which every setting of a recipe counts, data for it, and a job of retraining it: all tiny."""

import jax.numpy as jnp
import numpy as np

from nasjax.data.dataset import Dataset
from nasjax.data.sources import Split
from nasjax.types import Built, Network


def split(n, seed):
    rng = np.random.default_rng(seed)
    return Split(rng.standard_normal((n, 4, 4, 3)).astype(np.float32), rng.integers(0, 3, n).astype(np.int32))


DATA = Dataset("toy", 3, tuple("abc"), split(8, 0), split(6, 1), np.zeros(3, np.float32), np.ones(3, np.float32), "")


def network(*, bn_eps, dtype, dropout=0.0):
    """Every option of a network enters its program."""

    def init(key, choice, x):
        params = {"kernel": np.ones((3, 3), np.float32), "beta": np.zeros(3, np.float32)}
        return {"params": params, "batch_stats": {"mean": np.zeros(3, np.float32)}}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        mean, params = variables["batch_stats"]["mean"], variables["params"]
        if train:
            mean = bn_momentum * mean + (1 - bn_momentum) * x.mean((0, 1, 2))
        x = (x.mean((1, 2)) - mean[None]) / jnp.sqrt(1 + bn_eps) * (1 - drop_rate) * (1 - dropout)
        y = x.astype("bfloat16" if dtype == "bfloat16" else "float32") @ params["kernel"] + params["beta"][None]
        return ((y, y) if train else y), {**variables, "batch_stats": {"mean": mean}}

    return Network(init, apply)


def built(dropout=0.0, rate=0.03):
    def make(**options):
        return network(**options, dropout=dropout)

    return Built({"space": "toy"}, 1, 1, ("toy", dropout), make, learning_rate=rate)
