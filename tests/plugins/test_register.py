"""Everybody's own space, networks, data, searcher and task: the lines of docs/plugins.md, through every mode."""

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tools.commands import forget_own, rows
from tools.toy_tasks import macro_f1

import nasjax
from nasjax import catalog, commands, launch
from nasjax.data.dataset import DataConfig
from nasjax.experiments.families import supernets
from nasjax.problem.data import load, load_test
from nasjax.problem.problem import Problem
from nasjax.settings import as_json
from nasjax.store import plugin
from nasjax.train.augment import Augment
from nasjax.types import Space

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
BLOCKS = dict(re.findall(r"<!-- plugin: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
TINY = ["--set=recipe.epochs=1", "--set=data.train_limit=64", "--set=data.valid_limit=32", "--set=width=2"]
SHORT = ["--set=retrain_recipe.epochs=1"]


@pytest.fixture(autouse=True)
def clean():
    """Takes back what a test registered. A user's JAX broadcasts ranks, as it does by default."""
    jax.config.update("jax_numpy_rank_promotion", "allow")  # children are compiled in other threads, too
    yield
    jax.config.update("jax_numpy_rank_promotion", "raise")
    forget_own()


def written(tmp_path, *names, more=""):
    path = tmp_path / "mine.py"
    path.write_text("\n".join([*(BLOCKS[name] for name in names), more]))
    return path


def command(*args):
    return launch.main(["nasjax", "--compile_cache=off", *map(str, args)])


def test_the_page_shows_every_kind_in_under_50_lines_and_its_commands():
    kinds = {"mlp", "nnx_mlp", "wide", "attention", "shared", "stripes", "hill", "regression", "macro_f1"}
    assert set(BLOCKS) == kinds
    assert all(len(block.splitlines()) < 50 for block in BLOCKS.values())
    assert all(f"--plugin={name}.py --method=" in PAGE for name in kinds)


@pytest.mark.slow
def test_a_space_of_ones_own_walks_all_modes(tmp_path, capsys):
    """A user's space, data set and searcher in one file: search, inspect, retrain, report, predict, export, load."""
    mine, run = written(tmp_path, "mlp", "stripes", "hill"), tmp_path / "run"
    asked = [f"--plugin={mine}", "--method=hill", "--space=mlp", "--dataset=stripes"]
    assert command(*asked, "--mode=inspect") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["space_size"], facts["sites"]) == ("9", 2)
    assert command(*asked, "--mode=inspect", '--arch={"space": "mlp", "choices": {"width": 16, "depth": 1}}') == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["params"], counts["macs"]) == (64 * 16 + 16 + 32 + 16 * 2 + 2, 64 * 16 + 16 * 2)
    assert command(*asked, "--trials=4", f"--workdir={run}", *TINY) == 0
    found = rows(run)
    assert len(found) == 4 and all(row["status"] == "ok" and row["arch"]["space"] == "mlp" for row in found)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Next:")]
    own = [f"--plugin={run}/plugin.py", f"--workdir={run}"]
    assert own[0] in line and own[1] in line  # what is printed as the next step is what follows
    assert command(*own, "--mode=retrain", *SHORT) == 0
    assert command("--mode=report", f"--workdir={run}") == 0
    assert "width" in (run / "report.html").read_text()
    images = tmp_path / "images.npz"
    x = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1)
    np.savez(images, x=x)
    assert command(*own, "--mode=predict", f"--input={images}") == 0
    with (run / "predict" / "predictions.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["class"] in ("plain", "striped") for row in table] == [True] * 3
    assert command(*own, "--mode=export") == 0
    model = nasjax.load(run)
    logits = model.apply(model.variables, x)
    exported = jax.export.deserialize((run / "export" / "model.jax").read_bytes())
    np.testing.assert_allclose(exported.call(x), logits, atol=1e-4)
    expected = [float(row["p(striped)"]) for row in table]
    np.testing.assert_allclose(jax.nn.softmax(logits)[:, 1], expected, atol=1e-5)


@pytest.mark.slow
def test_a_model_runs_its_plugin_only_when_asked(tmp_path, capsys):
    run = tmp_path / "run"
    mine = written(tmp_path, "wide")
    args = ["--method=random", "--space=wide", "--trials=2", f"--workdir={run}", *TINY]
    assert command(f"--plugin={mine}", *args) == 0
    assert command(f"--plugin={mine}", "--mode=retrain", f"--workdir={run}", *SHORT) == 0
    catalog.forget("space", "wide")
    plugin._RUN.clear()
    with pytest.raises(ValueError, match=r"run_plugin=True"):
        nasjax.load(run)
    capsys.readouterr()
    assert command("--mode=export", f"--workdir={run}") == 2
    assert f"--plugin={run}/plugin.py" in capsys.readouterr().err
    model = nasjax.load(run, run_plugin=True)
    assert model.apply(model.variables, np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)


@pytest.mark.slow
def test_another_plugin_is_refused_unless_told(tmp_path, capsys):
    run = tmp_path / "run"
    args = ["--method=random", "--space=wide", f"--workdir={run}", *TINY]
    assert command(f"--plugin={written(tmp_path, 'wide')}", *args, "--trials=2") == 0
    changed = written(tmp_path, "wide", more="# another file\n")
    capsys.readouterr()
    assert command(f"--plugin={changed}", *args, "--trials=4") == 2
    assert "--changed_plugin" in capsys.readouterr().err
    assert command(*args, "--trials=4") == 2  # without any plugin the space is unknown
    assert command(f"--plugin={changed}", *args, "--trials=4", "--changed_plugin") == 0
    assert len(rows(run)) == 4 and (run / "plugin.py").read_text() == changed.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["vmap", "exact"])
def test_reinforce_trains_traced_choices(tmp_path, strategy):
    """The same children to rounding, one program for all or one for each."""
    run = tmp_path / strategy
    args = ["--method=reinforce", "--space=wide", "--trials=4", f"--set=strategy={strategy}", *TINY]
    assert command(f"--plugin={written(tmp_path, 'wide')}", *args, f"--workdir={run}") == 0
    assert json.loads((run / "config.json").read_text())["strategy"] == strategy
    losses = [row["train_loss"] for row in rows(run)]
    np.testing.assert_allclose(losses, [2.361, 2.361, 2.355, 2.322], atol=0.3)
    assert len(set(losses)) > 1


@pytest.mark.slow
def test_topk_and_nnx(tmp_path, capsys):
    """A small space wholly visited ends the search; batch norms and dropout of NNX have their modes."""
    run = tmp_path / "run"
    args = [f"--plugin={written(tmp_path, 'nnx_mlp')}", "--method=topk", "--space=nnx_mlp", "--trials=8", *TINY]
    assert command(*args, f"--workdir={run}") == 0
    assert sorted(row["arch"]["choices"]["width"] for row in rows(run)) == [16, 32, 64]
    out = capsys.readouterr().out
    assert "3 trials (0 failed)" in out
    assert "Ended at 3 of 8 trials: all 3 architectures of --space=nnx_mlp were tried." in out
    assert "The search ended at 3 trials: all 3 architectures" in (run / "report.html").read_text()
    args = [f"--plugin={run}/plugin.py", "--method=evolution", "--space=nnx_mlp", "--trials=8", *TINY]
    assert command(*args, f"--workdir={tmp_path}/aging") == 0
    assert "--space=nnx_mlp is exhausted: all its 3 architectures were tried, and 5" in capsys.readouterr().out


@pytest.mark.slow
def test_a_task_of_ones_own(tmp_path, capsys):
    """Smaller is better: fitness is -rmse, people see rmse, and retraining keeps the smallest."""
    run = tmp_path / "run"
    mine = written(tmp_path, "regression")
    args = [f"--plugin={mine}", "--method=random", "--space=linear", "--dataset=sums", "--trials=2"]
    assert command(*args, f"--workdir={run}", "--set=recipe.learning_rate=0.01", *TINY) == 0
    best = json.loads((run / "best.json").read_text())
    assert best["fitness"] == max(row["fitness"] for row in rows(run)) < 0
    assert f"rmse {-best['fitness']:.4f}" in capsys.readouterr().out
    assert command(f"--plugin={mine}", "--mode=retrain", f"--workdir={run}", *SHORT) == 0
    assert "Test rmse" in capsys.readouterr().out
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    assert command(f"--plugin={mine}", "--mode=predict", f"--workdir={run}", f"--input={tmp_path}/x.npy") == 0
    assert np.loadtxt(run / "predict" / "predictions.csv").shape == (3,)


@pytest.mark.slow
def test_a_space_with_conditions_names_and_a_recipe(tmp_path, capsys):
    """Sites that do not count are left out of the JSON; the recipe trains candidates, and the named one in the end."""
    mine, run = written(tmp_path, "attention"), tmp_path / "run"
    args = [f"--plugin={mine}", "--method=reinforce", "--space=attention", "--trials=2", f"--workdir={run}", *TINY]
    assert command(*args) == 0
    for row in rows(run):
        chosen = row["arch"]["choices"]
        assert [f"mlp{n}" in chosen for n in (1, 2, 3)] == [chosen["depth"] >= n for n in (1, 2, 3)]
    config = json.loads((run / "config.json").read_text())["config"]
    assert [config[name]["optimizer"] for name in ("recipe", "retrain_recipe")] == ["adamw", "adamw"]
    capsys.readouterr()
    own = [f"--plugin={run}/plugin.py", f"--workdir={run}"]
    assert command(*own, "--mode=retrain", "--arch=SMALL", *SHORT) == 0
    told = json.loads((run / "result.json").read_text())
    assert told["arch"]["choices"] == {"depth": 1, "heads": 2, "mlp1": 32} and told["recipe"]["optimizer"] == "adamw"
    exec(BLOCKS["attention"].replace('"mlp3": {"depth": 3}', '"mlp3": {"depth": (2, 3)}'), {"__name__": "cell"})
    with pytest.raises(ValueError, match=r"is another one now \(when.mlp3.depth: \[3\] -> \[2, 3\]\)"):
        commands.config_of(run)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spos", "fairnas"])
def test_a_space_of_ones_own_in_a_supernet(tmp_path, capsys, method):
    """Costs bound the paths and are those of the networks; the best is retrained as its own network."""
    mine, run = written(tmp_path, "shared"), tmp_path / "run"
    small = ["--set=supernet.epochs=2", "--set=supernet.batch_size=32", "--set=search.population=2", *TINY[1:3]]
    if method == "spos":
        small += ["--set=search.top_k=2", "--set=search.mutants=1", "--set=search.crossovers=1"]
    args = [f"--plugin={mine}", f"--method={method}", "--space=shared", f"--workdir={run}", *small]
    assert command(*args, "--trials=2", "--max_params=2400") == 0
    assert {row["arch"]["choices"]["width"]: (row["params"], row["macs"]) for row in rows(run)} == {
        16: (16 * 74, 16 * 74),
        32: (32 * 74, 32 * 74),
    }
    capsys.readouterr()
    own = [f"--plugin={run}/plugin.py", f"--workdir={run}"]
    assert command(*own, "--mode=retrain", "--set=retrain.sample=2", *SHORT) == 0
    assert json.loads((run / "result.json").read_text())["params"] in (16 * 74, 32 * 74)
    alone = [json.loads(line) for line in (run / "standalone.jsonl").read_text().splitlines()]
    assert len(alone) == 2
    config = commands.config_of(run)
    exec(BLOCKS["shared"].replace("jax.nn.relu", "jax.nn.gelu"), {"__name__": "cell"})
    now = supernets.parts(Problem(config)).facts["networks"]
    assert now != json.loads((run / "config.json").read_text())["networks"]  # so that a program's run is refused


@pytest.mark.slow
def test_a_path_moves_what_it_uses_and_nothing_else():
    """Of both arrays the first 16 or 32 units; the rest is the old, bit by bit."""
    exec(BLOCKS["shared"], {"__name__": "cell"})
    builder = catalog.builder("shared")
    signature = nasjax.Signature(jax.ShapeDtypeStruct((8, 8, 1), np.float32), 10)
    shared = builder.shared(builder.default, None, signature)
    old = {"hidden": {"dense": np.zeros((64, 64))}, "out": {"dense": np.zeros((64, 10))}}
    new = jax.tree.map(lambda leaf: leaf + 1, old)
    moved = shared.network().select(np.array([[0], [1]]), new, old)
    assert moved["hidden"]["dense"].sum() == 64 * 32 and moved["hidden"]["dense"][:, :32].all()
    assert moved["out"]["dense"].sum() == 32 * 10 and moved["out"]["dense"][:32].all()
    assert (shared.smallest, shared.largest_macs) == ((16 * 74, 16 * 74), 64 * 74)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("(units(choices).sum()", "(1 + units(choices).sum()", r"gives \(\d+, \d+\) parameters and .* network has"),
        ('"out": {"dense": units(choices)[:, None]}', '"out": {}', "must return a mask for every array"),
        ("units(choices)[:, None]}}", "units(choices)}}", r"a mask of shape \[64\] for an array of \[64, 10\]"),
        ("units(choices).sum() *", "1 / 0 *", "ZeroDivisionError"),
    ],
)
def test_masks_and_costs_that_do_not_fit_are_refused(old, new, expected):
    assert old in BLOCKS["shared"]
    exec(compile(BLOCKS["shared"].replace(old, new), "mine.py", "exec"), {"__name__": "cell"})
    builder = catalog.builder("shared")
    with pytest.raises(ValueError, match=expected):
        builder.shared(builder.default, None, nasjax.Signature(jax.ShapeDtypeStruct((8, 8, 1), np.float32), 10))


@pytest.mark.slow
def test_a_supernet_without_costs_says_what_it_cannot_do():
    exec(re.sub(r"    costs=.*\n", "", BLOCKS["shared"]), {"__name__": "cell"})
    builder = catalog.builder("shared")
    shared = builder.shared(builder.default, None, nasjax.Signature(jax.ShapeDtypeStruct((8, 8, 1), np.float32), 10))
    assert shared.smallest is None
    with pytest.raises(ValueError, match=r"register it with costs=, or leave --max_params"):
        shared.counter("params")


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
    few = ["--set=data.train_limit=48", "--set=data.valid_limit=32"]
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


@pytest.mark.slow
def test_a_notebook_registers_without_a_file(tmp_path):
    exec(BLOCKS["mlp"], {"__name__": "cell"})
    exec(BLOCKS["mlp"], {"__name__": "cell"})  # the cell run again
    records = []
    config = launch._apply(_given([*TINY, "--trials=2"]), commands.configure("random", space="mlp"))
    outcome = nasjax.search(config, tmp_path / "run", progress=False, on_record=records.append)
    assert outcome.trials == len(rows(tmp_path / "run"))
    assert [row for row in records if "fitness" in row] and not (tmp_path / "run" / "plugin.py").exists()


MLP = """
import flax.linen as nn
import numpy as np
import nasjax

class Mlp(nn.Module):
    width: int
    outputs: int
    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.RELU(nn.Dense(self.width)(x.reshape(x.shape[0], -1))))

nasjax.register(space=nasjax.SiteSpace("own", CHOICES), build=BUILD)
"""


def registered(choices, build="lambda c, s: Mlp(*c.values(), s.outputs)", act="relu"):
    """What a cell of a notebook registers."""
    exec(MLP.replace("CHOICES", choices).replace("BUILD", build).replace("RELU", act), {"__name__": "cell"})


@pytest.mark.slow
def test_a_workdir_belongs_to_the_space_and_the_networks_that_made_it(tmp_path):
    """Choices in another order, another network of the same choices, and rows that would be others are refused."""
    run, choices = tmp_path / "run", "{'width': (1, 2, 4, 64)}"

    def search(trials, **changes):
        config = launch._apply(_given([*TINY, f"--trials={trials}"]), commands.configure("random", space="own"))
        return nasjax.search(dataclasses.replace(config, **changes), run, progress=False).trials

    registered(choices)
    assert search(1) == 1
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["space"]["sites"]["width"]["choices"] == [1, 2, 4, 64] and config["networks"]
    registered("{'width': np.array([1, 2, 4, 64])}")  # the same
    assert search(1) == 1
    registered("{'width': (64, 4, 2, 1)}")
    with pytest.raises(ValueError, match=r"space\.sites\.width\.choices: \[1, 2, 4, 64\] -> \[64, 4, 2, 1\]"):
        search(2)
    with pytest.raises(ValueError, match="is another one now"):
        commands.config_of(run)
    for other in ({"build": "lambda c, s: Mlp(2 * c['width'], s.outputs)"}, {"act": "tanh"}):
        registered(choices, **other)
        with pytest.raises(ValueError, match="what the networks of --space=own compute changed since"):
            search(2)
    older = {**config, "config": {**config["config"], "space": {"name": "own"}}, "networks": None}
    (run / "config.json").write_text(json.dumps(older))  # as versions before wrote it
    registered("{'width': (64, 4, 2, 1)}")
    with pytest.raises(ValueError, match=r"belongs to another space: arch of trial 0 was .*, and would now be"):
        search(2)
    (run / "config.json").write_text(json.dumps(older))
    registered(choices)
    assert search(1) == 1 and commands.config_of(run).trials == 1


@pytest.mark.slow
def test_numbers_of_numpy_are_choices(tmp_path):
    registered("{'width': np.arange(4, 17, 4)}")
    config = launch._apply(_given([*TINY, "--trials=2"]), commands.configure("random", space="own"))
    assert nasjax.search(config, tmp_path / "run", progress=False).trials == 2
    assert {row["arch"]["choices"]["width"] for row in rows(tmp_path / "run")} <= {4, 8, 12, 16}
    kinds = {"a": (np.float32(0.5), np.int8(3)), "b": [np.bool_(True), None], "c": ((np.int64(3), (5,)), np.arange(2))}
    space = nasjax.SiteSpace("s", kinds)
    assert [site.choices for site in space.sites] == [(0.5, 3), (True, None), ((3, (5,)), (0, 1))]
    assert {type(choice) for site in space.sites for choice in site.choices} == {float, int, bool, type(None), tuple}
    tree = json.loads(json.dumps(space.encode(np.array([1, 0, 0]))))
    assert space.decode(tree).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ((jax.nn.relu, jax.nn.gelu), "is no choice that files can hold; write a number, a text"),
        ((np.nan, 1.0), "nan .* is no choice"),
        ((1 + 2j,), "is no choice"),
        ((b"a", b"b"), "is no choice"),
        (({"a": 1},), "is no choice"),
        ("relu", "needs a list of choices in their order"),
        ({1, 2}, "needs a list of choices in their order"),
        (16, "needs a list of choices in their order"),
        ((1, np.int64(1)), "needs distinct choices"),
        ((), "needs distinct choices"),
    ],
)
def test_choices_that_no_file_can_hold_are_refused(choices, expected):
    with pytest.raises(ValueError, match=f"site 'a'.*{expected}"):
        nasjax.SiteSpace("s", {"a": choices})


def test_settings_that_no_file_can_hold_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        steps: object = np.int64(3)

    with pytest.raises(ValueError, match="steps must be a plain value, which config"):
        nasjax.register(searcher="s", make=lambda space, steps: None, settings=Settings())


HANGING = """
def building(choices, signature):
    import time
    if choices["width"] == 4:
        time.sleep(300)
    if choices["width"] == 8:
        raise KeyError("x")
    return Mlp(choices["width"], signature.outputs)
"""


@pytest.mark.slow
def test_candidates_that_hang_or_raise_while_they_are_built(tmp_path, capsys):
    """Both are failed trials with their JSON form and hash; the one that hangs costs its time."""
    mine = tmp_path / "mine.py"
    text = MLP.replace("CHOICES", "{'width': (2, 4, 8)}").replace("BUILD", "building").replace("RELU", "relu")
    mine.write_text(text.replace("nasjax.register", HANGING + "\nnasjax.register"))
    args = [f"--plugin={mine}", "--method=topk", "--space=own", "--trials=5", *TINY]
    assert command(*args, f"--workdir={tmp_path}/run", "--workers=1", "--trial_timeout=20") == 0
    found = {row["arch"]["choices"]["width"]: row for row in rows(tmp_path / "run")}
    assert {width: row["status"] for width, row in found.items()} == {2: "ok", 4: "timeout", 8: "failed"}
    assert all(len(row["hash"]) == 16 for row in found.values()) and "KeyError: 'x'" in found[8]["error"]
    lines = (tmp_path / "run" / "trials.jsonl").read_text().splitlines()
    assert {row["id"]: row["cost_s"] for row in map(json.loads, lines)}[found[4]["id"]] == 20.0
    assert "Ended at 3 of 5 trials: all 3 architectures of --space=own were tried." in capsys.readouterr().out
    began = time.monotonic()
    assert command(*args, f"--workdir={tmp_path}/wall", "--set=wall_s=3") in (0, 1)
    assert time.monotonic() - began < 60


def _given(args):
    values = launch.define()
    values(["nasjax", *args])
    return values


@pytest.mark.slow
def test_a_killed_run_with_a_plugin_goes_on(tmp_path):
    """kill -9 after the first round; the same command ends with the trials of an uninterrupted run."""
    mine = written(tmp_path, "wide")
    args = [f"--plugin={mine}", "--method=random", "--space=wide", "--trials=12", *TINY]

    def start(path):
        line = [sys.executable, "-m", "nasjax.launch", f"--compile_cache={tmp_path}/xla", f"--workdir={path}", *args]
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)

    killed = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "trials.jsonl").is_file():
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    for name in ("killed", "whole"):
        process = start(tmp_path / name)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole") and len(rows(tmp_path / "whole")) == 12


SPACE = 'nasjax.SiteSpace("s", {"a": (1, 2)})'
MISTAKES = {
    "raises": ("import nasjax\n\n1 / 0\n", r"mine.py:3 in <module>: ZeroDivisionError: division by zero"),
    "syntax": ("def f(:\n", r"mine.py:1: SyntaxError"),
    "no build": (f"import nasjax\nnasjax.register(space={SPACE})\n", r"mine.py:2 .*needs build= or traced="),
    "nothing": ("import nasjax\nnasjax.register()\n", r"mine.py:2 .*needs space=, data=, task= or searcher="),
    "shadows": (
        'import nasjax\nnasjax.register(space=nasjax.SiteSpace("conv_chain", {"a": (1, 2)}), build=print)\n',
        r"mine.py:2 .*'conv_chain' is taken",
    ),
    "half a space": (
        "import nasjax\nclass S:\n    name = 's'\n    sites = (nasjax.Site('a', (1, 2), 'a', 0),)\n"
        "    def sample(self, key): pass\nnasjax.register(space=S(), build=print)\n",
        r"mine.py:6 .*lacks active, mutate.*derive it from nasjax.SiteSpace",
    ),
    "build raises": (
        f"import nasjax\ndef build(choices, signature):\n    return choices['b']\n"
        f"nasjax.register(space={SPACE}, build=build)\n",
        r"mine.py:3 in build: KeyError: 'b'",
    ),
    "no network": (
        f"import nasjax\ndef build(choices, signature):\n    return 7\nnasjax.register(space={SPACE}, build=build)\n",
        r"build must return a Flax Linen module.* got int",
    ),
    "wrong outputs": (
        "import nasjax\nimport jax.numpy as jnp\ndef build(choices, signature):\n"
        "    return lambda key, x: {'w': jnp.zeros(1)}, lambda params, x: jnp.zeros((x.shape[0], 3)) + params['w']\n"
        f"nasjax.register(space={SPACE}, build=build)\n",
        r"\[1, 3\] for one sample of shape \[8, 8, 1\]; the data need \[1, ..., 10\]",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, capsys, name):
    text, expected = MISTAKES[name]
    (tmp_path / "mine.py").write_text(text)
    args = [f"--plugin={tmp_path}/mine.py", "--method=random", "--space=s", f"--workdir={tmp_path}/run", *TINY]
    assert command(*args) == 2
    err = capsys.readouterr().err
    assert re.search(expected, err), err
    assert err.startswith("error: ") and err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ("lambda folder: {'x': 1}", "must return a dict with x and y, got one with x"),
        ("lambda folder: 1 / 0", r"mine.py:2 in <lambda>: ZeroDivisionError"),
        ("lambda folder: {'x': [[1.0]], 'y': [0]}", r"y holds fewer than two classes"),
        ("lambda folder: {'x': [[[1]]], 'y': [0], 'x_test': [[[1]]]}", r"one of x_test and y_test; give both"),
        ("lambda folder: {'x': [[1.0]] * 9, 'y': [0, 1, 0] * 3}", r"x must be \[N, H, W\]"),
    ],
)
def test_data_that_do_not_fit_are_one_line(tmp_path, capsys, load, expected):
    (tmp_path / "mine.py").write_text(f"import nasjax\nnasjax.register(data='d', load={load})\n")
    assert command(f"--plugin={tmp_path}/mine.py", "--method=random", "--dataset=d", f"--workdir={tmp_path}/run") == 2
    assert re.search(expected, capsys.readouterr().err)


def masked(y, y_test=None, names=("nucleus",)):
    x = np.zeros((12, 4, 4, 3), np.uint8)
    arrays = {"x": x, "y": y, "class_names": names} | ({} if y_test is None else {"x_test": x, "y_test": y_test})
    nasjax.register(data="masked", load=lambda folder: arrays, data_task="segmentation")
    config = DataConfig("masked")
    return load(config), load_test(config)


HALF = np.tile(np.arange(2, dtype=np.uint8), (12, 4, 2))[..., None]  # 0 and 1


@pytest.mark.parametrize(
    "y",
    [HALF, HALF * 255, HALF > 0, HALF.astype("int64") * 255, HALF[..., 0], HALF.astype("float64"), HALF[..., 0] > 0],
)
def test_masks_of_equal_meaning_are_equal(y):
    data, test = masked(y)
    for part in (data.train, data.valid, test):
        assert part.y.shape == (*part.x.shape[:3], 1) and part.y.dtype in (np.uint8, np.float32)
        np.testing.assert_array_equal(part.y, HALF[: len(part.y)])
    soft, _ = masked(HALF * np.float32(0.5))
    assert soft.train.y.max() == 0.5


@pytest.mark.parametrize(
    ("y", "y_test", "expected"),
    [
        (HALF * np.float32(255), None, "y holds values from 0 to 255, .* 0..1: divide it by 255"),
        (HALF * 2.0 - 1, None, "y holds values from -1 to 1, .* write 0 for background"),
        (np.where(HALF, 1.0, np.nan), None, "y holds NaN or infinite values"),
        (np.where(HALF, np.inf, 0.0), None, "y holds NaN or infinite values"),
        (HALF * 1.001, None, "y holds values from 0 to 1.001"),
        (HALF.astype("int32") * 2 - 1, None, "y holds -1, 1; write 0"),
        (HALF * 3, None, "y holds 0, 3; write 0"),
        (np.arange(192, dtype=np.uint8).reshape(HALF.shape), None, "y holds 0, 1, 2, 3, 4, 5, ...; write 0"),
        (HALF, HALF * 2, "y_test holds 0, 2; write 0"),
        (HALF * 255, HALF * 2.0, "y_test holds values from 0 to 2"),
        (HALF * 0, None, "y holds nothing but background"),
        (HALF * 0 + 1, None, "y holds nothing but foreground"),
        (HALF[:, :3], None, r"y must be \[12, 4, 4, 1\], .*got \[12, 3, 4, 1\]"),
        (HALF.repeat(2, -1), None, r"y must be .*got \[12, 4, 4, 2\]"),
        (HALF.astype(str), None, "y must hold numbers"),
    ],
)
def test_masks_whose_meaning_is_not_known_are_refused(y, y_test, expected):
    with pytest.raises(ValueError, match=f"--dataset=masked: {expected}"):
        masked(y, y_test)


@pytest.mark.parametrize("y", [np.full((6, 3), 4), np.full((6, 3), -1), np.zeros((6, 3)), np.zeros((6, 2), int)])
def test_tokens_number_the_words(y):
    arrays = {"x": np.zeros((6, 3), int), "y": y, "class_names": ["<eos>", "<unk>", "a", "b"]}
    nasjax.register(data="words", load=lambda folder: arrays, data_task="language")
    with pytest.raises(ValueError, match=r"--dataset=words: y (holds tokens from .* 0..3|must be tokens)"):
        load(DataConfig("words"))


@pytest.mark.slow
def test_a_policy_chooses_every_site():
    """Also one that a user calls depth, a word that a chain's schedule sets."""
    exec(BLOCKS["mlp"], {"__name__": "cell"})
    space = catalog.builder("mlp").default
    searcher = nasjax.reinforce(space, policy="independent")
    _, proposal = searcher.ask(jax.random.key(0), searcher.init(jax.random.key(1)), 64)
    assert {tuple(row) for row in np.asarray(proposal.arch).tolist()} == {(a, b) for a in range(3) for b in range(3)}
    with pytest.raises(ValueError, match="group 'depth' is taken"):
        nasjax.SiteSpace("s", [nasjax.Site("a", (1, 2), "depth", 0)])


def test_conditions_of_sites():
    """c hangs on b, which hangs on a; the size is exact, other conditions are another space."""
    sites = {"a": (1, 2, 3), "b": (1, 2), "c": ((3, 3), (5, 5)), "d": (1, 2)}
    when = {"b": {"a": (2, 3)}, "c": {"b": 2}, "d": {"c": (3, 3), "a": [3]}}
    space = nasjax.SiteSpace("s", sites, when=when)
    assert space.when == {"b": {"a": (2, 3)}, "c": {"b": (2,)}, "d": {"a": (3,), "c": ((3, 3),)}}
    assert space.size() == 1 + (1 + 2) + (1 + 2 + 1)
    assert space.values(np.array([2, 1, 0, 1])) == {"a": 3, "b": 2, "c": (3, 3), "d": 2}
    space.validate(np.array([1, 1, 0, -1]))
    with pytest.raises(ValueError, match="d does not count here"):
        space.decode({"space": "s", "choices": {"a": 2, "b": 2, "c": [3, 3], "d": 1}})
    assert space != nasjax.SiteSpace("s", sites) and space == nasjax.SiteSpace("s", sites, when=when)
    assert as_json(space)["when"] == space.when and "when" not in as_json(nasjax.SiteSpace("s", sites))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"x": {"a": 1}}, "write {site: {an earlier site: its choices}} with sites among a, b"),
        ({"b": 1}, "write {site: {an earlier site: its choices}}"),
        ({"a": {"b": 1}}, "'a' can only hang on a site before it, got 'b'"),
        ({"b": {"a": (1, 9)}}, r"'b' counts where 'a' is \(1, 9\): choose from \(1, 2\)"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(when, expected):
    with pytest.raises(ValueError, match=expected):
        nasjax.SiteSpace("s", {"a": (1, 2), "b": (1, 2)}, when=when)


@pytest.mark.slow
def test_sites_that_count_only_sometimes():
    """b counts where a is 2, c where b counts and is 2: what falls silent silences what hangs on it."""

    class Chained(nasjax.SiteSpace):
        def active(self, arch):
            a, b, _ = arch
            return jax.numpy.stack([a >= 0, a == 1, b == 1])

    space = Chained("s", {"a": (1, 2), "b": (1, 2), "c": (1, 2)})
    keys = jax.random.split(jax.random.key(0), 200)
    archs = jax.jit(jax.vmap(space.sample))(keys)
    children = jax.jit(jax.vmap(space.mutate))(keys, archs)
    crossed = jax.jit(jax.vmap(space.crossover))(keys, archs, children)
    for arch in np.concatenate([archs, children, crossed]):
        space.validate(arch)
    assert {tuple(row) for row in np.asarray(archs).tolist()} == {(0, -1, -1), (1, 0, -1), (1, 1, 0), (1, 1, 1)}
    assert space.size() is None


def test_choices_may_be_lists():
    space = nasjax.SiteSpace("s", {"kernel": ([3, 3], [5, [5]])})
    tree = json.loads(json.dumps(space.encode(np.array([1]))))
    assert tree["choices"] == {"kernel": [5, [5]]} and space.decode(tree).tolist() == [1]


def test_a_searcher_that_is_none_is_one_line(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("import nasjax\nnasjax.register(searcher='s', make=lambda space: None)\n")
    assert command(f"--plugin={tmp_path}/mine.py", "--method=s", f"--workdir={tmp_path}/run") == 2
    assert "make must return a nasjax.Searcher" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_name_and_sites_are_enough():
    class Mine:
        name = "mine"
        sites = (nasjax.Site("a", (1, 2, 3), "a", 0), nasjax.Site("b", ("x", "y"), "b", 1))

    nasjax.register(space=Mine(), build=lambda choices, signature: None)
    space = catalog.builder("mine").default
    assert isinstance(space, Space) and space.size() == 6
    arch = np.asarray(space.sample(jax.random.key(0)))
    assert space.identity(space.decode(json.loads(json.dumps(space.encode(arch))))) == space.identity(arch)
