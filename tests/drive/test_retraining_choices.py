"""What retraining chooses, tests and takes for the same, with trainings whose results are given: nothing is trained."""

import dataclasses
import json
from contextlib import nullcontext

import pytest
from tools.ghosts import ghosts
from tools.toy_jobs import DATA, built, split

from nasjax.drive import grid
from nasjax.drive import retrain as retraining
from nasjax.drive.retrain import Job, RetrainConfig, retrain
from nasjax.store import checkpoint
from nasjax.store.checkpoint import RunError
from nasjax.tasks.classification import TASK
from nasjax.train.recipe import Recipe
from nasjax.types import Failure, Runtime, Status, Watch

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

    for module in (retraining, grid):
        monkeypatch.setattr(module, "fit", fit)
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


def workers(of, *mishaps, number=2):
    """A runtime that ends what it was given last first, and its first tasks by mishaps; and its tasks, in order."""
    given, seen, left = [], [], list(mishaps)
    work = grid.trial(of.data, of.task, of.formed, 60.0)

    def submit(point):
        assert len(given) < number
        given.append((len(seen), point))
        seen.append(point)
        return len(seen) - 1

    def wait(seconds=None):
        ticket, point = given.pop()
        return [(ticket, left.pop(0) if left else work(point))]

    return Runtime(submit, wait, None, None, None, number, None), seen


def test_workers_try_the_points_of_a_grid_and_the_result_is_the_same(result, tmp_path):
    own = job(grid=True, grid_learning_rates=(0.2, 0.3, 0.1), grid_dropouts=(0.2, 0.1))
    runtime, seen = workers(own, Failure(Status.LOST, "its worker died"))
    shared = result(own._replace(runtime=lambda: nullcontext(runtime)))
    (file,) = tmp_path.rglob("grid.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(seen) == 7 and sorted(map(json.dumps, (row["setting"] for row in rows))) == sorted(
        {point.name for point in seen}
    )
    assert [row["setting"] for row in rows] != [point.setting for point in seen[:6]]  # as they came
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    runtime, seen = workers(own)
    again = result(own._replace(runtime=lambda: nullcontext(runtime)))
    assert len(seen) == 2  # those that were not there
    file.unlink()
    for other in (result(own), again):
        assert other["recipe"] == shared["recipe"] and other["form"] == shared["form"] == {"dropout": 0.2}


@pytest.mark.parametrize("failure", [Failure(Status.FAILED, "no memory"), Failure(Status.LOST, "no memory")])
def test_a_point_that_fails_in_a_worker_ends_the_retraining(result, failure):
    own = job(grid=True, grid_learning_rates=(0.2,))
    runtime, seen = workers(own, failure, failure, failure)
    with pytest.raises(RunError, match="of the grid failed: no memory"):
        result(own._replace(runtime=lambda: nullcontext(runtime)))
    assert len(seen) == (1 if failure.status == Status.FAILED else 3)


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
