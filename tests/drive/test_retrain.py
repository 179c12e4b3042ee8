"""Retraining: resuming in the middle, the grid, and weights that stay what they were."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
from tools.full_disk import full_disk
from tools.networks import built as build

from nasjax import commands
from nasjax.commands.retraining import _to_train
from nasjax.drive import retrain as retraining
from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments.families import supernets_run as one_shot_search
from nasjax.experiments.families.supernets import shared_of
from nasjax.experiments.spos import PRESETS
from nasjax.problem import problem as problems
from nasjax.problem.builders.choice_chain import PathConfig
from nasjax.problem.problem import Problem
from nasjax.settings import as_json
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.store import checkpoint
from nasjax.store.checkpoint import RunError
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.types import Watch

SPACE = ConvChain(2, 2, (1, 3), (3,), (2, 4))
TREE = SPACE.encode(np.asarray(SPACE.sample(jax.random.key(0))))


def config(**changes):
    base = commands.configure("random")
    return dataclasses.replace(
        base,
        space=SPACE,
        data=dataclasses.replace(base.data, train_limit=128, valid_limit=64),
        retrain_recipe=Recipe(epochs=3, augment=Augment("pad", 1, False)),
        **changes,
    )


def retrain(settings, trees, path):
    """result.json of the command; of several architectures, as the best trials of a search."""
    if len(trees) == 1:
        return commands.retrain(settings, path, json.dumps(trees[0])).result
    path.mkdir(exist_ok=True)
    rows = [
        {"id": n, "hash": f"{n}", "arch": tree, "status": "ok", "fitness": 1 - n / 10} for n, tree in enumerate(trees)
    ]
    if not (path / "config.json").exists():
        checkpoint.write_json(path / "config.json", {"config": as_json(settings)})
        checkpoint.append_lines(path / "trials.jsonl", rows)
        checkpoint.write_json(path / "best.json", rows[0])
    several = dataclasses.replace(settings.retrain, top_k=len(trees))
    return commands.retrain(dataclasses.replace(settings, retrain=several), path).result


def weights(path):
    from nasjax import model

    return model.load(path).variables


@pytest.mark.slow
def test_a_training_that_is_interrupted_and_then_finds_the_disk_full_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole = retrain(config(), [TREE], tmp_path / "whole")
    monkeypatch.setattr(retraining, "SAVE_S", 0.0)
    save = checkpoint.save

    def save_and_die(folder, name, tree, **options):
        save(folder, name, tree, **options)
        if name == "000002":
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        retrain(config(), [TREE], tmp_path / "parts")
    monkeypatch.setattr(checkpoint, "save", save)
    with full_disk(2), pytest.raises((RunError, OSError), match="No space left on device"):
        retrain(config(), [TREE], tmp_path / "parts")
    (file,) = tmp_path.glob("parts/retrain/*/seconds.json")
    spent = json.loads(file.read_text())
    parts = retrain(config(), [TREE], tmp_path / "parts")
    assert parts["seconds"] > spent > 0
    for name in ("test_accuracy", "history", "params"):
        assert parts[name] == whole[name]
    pairs = zip(*(jax.tree.leaves(weights(tmp_path / name)) for name in ("parts", "whole")), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_an_architecture_tried_twice_counts_by_its_better_trial(tmp_path):
    trials = [("c", 0.7), ("a", 0.1), ("b", 0.8), ("a", 0.9)]
    rows = [
        {"id": n, "hash": name, "arch": name, "fitness": fitness, "status": "ok"}
        for n, (name, fitness) in enumerate(trials)
    ]
    checkpoint.append_lines(tmp_path / "trials.jsonl", rows)
    checkpoint.write_json(tmp_path / "best.json", rows[0])
    wanted = config(retrain=RetrainConfig(top_k=2))
    assert _to_train(Problem(wanted), tmp_path, None) == ["a", "b"]


@pytest.fixture
def path_config():
    """A chain of one layer, trained by SPOS's recipe made short, and a path of it."""
    base = commands.configure("fairnas")
    space = dataclasses.replace(base.space, stem=4, first=0, channels=(8,), depths=(1,), strides=(2,), tail=8)
    config = dataclasses.replace(
        base,
        space=space,
        data=dataclasses.replace(base.data, train_limit=64, valid_limit=32),
        retrain_recipe=dataclasses.replace(
            PRESETS["paper"].recipe, epochs=1, batch_size=32, augment=Augment("pad", 1, False)
        ),
        form=PathConfig(dropout=0.5),
    )
    return config, {"space": "choice_chain", "path": [1]}


@pytest.mark.slow
def test_a_path_killed_before_its_refresh(path_config, tmp_path, monkeypatch, capsys):
    """The statistics are refreshed all the same, and `seconds` is what all parts took."""
    settings, tree = path_config
    monkeypatch.setattr(retraining, "SAVE_S", 0.0)
    whole = retrain(settings, [tree], tmp_path)
    assert len(whole["history"]["train_loss"]) == len(whole["history"]["valid_accuracy"]) == 1
    expected = weights(tmp_path)
    (folder,) = (tmp_path / "retrain").iterdir()
    assert 0 < json.loads((folder / "seconds.json").read_text()) < whole["seconds"] < 1000
    shutil.rmtree(folder / "epochs/000002")
    (folder / "result.json").unlink()
    (folder / "seconds.json").write_text("1000.0")
    capsys.readouterr()
    again = retrain(settings, [tree], tmp_path)
    out, told = capsys.readouterr()
    assert "refreshed" in told and "epoch 1" not in told and not out
    assert again["history"] == whole["history"] and again["test_accuracy"] == whole["test_accuracy"]
    assert again["seconds"] > 1000
    for a, b in zip(jax.tree.leaves(weights(tmp_path)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_reaches_the_path(path_config):
    settings, tree = path_config
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    for rate in (0.0, 0.5):
        built = build(settings.space, tree, (8, 8, 1), 10, PathConfig(rate))
        network = built.network(bn_eps=1e-5, dtype="float32")
        variables = network.init(jax.random.key(1), None, x)
        apply = jax.jit(
            lambda key, network=network, variables=variables: network.apply(variables, None, x, key=key, train=True)[0]
        )
        same = np.array_equal(*(apply(jax.random.key(n)) for n in range(2)))
        assert same == (rate == 0.0) and f"{rate})" in repr(built.plan)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\)"):
        PathConfig(dropout=1.0)


@pytest.mark.parametrize(
    ("method", "dropout", "changes"),
    [
        ("spos", 0.1, {"refresh_epochs": 1}),
        ("bn_nas", 0.2, {"clip": 5.0, "decay_on": "convolutions"}),
        (
            "fairnas",  # ours, after its supernet's
            0.2,
            {"epochs": 150, "batch_size": 256, "learning_rate": 0.045, "schedule": "cosine", "label_smoothing": 0.0},
        ),
    ],
)
def test_published_recipes_of_paths(method, dropout, changes):
    """The recipes of docs/methods/{spos,bn_nas,fairnas}.md; the data set has a say in the augmentation only."""
    published = Recipe(
        epochs=240,
        batch_size=1024,
        learning_rate=0.5,
        momentum=0.9,
        nesterov=False,
        weight_decay=4e-5,
        decay_on="kernels",
        schedule="linear",
        final_rate=0.0,
        rate_per_step=True,
        label_smoothing=0.1,
    )
    for dataset in (None, "cifar10"):
        found = commands.configure(method, "paper", dataset)
        assert found.form.dropout == dropout
        assert found.retrain_recipe == dataclasses.replace(published, **changes, augment=found.retrain_recipe.augment)


@pytest.mark.slow
def test_the_grid_takes_the_best_validation_accuracy(tmp_path):
    grid = RetrainConfig(
        grid=True,
        grid_epochs=1,
        grid_learning_rates=(1e-6, 0.1),
        grid_weight_decays=(1e-4,),
        grid_bn_eps=(1e-5,),
        grid_decays=(0.5,),
    )
    result = retrain(config(retrain=grid), [TREE], tmp_path)
    (file,) = tmp_path.rglob("grid.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["setting"]["learning_rate"] for row in rows] == [1e-6, 0.1]
    best = max(rows, key=lambda row: row["valid_accuracy"])
    assert result["recipe"]["learning_rate"] == best["setting"]["learning_rate"]
    assert result["recipe"]["epochs"] == 3


@pytest.mark.slow
def test_nan_says_what_to_change(tmp_path):
    wild = dataclasses.replace(config().retrain_recipe, learning_rate=1e30)
    with pytest.raises(RunError, match="NaN in epoch 1; try a smaller rate"):
        retrain(dataclasses.replace(config(), retrain_recipe=wild), [TREE], tmp_path)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_of_several_the_best_by_validation_is_tested_once(tmp_path, monkeypatch):
    other = SPACE.encode(np.asarray(SPACE.sample(jax.random.key(5))))
    opened = []
    load_test, train = problems.load_test, retraining.trained_one

    def lucky(key, built, *rest):
        variables, history = train(key, built, *rest)
        found = 0.9 if built.arch == other else 0.1
        return variables, {**history, "valid_accuracy": [*history["valid_accuracy"][:-1], found]}

    monkeypatch.setattr(retraining, "trained_one", lucky)
    monkeypatch.setattr(problems, "load_test", lambda data, told: opened.append(data) or load_test(data))
    result = retrain(config(), [TREE, other], tmp_path)
    assert len(opened) == 1
    assert [candidate["arch"] for candidate in result["candidates"]] == [TREE, other]
    assert result["arch"] == other and result["valid_accuracy"] == 0.9
    assert retrain(config(), [TREE, other], tmp_path) == result and len(opened) == 1


def test_paths_of_the_ranking_are_trained_with_the_same_dropout(path_config, tmp_path):
    settings, tree = path_config
    checkpoint.append_lines(tmp_path / "trials.jsonl", [{"id": 0, "arch": tree, "status": "ok", "fitness": 0.5}])
    asked = []

    def supernet(**options):
        asked.append(options)
        raise KeyboardInterrupt

    own = shared_of(Problem(settings)).network  # of the space, which knows the form
    assert own.keywords["dropout"] == 0.5 != settings.supernet.dropout
    shared = types.SimpleNamespace(network=supernet)
    with pytest.raises(KeyboardInterrupt):
        one_shot_search.standalone(
            types.SimpleNamespace(config=settings, shared=shared, problem=Problem(settings)), tmp_path, 1, Watch()
        )
    assert len(asked) == 1 and "dropout" not in asked[0]
