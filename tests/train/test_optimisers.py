"""Recipe.optimizer: two steps of each as optax documents them, by hand in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.train.step import trainer
from nasjax.types import Network

RATE, DECAY = 0.1, 0.2
PLAIN = Recipe(
    epochs=1, batch_size=4, learning_rate=RATE, nesterov=False, weight_decay=DECAY, augment=Augment("none", flip=False)
)


def linear():
    """Logits = mean over pixels times w [2, 3]."""

    def init(key, choice, x):
        return {"params": {"w": jnp.zeros((2, 3))}}

    def apply(variables, choice, x, **options):
        return x.mean((1, 2)) @ variables["params"]["w"], variables

    return Network(init, apply)


X = np.random.default_rng(0).normal(0, 3, (2, 4, 1, 1, 2)).astype(np.float32)  # two steps' batches
Y = np.random.default_rng(1).integers(0, 3, (2, 4))
W = np.random.default_rng(2).normal(size=(2, 3)).astype(np.float32)


def gradient(w, t):
    """Of the mean cross-entropy of batch t, f64[2, 3]."""
    x = X[t, :, 0, 0].astype(float)
    p = np.exp(x @ w)
    return x.T @ (p / p.sum(1, keepdims=True) - np.eye(3)[Y[t]]) / 4


def sgd(nesterov):
    def run(w):
        m = 0.0
        for t in range(2):
            g = gradient(w, t) + DECAY * w
            m = g + 0.9 * m
            w = w - RATE * (g + 0.9 * m if nesterov else m)
        return w

    return run


def adam(b1, b2, beside):
    """Kingma & Ba 2015; the decay in the gradient, or beside it (Loshchilov & Hutter 2019)."""

    def run(w):
        m = v = 0.0
        for t in range(2):
            g = gradient(w, t) + (0 if beside else DECAY * w)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            direction = m / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + 1e-8)
            w = w - RATE * (direction + (DECAY * w if beside else 0))
        return w

    return run


def rmsprop(b2, momentum):
    def run(w):
        v, m = 0.0, 0.0
        for t in range(2):
            g = gradient(w, t) + DECAY * w
            v = b2 * v + (1 - b2) * g**2
            m = g / np.sqrt(v + 1e-8) + momentum * m
            w = w - RATE * m
        return w

    return run


CASES = {
    "sgd": ({}, sgd(False)),
    "sgd, Nesterov": ({"nesterov": True}, sgd(True)),
    "adam": ({"optimizer": "adam"}, adam(0.9, 0.999, False)),
    "adam, other betas": ({"optimizer": "adam", "betas": (0.5, 0.9)}, adam(0.5, 0.9, False)),
    "adamw": ({"optimizer": "adamw"}, adam(0.9, 0.999, True)),
    "rmsprop": ({"optimizer": "rmsprop", "momentum": 0.0, "betas": (0.0, 0.9)}, rmsprop(0.9, 0.0)),
    "rmsprop, momentum": ({"optimizer": "rmsprop", "betas": (0.0, 0.8)}, rmsprop(0.8, 0.9)),
}
OPTAX = {
    "sgd": optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, 0.9)),
    "sgd, Nesterov": optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, 0.9, nesterov=True)),
    "adam": optax.chain(optax.add_decayed_weights(DECAY), optax.adam(RATE)),
    "adam, other betas": optax.chain(optax.add_decayed_weights(DECAY), optax.adam(RATE, 0.5, 0.9)),
    "adamw": optax.adamw(RATE, weight_decay=DECAY),
    "rmsprop": optax.chain(optax.add_decayed_weights(DECAY), optax.rmsprop(RATE, 0.9)),
    "rmsprop, momentum": optax.chain(optax.add_decayed_weights(DECAY), optax.rmsprop(RATE, 0.8, momentum=0.9)),
}


@pytest.mark.parametrize("name", CASES)
def test_two_steps(name):
    changes, by_hand = CASES[name]
    network = linear()
    train = trainer(network, dataclasses.replace(PLAIN, **changes), 8, network.init(None, None, None), TASK)
    state, update = train.start({"params": {"w": jnp.asarray(W)}}), jax.jit(train.update)
    for t in range(2):  # both as step 0, before the first drop of the rate
        state = update(state, None, jnp.float32(RATE), X[t], Y[t], jax.random.key(0), jnp.int32(0))
    np.testing.assert_allclose(state.params.reshape(2, 3), by_hand(W.astype(float)), rtol=1e-4, atol=1e-5)

    optimiser = OPTAX[name]
    w, memory = jnp.asarray(W), optimiser.init(jnp.asarray(W))
    for t in range(2):
        updates, memory = optimiser.update(jnp.asarray(gradient(np.asarray(w, float), t), jnp.float32), memory, w)
        w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(state.params.reshape(2, 3), w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "choose sgd, adam, adamw, rmsprop"),
        ({"betas": (0.9, 1.0)}, r"betas are two numbers in \[0, 1\)"),
        ({"betas": (0.9,)}, r"betas are two numbers in \[0, 1\)"),
    ],
)
def test_an_optimiser_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)
