"""BigNAS's step: labels for the largest path, its outputs for the others, and what is regularised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.learners import samplers
from nasjax.learners.one_shot_update import Descent, one_shot_update
from nasjax.nets.supernet import Supernet
from nasjax.spaces.site_space import SiteSpace
from nasjax.tasks.regression import TASK as REGRESSION
from nasjax.tasks.segmentation import TASK as SEGMENTATION

X, Y = jnp.linspace(-1, 2, 6), jnp.array([0, 1, 1, 0, 1, 1])
ARCHS = np.array([[2], [0], [1]], np.int32)  # the first path is the largest
LAYER, STEM = jnp.array([[0.1, 0.0], [0.3, 1.0], [1.0, 2.0], [5.0, 5.0]]), jnp.array([0.5, -0.25])


def logits(layer, stem, choice):
    return X[:, None] * (stem + layer[choice])[None]


def toy(halves=False):
    """Logits = x (stem + the chosen two numbers); with a key they are halved, if at all: as good as dropout here."""

    def init(key, choice, x):
        return {"params": {"stem": {"conv": STEM}, "layer": {"conv": LAYER}}, "batch_stats": {}}

    def apply(variables, choice, x, *, key=None, train=False, bn_momentum=0.9, drop_rate=0.0):
        weights = variables["params"]["stem"]["conv"] + variables["params"]["layer"]["conv"][choice[0]]
        return x[:, None] * weights[None] / (2 if halves and key is not None else 1), variables

    def select(archs, new, old):
        used = (archs[:, 0, None] == jnp.arange(4)[None]).any(0)[:, None]
        return {**new, "layer": {"conv": jnp.where(used, new["layer"]["conv"], old["layer"]["conv"])}}

    return Supernet(init, apply, select)


def step(halves=False, decay=0.0, **settings):
    """Gradient and decay of a first step, of the layer and of the stem."""
    descent = Descent(momentum=0.0, weight_decay=decay, label_smoothing=0.0)
    update = one_shot_update(toy(halves), descent=descent, **settings)
    params = toy().init(None, None, None)["params"]
    arguments = params, update.momentum(params), {}, jnp.asarray(ARCHS), jax.random.key(0), 0.1
    _, (layer, stem), _, _ = jax.jit(update.run)(*arguments, {"train": (X, Y)})
    return np.asarray(layer), np.asarray(stem)


def written(first=1.0, others=1.0, stopped=True):
    """The same by its definition: labels for the first, whose probabilities are the others' targets."""

    def loss(layer, stem):
        taught = jax.nn.softmax(logits(layer, stem, 2) * first)
        taught = jax.lax.stop_gradient(taught) if stopped else taught
        of = [(jax.nn.one_hot(Y, 2), 2, first), (taught, 0, others), (taught, 1, others)]
        return sum(-(t * jax.nn.log_softmax(logits(layer, stem, c) * s)).sum(-1).mean() for t, c, s in of)

    return [np.asarray(g) for g in jax.grad(loss, (0, 1))(LAYER, STEM)]


@pytest.mark.slow
def test_the_largest_learns_from_labels_and_the_others_from_its_outputs():
    for mine, known in zip(step(distill=True), written(), strict=True):
        np.testing.assert_allclose(mine, known, rtol=1e-5, atol=1e-7)
    assert not np.allclose(written()[1], written(stopped=False)[1])  # a gradient through the teacher would be seen


@pytest.mark.slow
def test_a_batch_in_parts_has_a_teacher_for_each_part():
    for mine, known in zip(step(distill=True, accumulate=3), written(), strict=True):
        np.testing.assert_allclose(mine, known, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("regularised", "others"), [("all", 0.5), ("first", 1.0)])
def test_dropout_and_decay_act_on_all_paths_or_on_the_first(regularised, others):
    layer, stem = step(halves=True, decay=0.1, distill=True, regularised=regularised)
    slopes = written(first=0.5, others=others)
    np.testing.assert_allclose(stem, slopes[1] + 0.1 * STEM, rtol=1e-5)
    decayed = np.array([[regularised == "all"], [regularised == "all"], [True], [False]])
    np.testing.assert_allclose(layer, slopes[0] + 0.1 * LAYER * decayed, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_a_sandwich_has_the_ends_and_random_paths():
    space = SiteSpace("tiny", {"a": (1, 2, 3), "b": (1, 2)})
    ends = np.array([[2, 1], [0, 0]])
    drawn = [np.asarray(samplers.sandwich(space, ends, 3)(jax.random.key(n))) for n in range(4)]
    for archs in drawn:
        np.testing.assert_array_equal(archs[:2], ends)
        assert archs.shape == (5, 2)
    assert len({archs[2:].tobytes() for archs in drawn}) > 1
    np.testing.assert_array_equal(samplers.sandwich(space, ends, 0)(jax.random.key(0)), ends)
    with pytest.raises(ValueError, match="not negative"):
        samplers.sandwich(space, ends, -1)


def test_values_are_imitated_by_their_squared_difference():
    a, b = jnp.array([[1.0], [2.0]]), jnp.array([[0.0], [4.0]])
    assert float(REGRESSION.imitate((a, None), b)) == 2.5


def test_a_distillation_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="the task segmentation does not say how outputs are imitated"):
        one_shot_update(toy(), task=SEGMENTATION, distill=True)
    with pytest.raises(ValueError, match="shows each path other images"):
        one_shot_update(toy(), distill=True, fresh_batches=True)
