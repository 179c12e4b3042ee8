"""What a user's targets mean: names and numbers of classes, values, and what is asked about."""

import dataclasses

import numpy as np
import pytest

from nasjax import commands
from nasjax.data.dataset import DataConfig
from nasjax.data.labels import is_value, targets
from nasjax.problem.data import load
from nasjax.problem.problem import Problem

X = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
Y = np.arange(40) % 3
NAMES = np.array(["owl", "ant", "bee"])


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "set.npz", **{"x": X, "y": Y, **arrays})
        return str(tmp_path / "set.npz")

    return save


def test_text_labels_are_classes_by_name(save):
    path = save(y=NAMES[Y], x_test=X[:3], y_test=np.array(["bee", "ant", "owl"]))
    data, numbered = (
        load(DataConfig(path)),
        load(DataConfig(save(y=np.argsort(np.argsort(NAMES))[Y], x_test=X, y_test=Y))),
    )
    assert data.class_names == ("ant", "bee", "owl")
    np.testing.assert_array_equal(data.train.y, numbered.train.y)


def test_names_of_text_labels_give_their_order(save):
    data = load(DataConfig(save(y=NAMES[Y], class_names=NAMES)))
    assert data.class_names == tuple(NAMES)
    assert set(data.train.y) == {0, 1, 2}
    with pytest.raises(ValueError, match="y holds 'owl' or class_names does, but not both"):
        load(DataConfig(save(y=NAMES[Y], class_names=np.array(["ant", "bee", "yak"]))))


KINDS = [
    (Y, "ask", False),
    (Y, "value", True),
    (Y + 0.5, "ask", True),
    (np.arange(40.0), "ask", True),
    (Y + 0.0, "class", False),
    (Y + 0.0, "value", True),
    (NAMES[Y], "ask", False),
    (NAMES[Y], "class", False),
    (np.arange(40), "class", False),
    (np.arange(40).astype(str), "class", False),
]


@pytest.mark.parametrize(("y", "target", "value"), KINDS)
def test_classes_and_values_are_told_apart(y, target, value):
    assert is_value(y, target, "y") is value and targets(y, None, target, "y").values is value


REFUSED = {
    "whole floats": (Y + 0.0, "ask", r"y holds whole numbers as float64: classes or values\? .*target=class .*=value"),
    "many integers": (np.arange(40), "ask", "y holds 40 different numbers in 40 samples: .*target=class"),
    "fractions as classes": (Y + 0.5, "class", r"fractions, which number no classes; write --set data\.target=value"),
    "values with a gap": (
        np.array([f"{n / 7}" for n in range(39)] + ["n/a"]),
        "ask",
        r"40 different texts in 40 samples \(one is 'n/a'\): write --set data\.target=class",
    ),
    "text as values": (NAMES[Y], "value", "y holds text, which is no value"),
    "objects": (NAMES[Y].astype(object), "ask", r"y holds objects; write y\.astype\(str\)"),
    "bytes": (NAMES[Y].astype(bytes), "ask", r"y holds bytes; write y\.astype\(str\)"),
    "NaN": (np.array([0.5, np.nan]), "ask", "y holds NaN or infinite values"),
    "a column": (Y[:, None] + 0.5, "ask", r"of shape \[N\], got float64 \[40, 1\]"),
    "one value": (np.full(9, 0.5), "ask", "y holds fewer than two values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_known_meaning_is_refused_in_a_line(name):
    y, target, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        targets(y, None, target, "y")
    assert "\n" not in str(error.value)


def test_objects_in_a_file_are_told_how_to_be_saved(save):
    with pytest.raises(ValueError, match=r"cannot read y .*; save numbers, or names as y\.astype\(str\)"):
        load(DataConfig(save(y=NAMES[Y].astype(object))))


def of(path, **settings):
    """The problem of a search in a file."""
    config = commands.configure("random", dataset=path)
    return Problem(dataclasses.replace(config, data=dataclasses.replace(config.data, **settings)))


def test_values_are_a_task_of_their_own_standardised_by_the_training_part(save):
    y = 1e6 + 1000.0 * np.arange(40) + 0.5
    problem = of(save(y=y, class_names=np.array(["price"])))
    assert (problem.task.name, problem.metric.name, problem.signature.outputs) == ("regression", "r2", 1)
    data, test = problem.data, problem.test()
    assert data.class_names == ("price",) and data.train.y.dtype == test.y.dtype == np.float32
    assert abs(data.train.y.mean()) < 1e-5 and abs(data.train.y.std() - 1) < 1e-5
    back = np.concatenate([data.train.y, data.valid.y, test.y]).astype(float) * data.scale[1] + data.scale[0]
    np.testing.assert_allclose(np.sort(back), y, rtol=1e-7, atol=0.05)
    other = of(save(y=2 * y)).data
    np.testing.assert_allclose(other.train.y, data.train.y, atol=1e-5)
    assert other.sha256 != data.sha256  # other units are other data
    assert of(save(y=Y)).data.scale is None
    with pytest.raises(ValueError, match="2 class_names; give one name"):
        _ = of(save(y=y, class_names=np.array(["a", "b"]))).data
    assert of(save(y=np.arange(40)), target="value").task.name == "regression"


def test_a_part_of_equal_values_is_refused(save):
    y = np.arange(40) + 0.5
    with pytest.raises(ValueError, match=r"all 4 values of the test part are 0\.5; give more"):
        of(save(y=y, x_test=X[:4], y_test=np.full(4, 0.5))).test()
    with pytest.raises(ValueError, match="all 4 values of the validation part are 2; give more"):
        _ = of(save(y=y, x_valid=X[:4], y_valid=np.full(4, 2))).data
