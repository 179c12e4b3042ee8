"""The command as a user meets it: tiny searches, resuming after a kill, and one clear line for every mistake."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from tools.commands import TINY, here, killed, next_words, replayed, rows, start

from nasjax.commands import configuration


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """An uninterrupted REINFORCE search of 12 trials."""
    path = tmp_path_factory.mktemp("run") / "whole"
    code, out, err = here("--method=reinforce", "--trials=12", f"--workdir={path}", *TINY)
    assert code == 0, err
    return path, out, err


def test_search_leaves_its_results(searched):
    path, out, err = searched
    assert [row["id"] for row in rows(path)] == list(range(12))
    assert all(row["status"] == "ok" and 0 <= row["fitness"] <= 1 for row in rows(path))
    config = json.loads((path / "config.json").read_text())
    assert config["strategy"] in ("exact", "vmap") and config["dataset"]["sha256"] and config["versions"]["jax"]
    assert (config["format"], config["task"], config["metric"]["name"]) == (
        configuration.FORMAT,
        "classification",
        "accuracy",
    )
    assert config["dataset"].items() >= {"shape": [8, 8, 1], "outputs": 10, "train": 128, "valid": 64}.items()
    best = json.loads((path / "best.json").read_text())
    assert best["fitness"] == max(row["fitness"] for row in rows(path))
    assert "<html" in (path / "report.html").read_text()
    assert "12 trials (0 failed)" in out and "--mode=retrain" in out
    assert f"Best: trial {best['id']}, accuracy {best['fitness']:.2%}, {best['params']:,} parameters." in out
    assert "trial 12/12: best" in err


@pytest.mark.slow
def test_kill_and_resume_equals_uninterrupted(searched, tmp_path):
    """kill -9 in the middle; the same command again ends with the same trials and the same controller, bit for bit."""
    path = tmp_path / "killed"
    args = ["--method=reinforce", "--trials=12", f"--workdir={path}", *TINY]
    killed(*args, write=8)  # the ledger has the second round's results, trials.jsonl has not
    assert len(rows(path)) == 4
    killed(*args, write=4)  # "resumed", "asked", "started"; the third round's results are in the ledger
    assert len(rows(path)) == 8
    code, _, err = here(*args)
    assert code == 0, err
    assert rows(path) == rows(searched[0])
    trees = [replayed(folder) for folder in (path, searched[0])]
    assert trees[0].keys() == trees[1].keys() and len(trees[0]) > 10
    for name in trees[0]:
        assert trees[0][name].tobytes() == trees[1][name].tobytes(), name


def test_finished_run_prints_its_summary_again(searched):
    before = (searched[0] / "trials.jsonl").read_bytes()
    code, out, _ = here("--method=reinforce", "--trials=12", f"--workdir={searched[0]}", *TINY)
    assert code == 0 and "12 trials" in out
    assert (searched[0] / "trials.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(one, marks=[pytest.mark.slow] * (one != configuration.READ[0]))
        for one in configuration.READ
        if one != configuration.FORMAT
    ],
)
def test_an_older_workdir_is_read_but_never_continued(written, searched, tmp_path):
    path = tmp_path / "older"
    shutil.copytree(searched[0], path)
    config = path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "format": written}))
    code, _, err = here("--method=reinforce", "--trials=16", f"--workdir={path}", *TINY)
    assert code == 2 and f"older version of nasjax (format {written})" in err
    assert rows(path) == rows(searched[0])
    code, out, err = here("--mode=report", f"--workdir={path}")
    assert code == 0 and "report.html" in out, err
    code, out, err = here("--mode=retrain", f"--workdir={path}", "--set=retrain_recipe.epochs=1")
    assert code == 0 and "accuracy" in out, err
    assert json.loads(config.read_text())["format"] == written  # so that its search is still known to be older


@pytest.mark.parametrize(
    ("method", "space", "older", "form"),
    [
        ("darts", None, {"eval": {"channels": 12, "layers": 6}}, {"channels": 12, "layers": 6, "auxiliary": False}),
        ("darts", "tabular_cell", {"eval": None, "form": {"channels": 4, "cells": 2}}, {"channels": 4, "cells": 2}),
        ("spos", None, {"retrain_dropout": 0.3}, {"dropout": 0.3}),
        ("spos", "tabular_cell", {"retrain_dropout": 0.0, "form": {"channels": 4, "cells": 2}}, {"channels": 4}),
    ],
)
def test_an_older_workdir_keeps_the_settings_of_its_networks_form(method, space, older, form, tmp_path):
    record = configuration.record_of(configuration.configure(method, space=space), {})
    record["format"], record["config"] = 4, {**record["config"], "form": None, **older}
    (tmp_path / "config.json").write_text(json.dumps(record))
    found = configuration.config_of(tmp_path).form
    assert {name: getattr(found, name) for name in form} == form


def test_an_older_workdir_keeps_its_learning_rates(tmp_path):
    for method, phase, name in (
        ("darts", "search", "sgd"),
        ("darts", "search", "adam"),
        ("bn_nas", "supernet", "descent"),
    ):
        record = configuration.record_of(configuration.configure(method), {})
        settings = record["config"][phase][name]
        del settings["learning_rate"]
        settings["rate"] = 0.0875
        (tmp_path / "config.json").write_text(json.dumps(record))
        assert getattr(getattr(configuration.config_of(tmp_path), phase), name).learning_rate == 0.0875


def test_other_settings_in_the_same_workdir_are_refused(searched):
    code, _, err = here("--method=reinforce", f"--workdir={searched[0]}", *TINY, "--set=recipe.epochs=2")
    assert code == 2
    assert "recipe.epochs: 1 -> 2" in err


def test_retrain_load_export(searched):
    path = searched[0]
    (told,) = [line for line in searched[1].splitlines() if line.startswith("Next: ")]
    printed = next_words(told)
    args = [*printed, "--set=retrain_recipe.epochs=2"]
    code, out, err = here(*args)
    assert code == 0, err
    assert "Test accuracy" in out and "on 297 samples of digits" in out and "not comparable" in out
    result = json.loads((path / "result.json").read_text())
    assert result["arch"] == json.loads((path / "best.json").read_text())["arch"]
    assert here(*args, "--set=space.extra_filters=3")[0] == 0
    assert json.loads((path / "result.json").read_text())["params"] > result["params"]
    code, _, err = here(*args)
    assert code == 0 and "already trained" in err  # the test set is used once
    assert json.loads((path / "result.json").read_text()) == result

    import nasjax
    from nasjax.data.dataset import DataConfig
    from nasjax.problem.data import load_test

    model = nasjax.load(path)
    test = load_test(DataConfig())
    hits = np.asarray(model.apply(model.variables, test.x)).argmax(-1) == test.y
    assert hits.mean() == pytest.approx(result["test_accuracy"], abs=1e-6)

    assert here("--mode=export", f"--workdir={path}")[0] == 0
    import jax.export

    exported = jax.export.deserialize((path / "export/model.jax").read_bytes())
    np.testing.assert_allclose(exported.call(test.x[:5]), model.apply(model.variables, test.x[:5]), atol=1e-4)
    weights = np.load(path / "export/weights.npz")
    assert sum(weights[n].size for n in weights if n.startswith("params/")) == result["params"]


@pytest.mark.slow
def test_interrupt_saves_and_says_so(tmp_path):
    path = tmp_path / "run"
    process = start("--method=random", "--trials=400", f"--workdir={path}", *TINY)
    deadline = time.monotonic() + 240
    while not (path / "trials.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err


@pytest.mark.slow
def test_own_images_with_every_token_from_search_to_export(tmp_path):
    """A user's .npz of float images and odd labels; types, strides and the learning-rate token; both strategies."""
    y = np.random.default_rng(0).integers(0, 3, 160)
    x = np.random.default_rng(1).normal(size=(160, 6, 7, 2)).astype(np.float32) + y[:, None, None, None]
    np.savez(tmp_path / "mine.npz", x=x, y=np.array([5, 9, 11])[y])
    tokens = ["--set=space.types=conv,max_pool,local_contrast_norm", "--set=space.strides=1,2"]
    tokens += ["--set=space.learning_rates=0.1,0.02", f"--dataset={tmp_path / 'mine.npz'}"]
    fitness = []
    for strategy in ("exact", "vmap"):
        path = tmp_path / strategy
        args = ["--method=random", "--trials=2", f"--workdir={path}", f"--set=strategy={strategy}", *TINY, *tokens]
        code, _, err = here(*args, "--set=width=2")
        assert code == 0, err
        fitness.append([row["fitness"] for row in rows(path)])
    np.testing.assert_allclose(*fitness, atol=0.05)  # one epoch of 80 images: rounding may flip an image
    assert here("--mode=retrain", f"--workdir={path}", "--set=retrain_recipe.epochs=1")[0] == 0
    result = json.loads((path / "result.json").read_text())
    assert result["recipe"]["learning_rate"] == result["arch"]["learning_rate"]
    assert here("--mode=export", f"--workdir={path}")[0] == 0
    assert json.loads((path / "model/model.json").read_text())["names"] == ["5", "9", "11"]


def inspect(*args):
    code, out, err = here("--mode=inspect", *args)
    assert code == 0, err
    return json.loads(out)


def test_inspect_gives_the_published_counts(tmp_path):
    paper = ["--method=reinforce", "--preset=paper"]
    found = inspect(*paper, "--arch=NAS_RL_V1")
    assert (found["params"], found["macs"]) == (4201630, 4300665312)
    chain = found["arch"]
    for i, layer in enumerate(chain["layers"]):
        layer["inputs"] = [i - 1] if i else []
    (tmp_path / "chain.json").write_text(json.dumps(chain))
    assert inspect(*paper, f"--arch={tmp_path / 'chain.json'}")["params"] == 809134
    fifteen = inspect(*paper, "--set=space.min_layers=15", "--set=space.max_layers=15")
    assert fifteen["space_size"] == str(64**15 * 2**105) and fifteen["sites"] == 1 + 15 * 3 + 105
    assert fifteen["params"] == 19_880 + 3 * 144 + 2_485 + 35 + 3 * 4 * 35  # LSTM, heads, attention, start, embeddings


def test_every_published_variant_is_a_preset():
    found = [inspect("--method=reinforce", f"--preset={name}") for name in ("paper", "paper_v2", "paper_v3")]
    sizes = [sum(tokens**n * 2 ** (n * (n - 1) // 2) for n in depths) for tokens, depths in
             ((64, range(6, 21)), (576, range(6, 21)), (64, [13]))]  # fmt: skip
    assert [int(one["space_size"]) for one in found] == sizes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method=reinforc"], "did you mean reinforce"),
        ([], "--method is missing"),
        (["--method=random", "--dataset=cifar"], "did you mean cifar10"),
        (["--method=random", "--preset=big"], "choose demo, paper, paper_v2 or paper_v3"),
        (["--method=random", "--space=cells"], "choose from conv_chain, tabular_cell, darts_cell, choice_chain"),
        (["--method=random", "--mode=serch"], "unknown mode"),
        (["--method=random", "--wokdir=x"], "Unknown command line flag"),
        (["--method=random", "--trials=x"], "trials"),
        (["--method=random", "--trials=0"], "trials must be positive"),
        (["--method=random", "--set=recipe.epoch=3"], "did you mean recipe.epochs"),
        (["--method=random", "--set=epochs=3"], "did you mean recipe.epochs or retrain_recipe.epochs?"),
        (["--method=random", "extra"], "unexpected argument 'extra'"),
        (["--method=random", "retrain"], "write --mode=retrain"),
        (["--method=random", "--dataset=."], "a folder per class: --dataset=image_folder --data_dir=."),
        (["--method=random", "--data_dir=."], "say what the folder holds: --dataset=image_folder"),
        (["--method=random", "--space=tabular_cell", "--table=none.npz"], "none.npz"),
        (["--method=random", "--dataset=cifar10", "--data_dir=/nonexistent"], "/nonexistent"),
        (["--method=random", "--dataset=missing.npz"], "missing.npz"),
        (["--method=random", "--workdir=/dev/null/run"], "cannot write to --workdir"),
        (["--method=random", "--mode=retrain", "--workdir=/nonexistent"], "no best.json"),
        (["--mode=export", "--workdir=/nonexistent"], "of a retrained search"),
        (["--mode=retrain"], "needs the --workdir=DIR of a search"),
        (["--mode=report"], "needs --workdir"),
        (["--mode=report", "--workdir=/nonexistent"], "/nonexistent"),
        (["--method=random", "--mode=inspect", "--arch=NOPE"], "no known name"),
        (["--method=random", "--mode=inspect", '--arch={"space": "conv_chain"}'], '"layers" must be a list'),
        (["--method=random", "--mode=inspect", '--arch={"space": '], "not valid JSON"),
        (["--method=random", "--dtype=float8"], "float8"),
        (["--method=random", "--workdir=a,b"], "takes one --workdir"),
        (["--method=random", "--table=x.npz"], "tables are of --space=tabular_cell or --space=from_table"),
        (["--method=random", "--arch=NAS_RL_V1"], "--arch has no effect"),
        (["--method=random", "--set=method=reinforce"], "write --method instead"),
        (["--method=random", "--set=space.types=conv,conv"], "distinct values"),
        (
            ["--method=random", "--set=space.min_layers=6", "--set=space.max_layers=5"],
            "space.min_layers <= space.max_layers",
        ),
        (["--method=reinforce", "--set=search.learning_rate=-1"], "learning_rate must be positive"),
        (["--method=random", "--set=strategy=fast"], "choose auto, vmap, exact"),
        (["--method=random", "--mode=inspect", "--arch=[" + "{}," * 2000], "no readable file"),
        (["--method=random", "--mode=inspect", f"--arch={__file__}"], "is not valid JSON"),
    ],
)
def test_mistakes_are_one_clear_line(args, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = here(*args)
    assert code == 2
    assert message in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("nasjax-error.log"))


def test_impossible_architectures_are_refused():
    layer = {"filter_height": 3, "filter_width": 3, "num_filters": 6, "inputs": []}
    for change, message in (
        ({"filter_height": 4}, "filter_height = 4 is not in this space"),
        ({"inputs": [3]}, "inputs"),
        ({"num_filter": 6}, "num_filter"),
        ({"filter_height": True}, "filter_height = True is not in this space"),
        ({"num_filters": 6.0}, "num_filters = 6.0 is not in this space"),
        ({"inputs": [0, 0]}, "distinct earlier layers"),
    ):
        arch = {"space": "conv_chain", "layers": [layer, {**layer, **change}]}
        code, _, err = here("--method=random", "--mode=inspect", f"--arch={json.dumps(arch)}")
        assert code == 2 and message in err


def test_foreign_and_damaged_workdirs(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.tex").write_text("mine")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text('{"config": ')
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text('{"config": {}}')
    kinds = (("foreign", "is no workdir"), ("damaged", "config.json is damaged"), ("old", "older version"))
    for name, message in kinds:
        code, _, err = here("--method=random", f"--workdir={tmp_path / name}", *TINY)
        assert code == 2 and message in err
    assert (tmp_path / "foreign/thesis.tex").read_text() == "mine"
    assert sorted(p.name for p in (tmp_path / "foreign").iterdir()) == ["thesis.tex"]


@pytest.mark.slow
def test_nan_learning_rate_is_a_failed_run_with_its_reason(tmp_path):
    path = tmp_path / "run"
    args = ["--method=random", "--trials=4", f"--workdir={path}", *TINY, "--set=recipe.learning_rate=1e30"]
    code, _, err = here(*args)
    assert code == 1 and "every candidate failed" in err and "NaN" in err and "Traceback" not in err
    assert "NaN" in (path / "report.html").read_text()
    assert [row["status"] for row in rows(path)] == ["failed"] * 4


@pytest.mark.slow
def test_full_disk_is_one_line(tmp_path):
    """A limit on file sizes stands for the full disk: the write fails in the same place."""
    path = tmp_path / "run"
    args = ["--method=random", "--trials=8", f"--workdir={path}", *TINY]
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 3; exec "$@"', "limited"]
    process = start(*args, prefix=limited)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert [line for line in err.splitlines() if line.startswith("error:")] == [err.splitlines()[-1]]
    assert "File too large" in err and "Traceback" not in err


def test_what_cannot_fit_is_refused_before_it_starts(tmp_path):
    args = ["--method=random", "--preset=paper", "--dataset=digits", f"--workdir={tmp_path / 'run'}"]
    code, _, err = here(*args, "--set=space.filter_counts=6000000", "--set=strategy=exact")
    assert code == 2 and "GiB are usable" in err
    assert not (tmp_path / "run").exists()


def test_a_finished_search_keeps_its_settings(searched):
    path = searched[0]
    best = f"--arch={path / 'best.json'}"
    assert inspect(f"--workdir={path}", best)["params"] == json.loads((path / "best.json").read_text())["params"]
    code, _, err = here("--mode=retrain", f"--workdir={path}", "--dataset=cifar10")
    assert code == 2 and "was searched with --dataset=digits" in err


@pytest.mark.slow
def test_damaged_results_are_told(searched, tmp_path):
    """What follows from the ledger is written again; without a whole ledger nothing is touched."""
    path = tmp_path / "run"
    shutil.copytree(searched[0], path)
    same, more = (["--method=reinforce", f"--trials={n}", f"--workdir={path}", *TINY] for n in (12, 16))
    whole = (path / "trials.jsonl").read_bytes()
    (path / "trials.jsonl").write_bytes(whole[:100] + b"rubbish")
    assert here(*same)[0] == 0 and (path / "trials.jsonl").read_bytes() == whole
    lines = (path / "ledger.jsonl").read_text().splitlines()
    (path / "ledger.jsonl").write_text("\n".join([lines[0], "rubbish", *lines[2:]]) + "\n")
    code, _, err = here(*more)
    assert code == 2 and "line 2 is not JSON" in err
    (path / "ledger.jsonl").unlink()
    code, _, err = here(*more)
    assert code == 2 and "ledger.jsonl is missing" in err and (path / "trials.jsonl").read_bytes() == whole


def test_verbose_is_for_searches():
    code, _, err = here("--mode=retrain", "--method=random", "--verbose")
    assert code == 2 and "--verbose has no effect with --mode=retrain" in err
