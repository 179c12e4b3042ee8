"""A retraining whose images stay in their files, by command: the same as in memory, top-5, and predictions."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from tools.commands import here

import nasjax

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"


@pytest.mark.slow
def test_a_network_is_retrained_from_files_and_predicts_a_folder(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in "abcdef":
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for n in range(count):
                size = (*random.integers(9, 40, 2), 3)
                Image.fromarray(random.integers(0, 256, size).astype(np.uint8)).save(folder / f"{n}.jpg")
    words = ["--method=random", "--space=tabular_cell", "--mode=retrain", "--dataset=image_folder"]
    words += [f"--data_dir={tmp_path / 'set'}", f"--arch={CELL}", "--set=form.channels=2", "--set=data.resize=8"]
    words += ["--set=data.fit=crop", "--set=retrain_recipe.epochs=2", "--set=retrain_recipe.batch_size=8"]
    words += ["--set=retrain_recipe.augment.jitter=0.4,0.4,0.4,0"]
    results, models = {}, {}
    for way in ("true", "false"):
        path = tmp_path / way
        readers = ["--set=data.readers=1"] * (way == "true")
        code, out, err = here(*words, f"--set=data.stream={way}", *readers, f"--workdir={path}")
        assert code == 0, err
        assert ", among the best five " in out and " on 12 samples of image_folder" in out
        results[way] = json.loads((path / "result.json").read_text())
        models[way] = nasjax.load(path)
    assert results["true"]["test_top5_accuracy"] == results["false"]["test_top5_accuracy"] > 0.5
    assert results["true"]["history"]["train_loss"] == pytest.approx(
        results["false"]["history"]["train_loss"], rel=1e-4
    )
    code, out, err = here("--mode=predict", f"--workdir={tmp_path / 'true'}", f"--input={tmp_path / 'set/test/a'}")
    assert code == 0 and "resized" not in err, err
    with open(tmp_path / "true/predict/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == ["0.jpg", "1.jpg"] and rows[0]["class"] in "abcdef"
    assert models["true"].crop_part == 0.875
