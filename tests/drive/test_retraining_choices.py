"""What retraining chooses, tests and takes for the same, with trainings whose results are given: nothing is trained."""

import dataclasses
import json

import pytest
from tools.ghosts import ghosts
from tools.toy_jobs import DATA, built, split

from nasjax.drive import retrain as retraining
from nasjax.drive.retrain import Job, RetrainConfig, retrain
from nasjax.store import checkpoint
from nasjax.tasks.classification import TASK
from nasjax.train.recipe import Recipe
from nasjax.types import Watch

RECIPE = Recipe(epochs=2, batch_size=4, drops=(0.5, 0.75))
NONE = dict.fromkeys(("grid_learning_rates", "grid_weight_decays", "grid_bn_eps", "grid_decays"), ())
TEST = split(5, 2)  # the other parts have 8 and 6 samples


def job(*builts, sign=1, recipe=RECIPE, data=DATA, seed=0, facts=None, **settings):
    task = TASK._replace(metric=TASK.metric._replace(sign=sign))
    formed = lambda tree, form: built(form["dropout"])  # noqa: E731
    settings = RetrainConfig(**{**NONE, "grid_epochs": 1, **settings})
    return Job(builts or (built(),), data, data, lambda: TEST, task, recipe, settings, seed, facts or {}, formed)


@pytest.fixture
def result(tmp_path, monkeypatch):
    """result(job) -> result.json and the programs; the metric of a training is its rate plus its dropout."""

    def fit(key, network, data, recipe, task, **settings):
        variables = network.init(None, None, None)
        value = (
            recipe.learning_rate
            + dict(zip(network.apply.__code__.co_freevars, network.apply.__closure__, strict=True))[
                "dropout"
            ].cell_contents
        )
        return variables, {"train_loss": [0.1], "valid_accuracy": [value]}

    monkeypatch.setattr(retraining, "fit", fit)
    monkeypatch.setattr(checkpoint, "save", lambda *given, **settings: None)

    def run(job):
        with ghosts() as record:
            folder, found, winner = retrain(job, tmp_path, Watch())
        return {**found, "folder": folder.name, "winner": winner, "programs": record}

    return run


@pytest.mark.parametrize(("sign", "rate"), [(1, 0.3), (-1, 0.1)])
def test_the_grid_takes_the_best(result, sign, rate):
    """Of a metric of which less is better, the least; the last training is as long as without a grid."""
    found = result(job(sign=sign, grid=True, grid_learning_rates=(0.2, 0.3, 0.1)))
    assert found["recipe"]["learning_rate"] == rate and found["recipe"]["epochs"] == RECIPE.epochs


def test_the_grid_moves_all_drops_and_changes_the_network(result):
    found = result(job(grid=True, grid_decays=(0.4,), grid_dropouts=(0.1, 0.2)))
    assert found["recipe"]["drops"] == pytest.approx([0.4, 0.7])  # each keeps its part of what follows the first
    assert found["form"] == {"dropout": 0.2} and found["winner"].built.plan == ("toy", 0.2)


@pytest.mark.parametrize(("sign", "rate"), [(1, 0.3), (-1, 0.1)])
def test_the_best_of_several_is_tested(result, sign, rate):
    several = [built(rate=rate)._replace(arch={"space": "toy", "rate": rate}) for rate in (0.2, 0.3, 0.1)]
    found = result(job(*several, sign=sign, top_k=3))
    assert found["arch"]["rate"] == found["recipe"]["learning_rate"] == rate


def test_it_is_tested_on_the_test_part(result):
    (images,) = {line for line in result(job())["programs"] if str((5, 4, 4, 3)) in line}
    assert str((6, 4, 4, 3)) not in images


@pytest.mark.parametrize(("use", "rate"), [(True, 0.03), (False, 0.1)])
def test_a_predicted_rate_is_used_where_it_shall(result, use, rate):
    assert result(job(built(rate=0.03), use_token=use))["recipe"]["learning_rate"] == rate


def test_another_job_is_not_taken_for_the_same(result):
    """Whatever decides its numbers has a part in its folder's name."""
    others = [
        {"seed": 1},
        {"data": DATA._replace(sha256="other")},
        {"recipe": dataclasses.replace(RECIPE, clip=1.0)},
        {"facts": {"plugin": "other"}},
        {"grid": True, "grid_decays": (0.5,)},
        {"use_token": False},
    ]
    names = [result(job(**changes))["folder"] for changes in ({}, *others)]
    names += [result(job(one))["folder"] for one in (built(0.5), built(rate=0.5))]
    assert len(set(names)) == len(names) == 9
    assert json.dumps(sorted(names)) == json.dumps(sorted({*names, result(job())["folder"]}))
