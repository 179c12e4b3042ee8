"""Paths of a supernet that are trained alone, with trainings whose results are given."""

import types

import jax
import numpy as np
import pytest
from tools.toy_jobs import DATA, network

from nasjax.evaluators import path_training
from nasjax.tasks.classification import TASK
from nasjax.train.fit import resident
from nasjax.train.recipe import Recipe
from nasjax.types import Proposal, Status


@pytest.fixture
def alone(monkeypatch):
    """alone(ids, sign) -> the evaluation, and the keys of the trainings; trial 9 is NaN."""
    keys = {}

    def path_fit(network, data, task, recipe):
        def fit(key, variables, arch, rate):
            keys[int(arch[0])] = jax.random.key_data(key).tolist()
            curve = np.array([0.1, 0.9, 0.3], np.float32)
            return types.SimpleNamespace(valid_metric=curve, train_loss=curve, nan_epoch=int(arch[0]) == 9), None

        return fit

    monkeypatch.setattr(path_training, "path_fit", path_fit)

    def run(ids, sign=1):
        keys.clear()
        task = TASK._replace(metric=TASK.metric._replace(sign=sign))
        toy = network(bn_eps=1e-5, dtype="float32")
        evaluator = path_training.trained_alone(toy, resident(DATA), task, recipe=Recipe(epochs=3))
        ids = np.array(ids)
        evaluation, _ = evaluator.evaluate(jax.random.key(0), Proposal(ids, ids[:, None], np.full(len(ids), -1)), None)
        return evaluation, dict(keys)

    return run


@pytest.mark.parametrize("sign", [1, -1])
def test_fitness_is_that_of_the_last_epoch(alone, sign):
    evaluation, keys = alone([4, -1, 9], sign)
    np.testing.assert_allclose(evaluation.fitness, [sign * 0.3, np.nan, np.nan], rtol=1e-6)
    assert evaluation.status.tolist() == [Status.OK, Status.OK, Status.FAILED] and set(keys) == {4, 9}


def test_a_path_s_key_is_its_own(alone):
    both, other = alone([3, 4])[1], alone([4, 5])[1]
    assert both[4] == other[4] != both[3] and len({str(key) for key in [*both.values(), other[5]]}) == 3
