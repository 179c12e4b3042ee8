"""Everybody's own space, networks and searcher by docs/plugins.md, through every mode."""

import csv
import json

import jax
import numpy as np
import pytest
from tools.commands import rows
from tools.plugin_files import BLOCKS, PAGE, SHORT, TINY, clean, command, written  # noqa: F401 - clean is a fixture

import nasjax
from nasjax import catalog, commands
from nasjax.store import plugin


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
    assert "The search ended at 3 of 8 trials: all 3 architectures" in (run / "report.html").read_text()
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
