"""The task of values: R^2 as defined, and what it refuses."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.experiments.reinforce import ReinforceConfig, reward_of
from nasjax.problem.saved import answered
from nasjax.tasks.regression import TASK
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished, summed

RANDOM = np.random.default_rng(0)
Y = RANDOM.normal(size=50).astype(np.float32)
OUT = (Y + RANDOM.normal(size=50) / 2).astype(np.float32)[:, None]


def test_the_metric_is_r2():
    expected = 1 - ((OUT[:, 0] - Y) ** 2).sum() / ((Y - Y.mean()) ** 2).sum()
    assert float(finished(TASK, summed(TASK, OUT, Y))) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(finished(TASK, summed(TASK, OUT[:8], np.full(8, 1.7, np.float32))))  # of a batch of equal values
    mean = np.full_like(OUT, Y.mean())
    assert float(finished(TASK, summed(TASK, mean, Y))) == pytest.approx(0, abs=1e-5)


def test_the_loss_is_the_mean_squared_error_of_every_head():
    plain = float(np.mean((OUT[:, 0] - Y) ** 2))
    assert float(TASK.loss(OUT, Y, Recipe())) == pytest.approx(plain, rel=1e-5)
    both = float(TASK.loss((OUT, OUT), Y, Recipe(auxiliary_weight=0.5)))
    assert both == pytest.approx(1.5 * plain, rel=1e-5)
    with pytest.raises(ValueError, match="label_smoothing is for classification"):
        TASK.loss(OUT, Y, Recipe(label_smoothing=0.1))
    with pytest.raises(ValueError, match="auxiliary_weight needs a network with an auxiliary head"):
        TASK.loss(OUT, Y, Recipe(auxiliary_weight=0.5))


def test_a_reward_grows_with_the_metric_and_is_never_below_a_failure():
    search = ReinforceConfig()
    problem = types.SimpleNamespace(config=types.SimpleNamespace(search=search), task=TASK, looked_up=False)
    rewards = np.asarray(reward_of(problem)(jnp.array([-3.0, -0.1, 0.0, 0.5, 1.0])))
    np.testing.assert_array_equal(rewards, np.array([0, 0, 0, 0.5, 1], np.float32))


def test_networks_without_answers_say_so():
    with pytest.raises(ValueError, match="a network for language has no answers of a row per sample; call its apply"):
        answered(types.SimpleNamespace(answers=None, task="language"), np.zeros((1, 2)))
