"""The front without retraining: networks with the supernet's weights, exported, loaded and applied."""

import json

import jax
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
def test_a_point_is_fine_tuned_beside_the_plain_one_once(searched, tmp_path):
    plain = nasjax.export_points(searched, 0, progress=False)[0]
    tune = ["--mode=export", f"--workdir={searched}", "--point=0", "--finetune_epochs=2", "--finetune_rate=0.02"]
    code, out, err = here(*tune)
    assert code == 0 and "after 2 epochs of fine-tuning" in out and "2 epochs at 0.02" in err, err
    folder = searched / "points" / "0-finetuned"
    result = json.loads((folder / "result.json").read_text())
    assert json.loads((searched / "points/0/result.json").read_text()) == plain.result  # which says of no fine-tuning
    assert "finetuned" not in plain.result and result["finetuned"]["before"] == plain.result["test_accuracy"]
    assert result["finetuned"]["recipe"]["learning_rate"] == 0.02 and result["trial"] == 0
    before, after = nasjax.load(searched, point=0), nasjax.load(searched, point="0-finetuned")
    assert before.arch == after.arch
    kernels = [jax.tree.leaves(model.variables["params"]) for model in (before, after)]
    moved = [float(np.abs(a - b).max()) for a, b in zip(*kernels, strict=True)]
    assert 0 < max(moved) < 0.5  # it began with the weights of the search
    test = load_test(DataConfig())
    found = (after.predict(test.x) == np.array(after.names)[test.y]).mean()
    assert found == pytest.approx(result["test_accuracy"], abs=1.01 / len(test.y))
    saved = sorted(folder.rglob("training/*/*/*"))
    code, out, err = here(*tune)  # a killed one finds no result, and what it had saved
    assert code == 0 and "it was fine-tuned before" in err and "epoch 1/2" not in err
    assert sorted(folder.rglob("training/*/*/*")) == saved
    assert json.loads((folder / "result.json").read_text()) == result
    assert "fine-tuned, on the test part" in (searched / "report.html").read_text()
    Image.fromarray(test.x[0, :, :, 0]).save(tmp_path / "one.png")
    code, out, err = here("--mode=predict", f"--workdir={searched}", "--point=0-finetuned", f"--input={tmp_path}")
    assert code == 0 and "points/0-finetuned/predict" in out, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--mode=export", "--point=99"], "has no trial 99; give the number of one, of the front "),
        (["--mode=predict", "--point=all", "--input=."], "give the number of one trial"),
        (["--mode=predict", "--point=98", "--input=."], "holds no network of trial 98; run "),
        (["--mode=retrain", "--point=1"], "--point has no effect with --mode=retrain"),
        (["--mode=export", "--point=0", "--finetune_epochs=0"], "--finetune_epochs=0: give at least 1"),
        (["--mode=export", "--point=0", "--finetune_rate=0.1"], "no effect without --finetune_epochs"),
        (["--mode=export", "--finetune_epochs=1"], "add --point=NUMBER|all"),
        (["--mode=predict", "--point=97-finetuned", "--input=."], "--point=97 --finetune_epochs=N first"),
    ],
)
def test_points_that_are_not_there_are_one_line(searched, args, message):
    code, out, err = here(*args, f"--workdir={searched}")
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1 and not out


def test_methods_without_weights_have_no_points(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds no network of trial 3; run .* --point=3 first"):
        nasjax.load(tmp_path, point=3)
