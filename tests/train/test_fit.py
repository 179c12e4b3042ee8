"""Recipe, losses, schedule, and training one network epoch by epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.data.dataset import DataConfig
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.problem.data import load
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.tasks.classification import TASK
from nasjax.train import losses
from nasjax.train.augment import Augment
from nasjax.train.fit import fit, resident
from nasjax.train.recipe import Recipe
from nasjax.train.schedules import step_drops
from nasjax.train.step import trainer

RECIPE = Recipe(epochs=3, batch_size=32, augment=Augment(flip=False))
SPACE = ConvChain(1, 1, filter_heights=(3,), filter_widths=(3,), filter_counts=(4,))


@pytest.fixture(scope="module")
def setting():
    data = resident(load(DataConfig(train_limit=100, valid_limit=40)))
    network = conv_chain(plan(SPACE, np.array([0, 0, 0, 0]), (8, 8, 1), 10))
    return network, data


def test_the_rate_drops_at_half_and_at_three_quarters():
    rates = [float(step_drops(0.1, progress, (0.5, 0.75), 0.1)) for progress in (0, 0.49, 0.5, 0.74, 0.75, 0.99)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_losses():
    logits = jnp.array([[0.0, 0.0], [0.0, np.log(3.0)]])
    labels = jnp.array([0, 0])
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), (np.log(2) + np.log(4)) / 2, rtol=1e-6)
    np.testing.assert_array_equal(
        losses.hits(jnp.array([[1.0, 0], [0, 1], [jnp.nan, 0]]), jnp.array([0, 0, 0])), [1, 0, np.nan]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"drops": (0.5, 1.0)},
        {"dtype": "int8"},
    ],
)
def test_a_recipe_refuses(change):
    with pytest.raises(ValueError):
        Recipe(**change)


@pytest.mark.slow
def test_one_step_is_nesterov_with_decay(setting):
    """Two steps by hand: g = gradient + decay w; m = g + mu m; w -= rate (g + mu m)."""
    network, data = setting
    variables = network.init(jax.random.key(0), None, data.train_x)
    train = trainer(network, RECIPE, 100, variables, TASK)
    state = train.start(variables)
    key, rate = jax.random.key(1), jnp.float32(0.05)
    weights, momentum = np.asarray(state.params), 0.0
    for t in range(2):
        x, y, key_net = train.batch(key, train.shuffle(key, 0), t, data)

        def loss(params, state=state, x=x, y=y):
            tree = {**train.variables(state), "params": train.variables(state._replace(params=params))["params"]}
            return losses.cross_entropy(network.apply(tree, None, x, train=True)[0], y)

        gradient = np.asarray(jax.grad(loss)(state.params)) + 1e-4 * weights
        momentum = gradient + 0.9 * momentum
        weights = weights - 0.05 * (gradient + 0.9 * momentum)
        state = jax.jit(train.update)(state, None, rate, x, y, key_net, jnp.int32(t))
        np.testing.assert_allclose(state.params, weights, rtol=1e-5, atol=1e-6)
    assert int(state.step) == 2


def test_an_epoch_sees_every_image_at_most_once(setting):
    _, data = setting
    network = setting[0]
    train = trainer(network, RECIPE, 100, network.init(jax.random.key(0), None, data.train_x), TASK)
    assert (train.epoch_steps, train.steps) == (3, 9)  # 4 images of 100 are left out
    orders = [np.asarray(train.shuffle(jax.random.key(0), epoch)) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(100))
    assert not np.array_equal(*orders)


@pytest.mark.slow
def test_fit_learns_and_an_interrupted_fit_ends_the_same(setting):
    network, data = setting
    states, epochs = [], []

    def on_epoch(epoch, state):
        epochs.append(epoch)
        states.append(jax.tree.map(np.array, state))

    key = jax.random.key(2)
    variables, history = fit(key, network, data, RECIPE, TASK, on_epoch=on_epoch)
    assert epochs == [1, 2, 3] and history["train_loss"][2] < history["train_loss"][0]
    resumed, history_resumed = fit(key, network, data, RECIPE, TASK, state=jax.tree.map(jnp.asarray, states[0]))
    assert history_resumed == history
    assert all(map(np.array_equal, jax.tree.leaves(resumed), jax.tree.leaves(variables)))
    with pytest.raises(ValueError, match="the recipe has 4"):
        fit(key, network, data, Recipe(epochs=4, batch_size=32), TASK, state=jax.tree.map(jnp.asarray, states[0]))


def test_fit_stops_at_nan(setting):
    network, data = setting
    seen = []
    _, history = fit(
        jax.random.key(0),
        network,
        data,
        Recipe(batch_size=32, learning_rate=1e38),
        TASK,
        on_epoch=lambda e, s: seen.append(e),
    )
    assert len(history["train_loss"]) == 1 and not np.isfinite(history["train_loss"][0]) and not seen
