"""What a retraining would refuse is refused before the search."""

import pytest
from tools.commands import here

from nasjax import catalog, commands
from nasjax.commands.foresight import require_settings
from nasjax.problem.problem import Problem
from nasjax.settings import override


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
