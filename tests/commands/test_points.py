"""The front without retraining: networks with the supernet's weights, exported, loaded and applied."""

import json

import numpy as np
import pytest
from PIL import Image
from tools.commands import here

import nasjax
from nasjax.data.dataset import DataConfig
from nasjax.problem.data import load_test

SMALL = ["data.train_limit=48", "data.valid_limit=32", "supernet.epochs=2", "supernet.batch_size=16"]
SMALL += [
    "retrain_recipe.batch_size=48",
    "search.population=4",
    "search.calibration_batches=2",
    "search.calibration_batch_size=16",
]
CHAIN = ["space.stem=4", "space.channels=8", "space.depths=2", "space.strides=2", "space.tail=8", "space.first=0"]
CHAIN += ["space.operators=mbconv_k3_e3,mbconv_k5_e3"]
BIGNAS = ["--method=bignas", "--trials=6", *(f"--set={setting}" for setting in (*SMALL, *CHAIN))]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    path = tmp_path_factory.mktemp("bignas") / "run"
    code, _, err = here(*BIGNAS, f"--workdir={path}")
    assert code == 0, err
    return path


@pytest.mark.slow
def test_the_front_is_exported_loaded_and_applied_without_a_training(searched, tmp_path):
    rows = {row["id"]: row for row in map(json.loads, (searched / "trials.jsonl").read_text().splitlines())}
    assert len(rows) == 6 and all(len(row["fitness"]) == 2 for row in rows.values())
    code, out, err = here("--mode=export", f"--workdir={searched}", "--point=all")
    assert code == 0, err
    points = sorted(int(folder.name) for folder in (searched / "points").iterdir())
    assert len(out.splitlines()) == len(points) >= 1
    test = load_test(DataConfig())
    for number in points:
        front = [other["fitness"] for other in rows.values()]
        assert not any(a > rows[number]["fitness"][0] and b >= rows[number]["fitness"][1] for a, b in front)
        model, result = (
            nasjax.load(searched, point=number),
            json.loads((searched / f"points/{number}/result.json").read_text()),
        )
        assert model.arch == result["arch"] == rows[number]["arch"]
        found = (model.predict(test.x) == np.array(model.names)[test.y]).mean()
        assert found == pytest.approx(result["test_accuracy"], abs=1.01 / len(test.y))  # as the supernet said
        assert {file.name for file in (searched / f"points/{number}/export").iterdir()} >= {"model.jax", "weights.npz"}
    assert "on the test part" in (searched / "report.html").read_text()
    Image.fromarray(test.x[0, :, :, 0]).save(tmp_path / "one.png")
    code, out, err = here("--mode=predict", f"--workdir={searched}", f"--point={points[0]}", f"--input={tmp_path}")
    assert code == 0 and f"points/{points[0]}/predict" in out, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--mode=export", "--point=99"], "has no trial 99; give the number of one, of the front "),
        (["--mode=predict", "--point=all", "--input=."], "give the number of one trial"),
        (["--mode=predict", "--point=98", "--input=."], "holds no network of trial 98; run "),
        (["--mode=retrain", "--point=1"], "--point has no effect with --mode=retrain"),
    ],
)
def test_points_that_are_not_there_are_one_line(searched, args, message):
    code, out, err = here(*args, f"--workdir={searched}")
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1 and not out


def test_methods_without_weights_have_no_points(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds no network of trial 3; run .* --point=3 first"):
        nasjax.load(tmp_path, point=3)
