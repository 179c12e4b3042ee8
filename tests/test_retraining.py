"""Retraining: resuming in the middle, the grid, and weights that stay what they were."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from nasjax import checkpoint, commands, retraining
from nasjax.checkpoint import RunError
from nasjax.experiments.base import RetrainConfig
from nasjax.spaces.conv_chain import ConvChain
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe

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


def weights(path):
    from nasjax import model

    return model.load(path).variables


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole = retraining.retrain(config(), [TREE], tmp_path / "whole")
    monkeypatch.setattr(retraining, "_SAVE_S", 0.0)
    save = checkpoint.save

    def save_and_die(folder, name, tree, **options):
        save(folder, name, tree, **options)
        if name == "000002":
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        retraining.retrain(config(), [TREE], tmp_path / "parts")
    monkeypatch.setattr(checkpoint, "save", save)
    parts = retraining.retrain(config(), [TREE], tmp_path / "parts")
    for name in ("test_accuracy", "history", "params"):
        assert parts[name] == whole[name]
    pairs = zip(*(jax.tree.leaves(weights(tmp_path / name)) for name in ("parts", "whole")), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_the_grid_takes_the_best_validation_accuracy(tmp_path):
    grid = RetrainConfig(
        grid=True,
        grid_epochs=1,
        grid_learning_rates=(1e-6, 0.1),
        grid_weight_decays=(1e-4,),
        grid_bn_eps=(1e-5,),
        grid_decays=(0.5,),
    )
    result = retraining.retrain(config(retrain=grid), [TREE], tmp_path)
    (file,) = tmp_path.rglob("grid.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["setting"]["learning_rate"] for row in rows] == [1e-6, 0.1]
    best = max(rows, key=lambda row: row["valid_accuracy"])
    assert result["recipe"]["learning_rate"] == best["setting"]["learning_rate"]
    assert result["recipe"]["epochs"] == 3


def test_nan_says_what_to_change(tmp_path):
    wild = dataclasses.replace(config().retrain_recipe, learning_rate=1e30)
    with pytest.raises(RunError, match="NaN in epoch 1; try a smaller rate"):
        retraining.retrain(dataclasses.replace(config(), retrain_recipe=wild), [TREE], tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_of_several_the_best_by_validation_is_tested_once(tmp_path, monkeypatch):
    other = SPACE.encode(np.asarray(SPACE.sample(jax.random.key(5))))
    opened = []
    load_test, train = retraining.load_test, retraining._train

    def lucky(key, built, *rest):
        variables, history = train(key, built, *rest)
        found = 0.9 if built.arch == other else 0.1
        return variables, {**history, "valid_accuracy": [*history["valid_accuracy"][:-1], found]}

    monkeypatch.setattr(retraining, "_train", lucky)
    monkeypatch.setattr(retraining, "load_test", lambda data: opened.append(data) or load_test(data))
    result = retraining.retrain(config(), [TREE, other], tmp_path)
    assert len(opened) == 1
    assert [candidate["arch"] for candidate in result["candidates"]] == [TREE, other]
    assert result["arch"] == other and result["valid_accuracy"] == 0.9
    assert retraining.retrain(config(), [TREE, other], tmp_path) == result and len(opened) == 1
