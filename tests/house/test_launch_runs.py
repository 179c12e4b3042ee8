"""The scripts of launch/ as they run, on a handful of tiny files and for an epoch: the last line is the table's row."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tools.commands import accepted
from tools.make_cifar_folder import write

from house.test_launch_scripts import commands_of

FOLDER = Path(__file__).parents[2] / "launch"
RNG = np.random.default_rng(0)
ONE_EPOCH = ["--set=retrain_recipe.epochs=1", "--set=retrain_recipe.batch_size=8"]
CELLS = ["--set=form.channels=2", "--set=form.layers=1", "--set=form.auxiliary=false"]
CELLS += ["--set=retrain_recipe.auxiliary_weight=0"]
SEARCH = ["--set=search.epochs=1", "--set=search.batch_size=8", "--set=search.channels=2", "--set=search.layers=3"]
FEW = ["--set=data.train_limit=16", "--set=data.valid_limit=16", "--set=data.valid_size=40"]
LARGE = [*FEW, "--set=data.valid_size=500", "--set=data.resize=128"]
CHAIN = ["--set=space.stem=4", "--set=space.channels=8", "--set=space.depths=1", "--set=space.strides=2"]
CHAIN += ["--set=space.tail=8", "--set=supernet.epochs=1", "--set=supernet.batch_size=8", "--trials=4"]
CHAIN += ["--set=search.population=2", "--set=search.mutants=1", "--set=search.crossovers=1"]
CHAIN += ["--set=search.calibration_batches=1", "--set=search.calibration_batch_size=8", "--set=max_macs=none"]


def images(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    write(folder / "cifar-10-batches-py", {name: (images(16, 32, 32, 3), np.arange(16) % 10) for name in names})
    return folder


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A thousand classes with one small JPEG each, in both parts."""
    folder = tmp_path_factory.mktemp("imagenet")
    Image.fromarray(images(16, 20, 3)).save(folder / "one.jpg")
    for name in [folder / part / f"n{k:08d}" for part in ("train", "val") for k in range(1000)]:
        name.mkdir(parents=True)
        os.link(folder / "one.jpg", name / "1.JPEG")
    (folder / "one.jpg").unlink()
    return folder


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nuclei")
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for k in range(10):
        Image.fromarray(images(16, 16, 3)).save(folder / f"images/{k}.png")
        Image.fromarray(255 * (images(16, 16) > 128).astype(np.uint8)).save(folder / f"masks/{k}.png")
    return folder


@pytest.fixture(scope="module")
def ptb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ptb")
    for part in ("train", "valid", "test"):
        (folder / f"ptb.{part}.txt").write_text("a b c d e f g h\n" * 12)
    return folder


def run(script, *args, folder):
    """What a script prints, run by a shell and the interpreter of this process."""
    python = folder / "bin/python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    env = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    env["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([FOLDER / f"{script}.sh", *args], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def commanded(script, *args, folder):
    """The same with the commands of the script one after the other in this process, which shares what it compiles."""
    said = ""
    for words in commands_of(script, *args, folder=folder, SAMPLE="2", HIDDEN="8"):
        said += accepted(words)
    return said


CASES = {
    "darts_cifar10": ("cifar10", ["pc_darts"], [], [*SEARCH, "--set=search.partial=1", "--set=search.frozen_epochs=0",
        "--set=space.operators=skip_connect,avg_pool_3x3", *CELLS, *ONE_EPOCH, *FEW]),
    "darts_imagenet": ("imagenet", ["darts"], ["DARTS_V2"], [*CELLS, *ONE_EPOCH, *LARGE]),
    "evolution_nuclei": ("nuclei", [], [], ["--trials=2", "--set=search.population=2", "--set=search.sample_size=1",
        "--set=recipe.epochs=1", "--set=recipe.batch_size=2", "--set=retrain_recipe.epochs=1",
        "--set=retrain_recipe.batch_size=2", "--set=data.resize=16", "--set=space.levels=2", "--set=space.channels=2",
        "--set=space.min_params=10", "--set=space.extra_nodes=0"]),
    "one_shot_cifar10": ("cifar10", ["spos"], [], [*CHAIN, "--set=space.operators=shuffle_k3,shuffle_k5", *ONE_EPOCH,
        *FEW]),
    "one_shot_imagenet": ("imagenet", ["bn_nas"], [], [*CHAIN, "--set=space.operators=mbconv_k3_e3,mbconv_k5_e3",
        "--set=space.removed=()", *ONE_EPOCH, *LARGE]),
    "reinforce_cifar10": ("cifar10", [], [], ["--trials=2", "--set=recipe.epochs=1", "--set=recipe.batch_size=8",
        "--set=space.min_layers=1", "--set=space.max_layers=1", "--set=space.filter_counts=2,4",
        "--set=retrain.grid=false", *ONE_EPOCH, *FEW]),
    "reinforce_rnn_ptb": ("ptb", [], [], ["--trials=2", "--set=recipe.epochs=1", "--set=recipe.batch_size=2",
        "--set=form.hidden=4", "--set=space.base=2", "--set=retrain.grid=false", "--set=data.window=5",
        "--set=retrain_recipe.epochs=1", "--set=retrain_recipe.batch_size=2"]),
}  # fmt: skip
WITH = {  # what stands in the row: ours in part, published, and some reason
    "darts_cifar10": ("published test accuracy 97.43%", "retrain_recipe.epochs=1 (600)"),
    "darts_imagenet": ("published test accuracy 73.30%, 91.30% among the best five with 4.7M", "trained on 1,281,167"),
    "evolution_nuclei": ("published test iou 86.80%", "its split is not published", "trials=2 (12800)"),
    "one_shot_cifar10": ("published: nothing for spos on cifar10", "supernet.epochs=1 (120)"),
    "one_shot_imagenet": ("published test accuracy 75.46%, 92.49% among the best five with 5.23M", "trials=4 (1050)"),
    "reinforce_cifar10": ("published test accuracy 94.50% with 4.2M", "recipe.epochs=1 (50)"),
    "reinforce_rnn_ptb": ("published test perplexity 64.0000 with 25M", "recipe.epochs=1 (35)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", CASES)
def test_a_script_ends_with_the_row_of_its_table(script, request, tmp_path):
    data, before, after, flags = CASES[script]
    args = [*before, str(request.getfixturevalue(data)), str(tmp_path / "run"), *after, *flags]
    said = (run if script == "darts_imagenet" else commanded)(script, *args, folder=tmp_path)
    row = said.splitlines()[-1]
    assert re.match(r"Row: ours test \w+ [\d.]+%?,? .*with [\d,]+ parameters; published", row), said
    assert all(text in row for text in ("; not comparable: ", *WITH[script])), row


def test_every_script_of_a_published_experiment_is_run():
    """The others start what they are given on several hosts: test_launch_scripts.py."""
    assert {path.stem for path in FOLDER.glob("*.sh")} == {*CASES, "hosts", "slurm"} and set(CASES) == set(WITH)
