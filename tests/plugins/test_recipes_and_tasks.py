"""What a plugin ships with a space or a data set: recipes, names, tasks, metrics that are no mean."""

import dataclasses
import json

import numpy as np
import pytest
from tools.commands import rows
from tools.plugin_files import BLOCKS, SHORT, clean, command, written  # noqa: F401 - clean is a fixture
from tools.toy_tasks import macro_f1

import nasjax
from nasjax import catalog, commands
from nasjax.data.dataset import DataConfig
from nasjax.problem.data import load, load_test
from nasjax.train.augment import Augment


def registered_with(**options):
    nasjax.register(space=nasjax.SiteSpace("s", {"a": (1, 2)}), build=lambda choices, signature: None, **options)


def test_a_recipe_trains_candidates_and_what_is_found_by_every_family():
    """Also in published settings, where its epochs count; the crops are those of the data."""
    recipe = nasjax.Recipe(epochs=7, optimizer="adamw", learning_rate=1e-3, augment=Augment(cutout=2))
    registered_with(recipe=recipe)
    demo, paper = (commands.configure("random", preset, "digits", "s") for preset in ("demo", "paper"))
    assert (demo.recipe.epochs, demo.retrain_recipe.epochs) == (4, 20)
    assert (paper.recipe.epochs, paper.retrain_recipe.epochs) == (7, 7)
    for one in (demo.recipe, demo.retrain_recipe, paper.recipe, paper.retrain_recipe):
        assert (one.optimizer, one.learning_rate) == ("adamw", 1e-3)
        assert (one.augment.flip, one.augment.crop, one.augment.cutout) == (False, "pad", 2)
    exec(BLOCKS["shared"].replace("    build=", '    recipe=nasjax.Recipe(optimizer="adam"),\n    build='), {})
    for preset in ("demo", "paper"):
        assert commands.configure("spos", preset, "digits", "shared").retrain_recipe.optimizer == "adam"
    other = nasjax.Recipes(search=recipe, last=dataclasses.replace(recipe, epochs=9), demo=nasjax.Recipe())
    registered_with(recipe=other)
    paper = commands.configure("random", "paper", "digits", "s")
    assert (paper.recipe.epochs, paper.retrain_recipe.epochs) == (7, 9)
    assert commands.configure("random", "demo", "digits", "s").recipe.optimizer == "sgd"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"recipe": 3}, r"register\(recipe=...\) must be a nasjax.Recipe, got int"),
        ({"recipe": nasjax.Recipe(augment=Augment(flip=False))}, "crops and mirror images are the data set's"),
        ({"named": {"BIG": {"a": 3}}}, r"register\(named=...\): 'BIG' is no architecture of 's': a = 3 is not in"),
        ({"used": print}, r"register\(used=...\) needs traced= as well"),
        ({"costs": print}, r"register\(costs=...\) needs used= as well"),
    ],
)
def test_what_does_not_belong_to_a_space_is_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        registered_with(**options)


def test_named_architectures_are_known_by_name():
    tree = {"space": "s", "choices": {"a": 2}}
    registered_with(named={"SHORT": {"a": 2}, "WHOLE": tree})
    assert catalog.named("SHORT") == catalog.named("WHOLE") == tree


CHAIN = ["--set=space.min_layers=1", "--set=space.max_layers=1", "--set=recipe.epochs=1", "--set=width=2"]
FAMILIES = {  # method: what makes its search tiny
    "random": [*CHAIN, "--set=recipe.batch_size=48", "--trials=3"],
    "spos": [
        *("--set=space.stem=4", "--set=space.channels=8", "--set=space.depths=2", "--set=space.strides=2"),
        *("--set=space.tail=8", "--set=space.operators=shuffle_k3,shuffle_k5", "--set=supernet.epochs=2"),
        *("--set=supernet.batch_size=16", "--set=search.population=3", "--set=search.top_k=2", "--trials=3"),
        *("--set=search.mutants=1", "--set=search.crossovers=1", "--set=search.calibration_batches=2"),
    ],
    "darts": [
        *("--space=tabular_cell", "--set=form.channels=4", "--set=form.cells=1", "--set=search.epochs=1"),
        *("--set=search.batch_size=16", "--set=search.order=first"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "spos", "darts"])
def test_a_metric_that_is_no_mean_through_every_family(tmp_path, capsys, method):
    """Spaces for classification serve a task that is like it; validation and test tell the F1 of the classes."""
    mine, run = written(tmp_path, "macro_f1"), tmp_path / "run"
    few = ["--set=data.train_limit=48", "--set=data.valid_limit=32", "--set=retrain_recipe.batch_size=48"]
    args = [f"--plugin={mine}", f"--method={method}", "--dataset=digits_f1", f"--workdir={run}"]
    assert command(*args, *FAMILIES[method], *few) == 0
    assert "macro_f1 " in capsys.readouterr().out
    found, config = rows(run), json.loads((run / "config.json").read_text())
    assert found and (config["task"], config["metric"]["name"]) == ("macro_f1", "macro_f1")
    hits = 32 * np.array([row["fitness"] for row in found])
    assert np.abs(hits - hits.round()).max() > 1e-3  # a share of 32 images would be whole
    own = [f"--plugin={run}/plugin.py", f"--workdir={run}"]
    alone = ["--set=retrain.sample=1"] if method == "spos" else []
    small = ["--set=retrain_recipe.epochs=1", "--set=retrain_recipe.batch_size=48"]
    assert command(*own, "--mode=retrain", *small, *alone) == 0
    if alone:
        (line,) = (run / "standalone.jsonl").read_text().splitlines()
        assert 0 <= json.loads(line)["macro_f1"] <= 1 and "accuracy" not in json.loads(line)
    assert "Test macro_f1" in capsys.readouterr().out
    told = json.loads((run / "result.json").read_text())["test_macro_f1"]
    model, test = nasjax.load(run, run_plugin=True), load_test(DataConfig("digits_f1"))
    assert told == pytest.approx(macro_f1(model.apply(model.variables, test.x), test.y), abs=1e-5)
    assert command("--mode=report", f"--workdir={run}") == 0 and "macro_f1" in (run / "report.html").read_text()
    catalog.forget("task", "macro_f1")
    with pytest.raises(ValueError, match=r"needs its plugin: .*run_plugin=True"):
        nasjax.load(run)


def test_values_of_ones_own_are_the_task_regression():
    y = 3 + np.arange(36) / 7
    nasjax.register(data="slopes", load=lambda folder: {"x": np.ones((36, 4, 4)), "y": y}, data_task="regression")
    data = load(DataConfig("slopes"))
    assert data.class_names == ("value",) and data.scale is not None
    np.testing.assert_allclose(data.train.y.mean(), 0, atol=1e-5)
    nasjax.register(data="slopes", load=lambda folder: {"x": np.ones((36, 4, 4)), "y": y})
    with pytest.raises(ValueError, match="y holds fractions, which number no classes"):
        load(DataConfig("slopes"))


def test_a_task_that_is_like_another_reads_its_data_and_has_its_networks(tmp_path, capsys):
    """Arrays as those of classification; a space for other tasks says no; a task like that one must name the first."""
    exec(BLOCKS["macro_f1"], {"__name__": "cell"})
    nasjax.register(data="shapes", load=lambda folder: {"x": np.ones((9, 4, 4)), "y": [1] * 9}, data_task="macro_f1")
    with pytest.raises(ValueError, match="y holds fewer than two classes"):
        load(DataConfig("shapes"))
    args = ["--method=evolution", "--dataset=digits_f1", f"--workdir={tmp_path}/run"]
    assert command(*args) == 2
    assert "--space=resolution_graph is for segmentation, --dataset=digits_f1 for macro_f1" in capsys.readouterr().err
    task = catalog.task("macro_f1")
    with pytest.raises(ValueError, match="which is like 'classification'; write like='classification'"):
        nasjax.register(task=task._replace(name="other", like="macro_f1"))
    with pytest.raises(ValueError, match="unknown task 'clasification'; did you mean classification"):
        nasjax.register(task=task._replace(name="other", like="clasification"))
