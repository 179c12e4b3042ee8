"""Recipes of the DARTS family: schedules, clipping, drop path, auxiliary loss, label smoothing, cutout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax.experiments import pc_darts
from nasjax.settings import as_json
from nasjax.tasks.classification import TASK
from nasjax.train import augment as module
from nasjax.train import losses, optimiser, schedules
from nasjax.train.augment import Augment
from nasjax.train.optimiser import rate_now
from nasjax.train.recipe import Recipe, identity
from nasjax.train.step import Data, trainer
from nasjax.types import Network

N = 6  # training images, two a step: three steps an epoch
RATE = 0.5
PLAIN = Recipe(
    epochs=4, batch_size=2, momentum=0.0, nesterov=False, weight_decay=0.0, augment=Augment("none", flip=False)
)


def linear(auxiliary=False):
    """Logits = x w; the statistics tell the drop_rate it was given, and an auxiliary head gives twice the logits."""

    def init(key, choice, x):
        return {"params": {"w": jnp.zeros((x.shape[-1], 3))}, "batch_stats": {"rate": jnp.zeros(1)}}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        logits = x.mean((1, 2)) @ variables["params"]["w"]
        if not train:
            return logits, variables
        outputs = (logits, 2 * logits) if auxiliary else logits
        return outputs, {**variables, "batch_stats": {"rate": jnp.full(1, drop_rate, jnp.float32)}}

    return Network(init, apply)


@pytest.fixture(scope="module")
def data():
    x = jax.random.normal(jax.random.key(0), (N, 2, 2, 4))
    y = jnp.arange(N) % 3
    return Data(x, y, x, y, jnp.zeros(4), jnp.ones(4))


def trained(recipe, data, steps, auxiliary=False):
    """Weights before and after each of the steps t, each from the same start; and the drop rates seen."""
    network = linear(auxiliary)
    train = trainer(network, recipe, N, network.init(None, None, data.train_x), TASK)
    params = jax.random.normal(jax.random.key(1), (12,))
    state = train.start({"params": {"w": params.reshape(4, 3)}, "batch_stats": {"rate": jnp.zeros(1)}})
    update, x, y = jax.jit(train.update), data.train_x[:2], data.train_y[:2]
    after = [update(state, None, jnp.float32(RATE), x, y, jax.random.key(2), jnp.int32(t)) for t in steps]
    return params, [s.params for s in after], [float(s.rest[0]) for s in after], [s.train_loss for s in after]


def gradient(params, data, auxiliary_weight=0.0, smoothing=0.0):
    def loss(params):
        logits = data.train_x[:2].mean((1, 2)) @ params.reshape(4, 3)
        labels = optax.smooth_labels(jax.nn.one_hot(data.train_y[:2], 3), smoothing)
        parts = [optax.softmax_cross_entropy(scale * logits, labels).mean() for scale in (1, 2)]
        return parts[0] + auxiliary_weight * parts[1]

    return jax.grad(loss)(params)


def test_cosine_gives_the_rates_of_the_search():
    rates = [float(schedules.cosine(0.025, epoch, 50, 0.001)) for epoch in (0, 25, 49)]
    np.testing.assert_allclose(rates, [0.025, 0.013, 0.0010237], rtol=5e-5)


def test_the_other_schedules():
    np.testing.assert_allclose(schedules.cosine(0.025, 600, 600), 0.0, atol=1e-8)
    rates = [float(schedules.exponential(0.1, epoch, 0.97)) for epoch in (0, 1, 249)]
    np.testing.assert_allclose(rates, [0.1, 0.097, 0.1 * 0.97**249], rtol=1e-4)
    rates = [float(schedules.linear(0.5, epoch, 250)) for epoch in (0, 125, 249)]
    np.testing.assert_allclose(rates, [0.5, 0.25, 0.002], rtol=1e-4)
    np.testing.assert_allclose([schedules.warm_up(e, 5) for e in (0, 3, 4, 5, 99)], [0.2, 0.8, 1, 1, 1], rtol=1e-6)


def test_the_released_imagenet_rate():
    """250 epochs from 0.5: a line to 0 at epoch 245 with its own end, and 5 epochs of warm-up of the base rate."""
    recipe = pc_darts.IMAGENET

    def rates(*epochs):
        return [float(rate_now(recipe, jnp.float32(0.5), epoch / 250, jnp.int32(epoch))) for epoch in epochs]

    np.testing.assert_allclose(rates(0, 4), [0.1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(rates(5, 100, 244), [0.5 * (245 - e) / 245 for e in (5, 100, 244)], rtol=1e-5)
    np.testing.assert_allclose(rates(245, 249), [0.5 * 5 / (245 * 5), 0.5 * 1 / (245 * 5)], rtol=1e-5)
    with pytest.raises(ValueError, match="write schedule=linear"):
        Recipe(schedule="linear_tail", epochs=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({}, [1, 1, 0.1, 0.01]),  # drops at a half and three quarters
        ({"schedule": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
        ({"schedule": "cosine", "final_rate": RATE / 2}, [1, 0.926777, 0.75, 0.573223]),
        ({"schedule": "linear", "warmup_epochs": 2}, [0.5, 0.75, 0.5, 0.25]),
        ({"schedule": "exponential", "rate_decay": 0.9}, [1, 0.9, 0.81, 0.729]),
        ({"schedule": "linear", "rate_per_step": True}, [10 / 12, 7 / 12, 4 / 12, 1 / 12]),
        ({"schedule": "linear", "rate_per_step": True, "refresh_epochs": 2}, [10 / 12, 7 / 12, 4 / 12, 1 / 12]),
        ({"schedule": "cosine", "rate_per_step": True}, [0.933013, 0.629410, 0.25, 0.017037]),
    ],
)
def test_the_trainer_uses_the_rate_of_its_epoch(data, changes, factors):
    recipe = dataclasses.replace(PLAIN, **changes)
    steps = [0, 3, 6, 9] if not changes else [2, 5, 8, 11]  # the first or the last step of an epoch
    before, after, rates, _ = trained(recipe, data, steps)
    expected = RATE * np.array(factors)[:, None] * np.asarray(gradient(before, data))[None]
    np.testing.assert_allclose(np.asarray(before)[None] - np.asarray(after), expected, rtol=1e-3, atol=1e-5)
    assert rates == [0, 0, 0, 0]


@pytest.mark.slow
def test_the_gradient_is_clipped_before_weight_decay(data):
    for clip in (1e-2, 100.0):
        before, (after,), *_ = trained(dataclasses.replace(PLAIN, clip=clip, weight_decay=0.3), data, [0])
        g = np.asarray(gradient(before, data))
        g = g * min(1.0, clip / np.linalg.norm(g)) + 0.3 * np.asarray(before)
        np.testing.assert_allclose(after, before - RATE * g, rtol=1e-4, atol=1e-6)


def centred():
    """Logits = (x - mean) w + bias; the mean is the batch's in training, else the running one."""

    def init(key, choice, x):
        params = {"bias": jnp.full(3, 0.5), "w": jax.random.normal(jax.random.key(5), (x.shape[-1], 3))}
        return {"params": params, "batch_stats": {"mean": jnp.zeros(x.shape[-1])}}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        params, mean = variables["params"], variables["batch_stats"]["mean"]
        now = x.mean((0, 1, 2)) if train else mean
        logits = (x.mean((1, 2)) - now[None]) @ params["w"] + params["bias"][None]
        after = {"mean": bn_momentum * mean + (1 - bn_momentum) * now}
        return logits, ({**variables, "batch_stats": after} if train else variables)

    return Network(init, apply)


def test_decay_can_leave_out_what_is_no_kernel(data):
    network, moved = centred(), {}
    for decay_on in ("all", "kernels", "kernels_and_biases"):
        recipe = dataclasses.replace(PLAIN, weight_decay=0.3, decay_on=decay_on)
        start = network.init(None, None, data.train_x)
        train = trainer(network, recipe, N, start, TASK)
        x, y = data.train_x[:2], data.train_y[:2]
        state = jax.jit(train.update)(train.start(start), None, jnp.float32(RATE), x, y, jax.random.key(2), 0)
        moved[decay_on] = train.variables(state)["params"]
    np.testing.assert_array_equal(moved["all"]["w"], moved["kernels"]["w"])
    np.testing.assert_allclose(moved["kernels"]["bias"] - moved["all"]["bias"], RATE * 0.3 * 0.5, rtol=1e-4)
    for name in ("w", "bias"):
        np.testing.assert_array_equal(moved["all"][name], moved["kernels_and_biases"][name])


def test_scales_and_shifts_decay_only_where_all_does():
    """What decay adds to a gradient of 0, in the order of the tree's leaves."""
    params, added = {name: jnp.ones(1) for name in ("beta", "bias", "gamma", "w")}, {}
    params["x"] = jnp.ones((1, 1, 1, 1))
    for decay_on in ("all", "kernels", "kernels_and_biases", "convolutions"):
        decay = optimiser._decay(dataclasses.replace(PLAIN, weight_decay=0.3, decay_on=decay_on), params)
        added[decay_on] = (decay.update(jnp.zeros(5), decay.init(jnp.ones(5)), jnp.ones(5))[0] > 0).tolist()
    assert added == {
        "all": [True] * 5,
        "kernels": [False, False, False, True, True],
        "kernels_and_biases": [False, True, False, True, True],
        "convolutions": [False, False, False, False, True],
    }


@pytest.mark.slow
def test_a_refresh_moves_no_weight_and_averages_the_statistics(data):
    """All batches count alike, so the mean over them is that of all images."""
    x = data.train_x + jnp.array([9.0, 0.0, 0.0, -9.0])[None, None, None]
    shifted, network, ends = data._replace(train_x=x, valid_x=x), centred(), []
    for epochs in (0, 2):
        recipe = dataclasses.replace(PLAIN, momentum=0.9, weight_decay=0.1, refresh_epochs=epochs)
        start = network.init(None, None, x)
        train = trainer(network, recipe, N, start, TASK)
        assert train.steps == 3 * (4 + epochs)
        run = jax.jit(train.run)
        state = run(jax.random.key(7), train.start(start), None, jnp.float32(RATE), shifted, 0, train.steps)
        found = jax.jit(train.measure)(train.variables(state), None, x, data.valid_y, data.mean, data.std)
        assert state.valid_metric[-1] == found
        ends.append(state)
    without, refreshed = ends
    np.testing.assert_array_equal(refreshed.params, without.params)
    np.testing.assert_array_equal(refreshed.train_loss, without.train_loss)
    np.testing.assert_allclose(refreshed.rest, x.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(refreshed.valid_metric[:-1], without.valid_metric[:-1])
    assert refreshed.valid_metric[-1] != without.valid_metric[-1]  # its running mean had not arrived yet


def test_drop_path_grows_with_the_epochs(data):
    _, _, rates, _ = trained(dataclasses.replace(PLAIN, drop_path=0.2), data, [0, 2, 3, 8, 11])
    np.testing.assert_allclose(rates, [0, 0, 0.05, 0.1, 0.15], rtol=1e-6)


@pytest.mark.parametrize(("weight", "smoothing"), [(0.4, 0.0), (0.0, 0.1), (0.4, 0.1)])
def test_auxiliary_loss_and_label_smoothing(data, weight, smoothing):
    recipe = dataclasses.replace(PLAIN, auxiliary_weight=weight, label_smoothing=smoothing)
    before, (after,), *_ = trained(recipe, data, [0], auxiliary=True)
    np.testing.assert_allclose(after, before - RATE * gradient(before, data, weight, smoothing), rtol=1e-4, atol=1e-6)


def test_an_auxiliary_loss_needs_an_auxiliary_head(data):
    with pytest.raises(ValueError, match="an auxiliary head; build it with one, or write auxiliary_weight=0"):
        trained(dataclasses.replace(PLAIN, auxiliary_weight=0.4), data, [0])


def test_smoothed_labels():
    logits, labels = jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.array([0])
    expected = -(0.9 * np.log(0.5) + 0.1 * np.log([0.5, 0.25, 0.25]).mean())
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, 0.1), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), -np.log(0.5), rtol=1e-5)


def test_validation_does_not_see_the_training_options(data):
    """The same weights score the same, whatever the recipe; and the validation images are not cut."""
    options = {"drop_path": 0.3, "auxiliary_weight": 0.4, "label_smoothing": 0.1, "clip": 5.0, "schedule": "cosine"}
    scores = []
    for recipe in (PLAIN, dataclasses.replace(PLAIN, **options, augment=Augment("pad", cutout=2))):
        network = linear(recipe is not PLAIN)
        train = trainer(network, recipe, N, network.init(None, None, data.train_x), TASK)
        state = train.start({"params": {"w": jnp.eye(4, 3)}, "batch_stats": {"rate": jnp.zeros(1)}})
        scores.append(np.asarray(train.validate(state, None, data, jnp.int32(0)).valid_metric))
    np.testing.assert_array_equal(*scores)
    assert scores[0][0] > 0


@pytest.mark.parametrize(("size", "height", "width"), [(4, 8, 8), (3, 8, 6), (20, 8, 8)])
def test_cutout_is_one_square_clipped_at_the_border(size, height, width):
    x = jnp.ones((3000, height, width, 2))
    cut = np.asarray(jax.jit(module.cutout, static_argnums=2)(jax.random.key(0), x, size))
    np.testing.assert_array_equal(cut[..., 0], cut[..., 1])
    holes = cut[..., 0] == 0
    above, below = size // 2, size - size // 2  # rows centre - above .. centre + below - 1
    squares = np.zeros((height, width, height, width), bool)
    for i in range(height):
        for j in range(width):
            squares[i, j, max(0, i - above) : i + below, max(0, j - above) : j + below] = True
    kinds, owner = np.unique(squares.reshape(height * width, -1), axis=0, return_inverse=True)
    found = (holes.reshape(3000, 1, -1) == kinds[None]).all(-1)
    assert (found.sum(1) == 1).all()  # every hole is one of the clipped squares
    counts, centres = found.sum(0), np.bincount(owner.ravel(), minlength=len(kinds))
    expected = 3000 * centres / (height * width)
    assert ((counts - expected) ** 2 / expected).sum() < 1.5 * len(kinds) + 20  # and every centre is as likely


def test_cutout_comes_last_and_depends_on_the_key_and_the_image_s_number():
    x = jax.random.normal(jax.random.key(3), (50, 8, 8, 1)) + 10
    key, cfg = jax.random.key(4), Augment("pad", 1, cutout=4)
    augment, cutout = jax.jit(module.augment, static_argnums=2), jax.jit(module.cutout, static_argnums=2)
    cut = augment(key, x, cfg)
    whole = augment(key, x, Augment("pad", 1))
    np.testing.assert_array_equal(cut, cutout(key, whole, 4))
    np.testing.assert_array_equal(augment(key, x[20:30], cfg, jnp.arange(20, 30)), cut[20:30])
    hole = np.asarray(cutout(key, jnp.ones_like(x), 4))
    assert len(np.unique(hole, axis=0)) > 20
    with pytest.raises(ValueError, match="cutout is in pixels and must not be negative"):
        Augment(cutout=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "step"}, "choose drops, cosine, exponential, linear"),
        ({"rate_decay": 0.0}, "rate_decay must be in"),
        ({"drop_path": 1.0}, "drop_path and label_smoothing in"),
        ({"label_smoothing": -0.1}, "drop_path and label_smoothing in"),
        ({"clip": -1.0}, "must not be negative"),
        ({"warmup_epochs": -1}, "must not be negative"),
        ({"refresh_epochs": -1}, "must not be negative"),
        ({"decay_on": "weights"}, "choose all, kernels, kernels_and_biases, convolutions"),
    ],
)
def test_a_recipe_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


def test_a_recipe_without_new_settings_is_known_as_it_was_before_they_existed():
    tree = as_json(Recipe())
    known = identity(tree)
    assert set(tree) - set(known) == {"accumulate", "ema"}
    assert set(tree["augment"]) - set(known["augment"]) == {"crop_scale", "crop_ratio", "jitter", "lighting"}
    changed = identity(as_json(Recipe(ema=0.5, augment=Augment(lighting=0.1))))
    assert changed["ema"] == 0.5 and changed["augment"]["lighting"] == 0.1 and "accumulate" not in changed


def test_a_batch_in_parts_makes_the_step_of_the_whole_batch(data):
    whole, parts = (trained(dataclasses.replace(PLAIN, accumulate=n), data, [0]) for n in (1, 2))
    np.testing.assert_allclose(whole[1][0], parts[1][0], rtol=1e-6)
    np.testing.assert_allclose(whole[3][0], parts[3][0], rtol=1e-6)
    for changes, why in (({"accumulate": 3}, "equal parts of batch_size=2"), ({"ema": 1.0}, "ema is a decay")):
        with pytest.raises(ValueError, match=why):
            dataclasses.replace(PLAIN, **changes)


def test_the_average_of_the_weights_is_what_is_kept(data):
    network = linear()
    train = trainer(
        network, recipe := dataclasses.replace(PLAIN, ema=0.75), N, network.init(None, None, data.train_x), TASK
    )
    plain = trainer(network, PLAIN, N, network.init(None, None, data.train_x), TASK)
    params = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    begin = {"params": {"w": params}, "batch_stats": {"rate": np.zeros(1, np.float32)}}
    state, other = train.start(begin), plain.start(begin)
    average, update, without = params, jax.jit(train.update), jax.jit(plain.update)
    for t in range(3):
        given = (None, jnp.float32(RATE), data.train_x[:2], data.train_y[:2], jax.random.key(2), jnp.int32(t))
        state, other = update(state, *given), without(other, *given)
        average = recipe.ema * average + (1 - recipe.ema) * np.asarray(other.params).reshape(4, 3)
    np.testing.assert_array_equal(state.params, other.params)  # the steps are the same
    np.testing.assert_allclose(train.variables(state)["params"]["w"], average, rtol=1e-5)
