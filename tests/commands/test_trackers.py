"""`--log` and `nasjax.tracker`, with stand-ins: what trackers are told, and where a resumed run goes on."""

import json
import sys
from contextlib import contextmanager
from unittest.mock import MagicMock

import pytest
from tools.commands import here

import nasjax
from nasjax import commands
from nasjax.commands import trackers
from nasjax.types import Metric, Outcome

TRIAL = {"id": 3, "arch": {}, "fitness": [0.5, -7.0], "status": "ok", "macs": None, "inherited": True}
EPOCH = {"epoch": 2, "stage": 0, "done": False, "train_loss": 1.5, "weights": {"a": [1.0]}}
ROUND = {"trials": 4, "wall_s": 9.0}
RETRAIN = {"epoch": 2, "train_loss": 0.5, "valid_accuracy": 0.75}
TOLD = [
    ({"trial/id": 3, "trial/fitness": 0.5, "trial/fitness2": -7.0}, 3),
    ({"epoch/epoch": 2, "epoch/stage": 0, "epoch/train_loss": 1.5}, 2),
    ({"round/trials": 4, "round/wall_s": 9.0}, 4),
    ({"retrain/epoch": 2, "retrain/train_loss": 0.5, "retrain/valid_accuracy": 0.75}, 2),
]
MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


@pytest.fixture
def modules(monkeypatch):
    """Stand-ins of the packages, by the names of `--log`."""
    found = {name: MagicMock() for name in MODULES}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, MODULES[name], module)
    found["mlflow"].start_run.return_value.info.run_id = "abc"
    return found


def sent(to, path, rows=(TRIAL, EPOCH, ROUND, RETRAIN)):
    with nasjax.tracker(to, nasjax.configure("random"), path) as record:
        for row in rows:
            record(row)


def logged(name, module):
    """(numbers, step) of what a tracker was told; the step of the two that have axes is in the numbers."""
    if name == "tensorboard":
        return [call.args for call in module.SummaryWriter.return_value.add_scalar.call_args_list]
    log = {"wandb": module.init.return_value.log, "mlflow": module.log_metrics, "trackio": module.log}[name]
    return [(call.args[0], call.kwargs.get("step")) for call in log.call_args_list]


@pytest.mark.parametrize("name", MODULES)
def test_every_tracker_is_told_the_numbers_of_every_line(name, modules, tmp_path):
    sent(name, tmp_path)
    found = logged(name, modules[name])
    if name == "tensorboard":
        assert found == [(*pair, step) for values, step in TOLD for pair in values.items()]
        modules[name].SummaryWriter.assert_called_once_with(str(tmp_path / "tensorboard"))
        modules[name].SummaryWriter.return_value.close.assert_called_once()
        return
    assert found == [(values, step if name == "mlflow" else None) for values, step in TOLD]
    of = modules[name]
    end = {"wandb": of.init.return_value.finish, "mlflow": of.end_run, "trackio": of.finish}[name]
    end.assert_called_once()


def test_a_target_is_a_folder_a_project_or_an_address(modules, tmp_path):
    for to in ("tensorboard:there", "wandb:us/ours", "mlflow:http://host:5000", "trackio:ours"):
        sent(to, tmp_path)
    assert modules["tensorboard"].SummaryWriter.call_args.args == ("there",)
    told = modules["wandb"].init.call_args.kwargs
    assert (told["entity"], told["project"], told["config"]["method"]) == ("us", "ours", "random")
    assert modules["mlflow"].set_tracking_uri.call_args.args == ("http://host:5000",)
    assert modules["trackio"].init.call_args.kwargs["project"] == "ours"


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_goes_on_in_the_same_run(name, modules, tmp_path):
    """By a name of its own: another workdir of the same name is another run."""
    for path in (tmp_path / "a" / "run", tmp_path / "b" / "run"):
        path.mkdir(parents=True)
        for _ in range(2):
            sent(name, path)
    told = [call.kwargs for call in modules[name].init.call_args_list]
    names = [one["name"] for one in told]
    assert names[0] == names[1] != names[2] == names[3] and {one["resume"] for one in told} == {"allow"}
    assert all(one.startswith("run-") for one in names)


def test_a_resumed_run_goes_on_in_mlflow(modules, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("")
    sent("mlflow", tmp_path)
    sent("mlflow", tmp_path)
    first, second = (call.kwargs for call in modules["mlflow"].start_run.call_args_list)
    assert (first, second) == ({"run_name": tmp_path.name}, {"run_id": "abc"})
    modules["mlflow"].log_params.assert_called_once()
    modules["mlflow"].set_experiment.assert_called_once_with("nasjax")
    modules["mlflow"].log_artifact.assert_called_with(str(tmp_path / "report.html"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    sent("mlflow:file:there", tmp_path)
    modules["mlflow"].set_experiment.assert_called_once()


@pytest.mark.parametrize("name", MODULES)
def test_a_workdir_that_is_not_there_yet_stays_so_until_the_first_line(name, modules, tmp_path):
    """A search refuses a folder that holds something and is no workdir."""
    sent(name, tmp_path / "run", rows=())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", MODULES)
def test_a_tracker_that_is_not_installed_says_what_to_install(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    code, _, err = here("--method=random", f"--log={name}", f"--workdir={tmp_path}/run")
    assert code == 2 and f"pip install {trackers._TRACKERS[name][1]}" in err and not (tmp_path / "run").exists()


def test_an_unknown_tracker_and_a_mode_without_lines_are_refused(tmp_path):
    code, _, err = here("--method=random", "--log=tensorbord", f"--workdir={tmp_path}/run")
    assert code == 2 and "unknown tracker 'tensorbord'; choose from tensorboard, wandb, mlflow, trackio" in err
    code, _, err = here("--method=random", "--log=wandb", "--mode=inspect")
    assert code == 2 and "--log has no effect with --mode=inspect; leave it out" in err


@pytest.mark.parametrize("mode", ["search", "retrain"])
def test_the_command_hands_its_lines_to_the_tracker(mode, monkeypatch, tmp_path):
    rows, closed = [], []

    @contextmanager
    def tracker(to, config, path):
        assert (to, config.method, path) == ("trackio:ours", "random", tmp_path / "run")
        yield rows.append
        closed.append(len(rows))

    def told(config, path, *rest, on_record, **options):
        on_record(ROUND)
        return Outcome(None, Metric("accuracy"), 0, 0, 0.0, ())

    monkeypatch.setattr(commands, "tracker", tracker)
    monkeypatch.setattr(commands, mode, told)
    code, _, err = here("--method=random", f"--mode={mode}", "--log=trackio:ours", f"--workdir={tmp_path}/run")
    assert code == 0, err
    assert (rows, closed) == ([ROUND], [1])


def test_what_a_tracker_knows_a_run_by_is_in_the_workdir(modules, tmp_path):
    for to in ("mlflow", "wandb"):
        sent(to, tmp_path)
    known = json.loads((tmp_path / "trackers.json").read_text())
    assert known["mlflow"] == "abc" and known["wandb"].startswith(tmp_path.name)
