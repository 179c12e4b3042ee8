"""Arrays as the data of a run: kept in the workdir by their hash; and a whole run in one call."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nasjax
from nasjax.commands.arrays import with_arrays
from nasjax.commands.configuration import defaults_of, record_of
from nasjax.commands.fitting import Fitted
from nasjax.commands.retraining import _samples
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.store.workdir import opened

RANDOM = np.random.default_rng(0)
LEVEL = RANDOM.random(90)
X = (255 * np.clip(LEVEL[:, None, None] + RANDOM.normal(0, 0.05, (90, 8, 8)), 0, 1)).astype(np.uint8)
NAMES = np.array(["dark", "light"])[(LEVEL > 0.5).astype(int)]
TINY = ("trials=2", "space.min_layers=1", "space.max_layers=1", "space.filter_counts=8", "recipe.epochs=1")
TINY += ("last_epochs=1", "recipe.batch_size=16", "retrain_recipe.epochs=6", "retrain_recipe.batch_size=16")


def begun(config, path):
    """A workdir as a run leaves it."""
    (path / "config.json").write_text(json.dumps(record_of(config, {})))


def test_arrays_are_kept_in_the_workdir_and_used_by_their_path(tmp_path):
    config = with_arrays(nasjax.configure("random"), tmp_path / "run", {"x": X, "y": NAMES, "x_test": None})
    (file,) = (tmp_path / "run").iterdir()
    assert file.name == config.data.name and config.data.data_dir == str(tmp_path / "run")
    problem = Problem(config)
    assert problem.data.class_names == ("dark", "light") and problem.task.name == "classification"
    before = file.stat().st_mtime_ns
    again = with_arrays(nasjax.configure("random"), tmp_path / "run", {"x": X.tolist(), "y": NAMES})
    assert again.data.name != config.data.name  # integers of 64 bits are other arrays
    again = with_arrays(nasjax.configure("random"), tmp_path / "run", {"y": NAMES, "x": X})
    assert again == config and file.stat().st_mtime_ns == before


def test_a_workdir_of_other_data_is_refused(tmp_path):
    path = tmp_path / "run"
    config = with_arrays(nasjax.configure("random"), path, {"x": X, "y": NAMES})
    begun(config, path)
    assert with_arrays(nasjax.config_of(path), path, {}) == config
    with pytest.raises(ValueError, match="was begun with other arrays; give it the same data"):
        with_arrays(config, path, {"x": X[::-1], "y": NAMES})
    with pytest.raises(ValueError, match=r"was begun with arrays, and these settings are of digits; .*config_of"):
        nasjax.retrain(nasjax.configure("random"), path)
    begun(nasjax.configure("random"), path)
    with pytest.raises(ValueError, match="was begun with digits; give it the same data"):
        nasjax.search(config, path, x=X, y=NAMES)
    assert len(list(path.iterdir())) == 2


def test_a_workdir_of_arrays_may_be_moved(tmp_path):
    """Its arrays are found where it is now, whether the settings are its own or the arrays are given again."""
    before, after = tmp_path / "run", tmp_path / "elsewhere" / "renamed"
    config = with_arrays(nasjax.configure("random"), before, {"x": X, "y": NAMES})
    begun(config, before)
    old = _samples(config, before)
    after.parent.mkdir()
    before.rename(after)
    moved = nasjax.config_of(after)
    assert moved.data.data_dir == str(after) and len(Problem(moved).data.train.y) == 60
    again = with_arrays(nasjax.configure("random"), after, {"x": X, "y": NAMES})
    assert again == moved and _samples(moved, after) == old
    with opened(after, record_of(moved, {}), defaults=defaults_of(moved)):
        pass
    other = override(moved, "data.split_seed=1")
    with pytest.raises(ValueError, match="split_seed"), opened(after, record_of(other, {}), defaults={}):
        pass


def test_a_retraining_of_an_older_version_is_known_again():
    """Its file of results is found by a digest of what was trained on, which had no target."""
    assert "target" not in _samples(nasjax.configure("random"), Path())
    assert _samples(override(nasjax.configure("random"), "data.target=class"), Path())["target"] == "class"


def test_wrong_arrays_are_refused_and_nothing_is_written(tmp_path):
    config = nasjax.configure("random")
    for arrays, message in (
        ({"x": X}, "y is missing; give x and y"),
        ({"y": NAMES}, "x is missing; give x and y"),
        ({"x": X, "y": NAMES, "z": X}, "unknown array 'z'; give x, y, x_valid"),
        ({"x": X, "y": NAMES.astype(object)}, r"y holds objects; .* names as y\.astype\(str\)"),
    ):
        with pytest.raises(ValueError, match=message):
            nasjax.search(config, tmp_path / "run", **arrays)
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="is not empty and is no workdir"):
        nasjax.search(config, tmp_path, x=X, y=NAMES)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_fitted_is_shown_in_few_lines():
    assert repr(Fitted("a model", Path("runs/x"), None, None)).splitlines() == [
        "'a model'",
        "fitted.predict(x); what the search and the training left is in runs/x",
    ]


@pytest.mark.parametrize(("method", "part"), [("random", "recipe"), ("darts", "search"), ("spos", "supernet")])
def test_a_batch_larger_than_the_data_is_refused_by_its_setting(method, part, tmp_path):
    config = override(nasjax.configure(method), f"{part}.batch_size=5000")
    message = rf"{part}\.batch_size=5000 is more than the \d+ samples .*write --set {part}\.batch_size=\d+ or less"
    with pytest.raises(ValueError, match=message):
        nasjax.search(config, tmp_path / "run", progress=False)


@pytest.mark.slow
def test_values_from_arrays_to_predictions_in_the_users_units(tmp_path, capsys):
    y = 5000 + 1000 * LEVEL
    fitted = nasjax.fit(X, y, workdir=tmp_path / "run", settings=TINY, class_names=["price"])
    assert fitted.retrained.metric.name == "r2" and "published" not in " ".join(fitted.retrained.lines).lower()
    found = fitted.predict(X[:40])
    assert found.shape == (40,) and 4000 < found.mean() < 7000 and np.corrcoef(found, y[:40])[0, 1] > 0.5
    with pytest.raises(ValueError, match="nothing is resized"):
        fitted.predict(X[:, :4])
    with pytest.raises(ValueError, match=r"x holds 0\.\.25, .*same units"):
        fitted.predict(X // 10)
    Image.fromarray(X[0]).resize((16, 16), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    capsys.readouterr()
    (file,) = nasjax.predict(tmp_path / "run", tmp_path / "large.png")
    said = capsys.readouterr().err
    assert "1 of 1 images were resized by area to 8x8" in said and "large.png was 16x16" in said
    (row,) = csv.DictReader(file.read_text().splitlines())
    assert float(row["price"]) == pytest.approx(found[0], abs=0.1)
    exported = json.loads((nasjax.export(tmp_path / "run")[-1]).read_text())
    assert exported["names"] == ["price"]
    assert json.loads((tmp_path / "run/config.json").read_text())["task"] == "regression"
    resumed = nasjax.fit(X, y, workdir=tmp_path / "run", settings=TINY, class_names=["price"], progress=False)
    np.testing.assert_array_equal(resumed.predict(X[:40]), found)


@pytest.mark.slow
def test_names_from_arrays_to_predictions(tmp_path):
    config = nasjax.configure("random")
    config = override(config, *TINY)
    nasjax.search(config, tmp_path, x=X, y=NAMES, progress=False)
    with pytest.raises(ValueError, match=r"retrain_recipe\.batch_size=64 is more than the 60 samples .*=60 or"):
        nasjax.retrain(override(config, "retrain_recipe.batch_size=64"), tmp_path, x=X, y=NAMES, progress=False)
    nasjax.retrain(config, tmp_path, x=X, y=NAMES, progress=False)
    found = nasjax.load(tmp_path).predict(X)
    assert set(found) == {"dark", "light"} and (found == NAMES).mean() > 0.8
