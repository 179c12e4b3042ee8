"""The workers of a retraining's grid: who starts them, and what they try."""

from types import SimpleNamespace

import pytest
from tools.commands import here

from nasjax import commands
from nasjax.commands import retraining
from nasjax.drive import grid
from nasjax.problem.problem import Problem
from nasjax.settings import as_json, override

CONFIG = override(commands.configure("random"), "retrain.grid=true")


def test_workers_are_there_for_as_long_as_the_grid(monkeypatch, tmp_path):
    started = []

    def start(begin, problem, path, say):
        started.append(begin)
        return SimpleNamespace(close=lambda: started.append("closed")), {}

    monkeypatch.setattr(retraining.workers, "start", start)
    with retraining._workers(Problem(CONFIG), tmp_path, print) as runtime:
        assert runtime is None and not started  # this process tries the points
    with retraining._workers(Problem(override(CONFIG, "workers=2")), tmp_path, print) as runtime:
        assert runtime is not None and started == [retraining.points_of]
    assert started[1:] == ["closed"]


def test_a_worker_tries_points_of_the_run_s_data_and_networks(monkeypatch, tmp_path):
    example = Problem(CONFIG).example()

    def trial(dataset, task, formed, save_every):
        return lambda point: (len(dataset.train.y), task.name, formed(example, {}).arch["space"], save_every)

    monkeypatch.setattr(grid, "trial", trial)
    facts, work = retraining.points_of(as_json(CONFIG), str(tmp_path), [], "")
    assert work(None) == (1200, "classification", "conv_chain", 60.0)
    assert facts["dataset"]["name"] == "digits"


def test_workers_without_a_grid_are_one_line(tmp_path):
    args = ["--method=random", "--mode=retrain", "--arch=NAS_RL_V1", f"--workdir={tmp_path / 'new'}", "--workers=2"]
    code, _, err = here(*args)
    assert code == 2 and "add --set retrain.grid=true" in err


def test_a_negative_time_between_savings_is_refused():
    with pytest.raises(ValueError, match="save_every is a number of seconds, 0 or more"):
        override(CONFIG, "save_every=-1")
