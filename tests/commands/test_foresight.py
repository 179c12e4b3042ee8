"""What a retraining would refuse is refused before the search."""

import dataclasses
import types

import pytest
from PIL import Image
from tools.commands import here

from nasjax import catalog, commands
from nasjax.commands import searching
from nasjax.commands.foresight import few_steps, require_retraining, require_settings
from nasjax.data import dataset
from nasjax.data.dataset import DataConfig
from nasjax.experiments.families import candidates_run
from nasjax.problem.problem import Problem
from nasjax.runtime import process
from nasjax.settings import as_json, override


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("random", ["retrain.sample=3"], "random has none"),
        ("random", ["retrain.grid=true", "retrain.grid_dropouts=0.3"], "--set 'retrain.grid_dropouts=\\(\\)'"),
        ("random", ["retrain.part=all", "data.seed_protocol=true"], "--set retrain.part=train"),
        ("reinforce_rnn", ["retrain.grid=true", "retrain.grid_dropouts=0.3"], None),
        ("spos", ["retrain.sample=3"], None),
    ],
)
def test_settings_of_the_retraining_are_looked_at(method, settings, message):
    problem = Problem(override(commands.configure(method), *settings))
    samples = catalog.method(method).make(problem).before_retrain is not None
    if message is None:
        require_settings(problem, samples)
    else:
        with pytest.raises(ValueError, match=message):
            require_settings(problem, samples)


def test_few_steps_of_a_training_are_told_with_what_makes_them_more():
    config = override(commands.configure("random"), "data.train_limit=120", "retrain_recipe.batch_size=16")
    (line,) = few_steps(Problem(config), "recipe", "search", "supernet", "retrain_recipe")
    assert line.startswith("recipe: 120 training samples in batches of 64 are 1 step an epoch, 4 steps in all")
    assert line.endswith("write --set recipe.batch_size=16")
    assert not list(few_steps(Problem(override(config, "recipe.batch_size=16")), "recipe"))
    assert not list(few_steps(Problem(commands.configure("random")), "recipe", "retrain_recipe"))


def test_a_worker_hands_on_what_is_to_be_told_of_its_data(monkeypatch, tmp_path):
    """Notes of what was read and lines about few steps: the driver does not read the data."""
    monkeypatch.setattr(candidates_run, "choose_strategy", lambda *_: ("exact", {"bytes": {}}))
    monkeypatch.setattr(candidates_run, "_sample", lambda problem: [None])
    monkeypatch.setattr(dataset, "_tell", lambda source, told, before=0: told("a note"))
    config = override(commands.configure("random"), "data.train_limit=120", "workers=1")
    facts, _ = searching.work_of(as_json(config), str(tmp_path), [], "")
    assert facts["told"][0] == "a note" and facts["told"][1].startswith("recipe: 120 training samples")
    said, closed = [], []
    started = types.SimpleNamespace(close=lambda: closed.append(True))
    monkeypatch.setattr(process, "process", lambda *given, **options: (started, dict(facts)))
    with searching._workers(Problem(config), tmp_path, None, said.append) as (_, told):
        assert "told" not in told and said == facts["told"]
    assert closed


def test_a_search_tells_what_its_data_leave_out(tmp_path, capsys):
    """Before anything is trained: these images are too few for a batch."""
    for k in range(12):
        (tmp_path / "set" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * k).save(tmp_path / "set" / "ab"[k % 2] / f"{k}.png")
    (tmp_path / "set" / "notes.txt").write_text("")
    data = DataConfig("image_folder", str(tmp_path / "set"))
    with pytest.raises(ValueError, match="is more than the 8 samples"):
        commands.search(dataclasses.replace(commands.configure("random"), data=data), tmp_path / "run")
    assert "notes.txt: no images, left out" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "most"), [("train", 20), ("all", 30)])
def test_a_batch_of_the_retraining_has_its_samples_before_the_search(part, most):
    """Those that it trains on: the validation part, too, where that is asked for."""
    few = ["data.train_limit=20", "data.valid_limit=10", f"retrain.part={part}"]
    config = override(commands.configure("random"), *few, f"retrain_recipe.batch_size={most}")
    require_retraining(Problem(config), False)
    with pytest.raises(ValueError, match=rf"={most + 1} is more than the {most} samples"):
        require_retraining(Problem(override(config, f"retrain_recipe.batch_size={most + 1}")), False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method=darts", "--set=retrain_recipe.auxiliary_weight=0.4"], "write retrain_recipe.auxiliary_weight=0"),
        (
            ["--method=darts", "--preset=paper", "--dataset=digits", "--set=form.auxiliary=false",
             "--set=retrain_recipe.augment.cutout=0"],
            "retrain_recipe.auxiliary_weight needs a network with an auxiliary head",
        ),
        (["--method=random", "--set=recipe.auxiliary_weight=0.4"], "write recipe.auxiliary_weight=0"),
        (["--method=spos", "--set=retrain_recipe.auxiliary_weight=0.4"], "write retrain_recipe.auxiliary_weight=0"),
        (["--method=evolution", "--set=retrain_recipe.augment.cutout=40"], "--set retrain_recipe.augment.cutout="),
    ],
)  # fmt: skip
def test_a_retraining_that_cannot_begin_is_refused_before_the_search(flags, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = here(*flags)
    assert code == 2 and message in err and not list(tmp_path.iterdir())


def test_best_is_an_architecture_of_the_workdir(tmp_path):
    with pytest.raises(ValueError, match=r"has no best\.json"):
        commands.asked_arch("best", tmp_path)
    assert commands.asked_arch(None, tmp_path, found=True) is None
    (tmp_path / "best.json").write_text("{}")
    best = str(tmp_path / "best.json")
    assert commands.asked_arch("best", tmp_path) == best == commands.asked_arch(None, tmp_path, found=True)
    assert commands.asked_arch(None, tmp_path) is None and commands.asked_arch("LSTM", tmp_path, found=True) == "LSTM"
