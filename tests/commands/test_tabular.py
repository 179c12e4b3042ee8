"""NAS-Bench-201's cells trained by command: candidates, three supernets, retraining, the model."""

import json

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from tools.commands import here, killed, next_words, rows
from tools.report_pages import report

import nasjax
from nasjax.spaces.tabular_cell.space import TabularCell

TINY = ["--space=tabular_cell", "--set=form.channels=2", "--set=data.train_limit=128", "--set=data.valid_limit=64"]
ONE_SHOT = ["--set=supernet.epochs=1", "--trials=40", "--set=search.calibration_batches=1"]
SIX_CONVOLUTIONS = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.mark.slow
def test_candidates_train_by_path_beside_their_true_results_and_the_best_becomes_a_model(tmp_path):
    space, rng = TabularCell(), np.random.default_rng(0)
    archs = space.enumerate()
    results = (archs == 3).sum(1) / 10 + rng.random(len(archs)) / 100  # the more 3x3 convolutions the better
    np.savez(tmp_path / "truth.npz", arch=archs, fitness=results, cost=np.ones(len(archs)))
    path, truth = tmp_path / "run", f"--truth={tmp_path / 'truth.npz'}"
    args, fraction = ["--method=random", *TINY, "--set=recipe.epochs=1", "--trials=4"], "--set=truth_percent=false"
    code, _, err = here(*args, truth, f"--workdir={path}")
    assert code == 2 and "--set truth_percent=true" in err and not path.exists()
    code, out, err = here(*args, truth, fraction, f"--workdir={path}")
    assert code == 0, err
    found, order = rows(path), np.argsort(-results.astype(np.float32), kind="stable").tolist()
    assert json.loads((path / "config.json").read_text())["strategy"] == "path"
    assert all(row["status"] == "ok" and row["params"] and row["macs"] for row in found)
    for row in found:
        n = int(space.index(space.decode(row["arch"])))
        assert row["result"] == pytest.approx(results[n]) and row["result_rank"] == order.index(n) + 1
    best = max(found, key=lambda row: row["fitness"])
    assert f"Truth: the best has {best['result']:.2%}, rank {best['result_rank']:,} of 15,625" in out
    facts = json.loads((path / "truth.json").read_text())
    fitness, params = ([row[name] for row in found] for name in ("fitness", "params"))
    truths = [row["result"] for row in found]
    assert facts["scores"]["spearman"] == pytest.approx(spearmanr(fitness, truths).statistic)
    assert facts["params"]["tau"] == pytest.approx(kendalltau(params, truths).statistic)
    convolutions = int(space.index(space.parse(SIX_CONVOLUTIONS)))
    assert facts["largest"]["result"] == pytest.approx(results[convolutions])
    # The table's fitness is its result here: random search finds the best of four, as drawing many fours says.
    drawn = np.random.default_rng(1).choice(results, (100_000, 4)).max(1)
    assert facts["random"] == {"cells": 4, "result": pytest.approx(drawn.mean(), abs=3e-3)}
    assert "Fitness and truth of all 4 trials: Kendall's tau" in out and "; parameters alone: Kendall's tau" in out
    page = report(path)
    assert "Search and truth" in page.charts and all(line in page.text for line in facts["lines"])
    # The table may lie elsewhere when a search goes on, or come later; a search does not see it.
    (tmp_path / "truth.npz").rename(tmp_path / "moved.npz")
    same = ["--method=random", *TINY, "--set=recipe.epochs=1", "--trials=4", f"--workdir={path}"]
    for moved in ([], [f"--truth={tmp_path / 'moved.npz'}", fraction]):
        code, again, err = here(*same, *moved)
        assert code == 0, err
        assert ("Truth: the best has" in again) == bool(moved) and rows(path) == found
    assert json.loads((path / "truth.json").read_text()) == facts
    (told,) = [line for line in out.splitlines() if line.startswith("Next: ")]
    args = next_words(told)
    code, out, err = here(*args, "--set=retrain_recipe.epochs=1")
    assert code == 0, err
    assert "Test accuracy" in out
    model = nasjax.load(path)
    assert model.apply(model.variables, np.zeros((2, *model.shape), model.dtype)).shape == (2, 10)


@pytest.mark.slow
def test_one_shot_methods_search_its_supernet(tmp_path):
    path = tmp_path / "run"
    code, out, err = here("--method=bn_nas", *TINY, *ONE_SHOT, f"--workdir={path}")
    assert code == 0, err
    found = rows(path)
    assert len(found) == 40 and all(row["status"] == "ok" for row in found)
    optimum = json.loads((path / "optimum.json").read_text())  # scales, 0 where there are none: all convolutions
    assert set(optimum["arch"]["ops"]) <= {"nor_conv_1x1", "nor_conv_3x3"}
    assert optimum["fitness"] >= max(row["fitness"] for row in found)
    code, out, err = here(
        "--mode=retrain", f"--workdir={path}", "--set=retrain_recipe.epochs=1", "--set=retrain.sample=1"
    )
    assert code == 0, err
    assert "Test accuracy" in out and len((path / "standalone.jsonl").read_text().splitlines()) == 1


DRAWN = {  # beside the epoch in which it is killed: GDAS amid its temperatures, DrNAS in its second stage
    "gdas": ["--set=search.epochs=3", 2],
    "drnas": ["--set=search.epochs=2", "--set=search.frozen_epochs=1", 3],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", DRAWN)
def test_a_search_that_draws_goes_on_after_a_kill_and_its_cell_is_retrained(method, tmp_path):
    *settings, write = DRAWN[method]
    args = [f"--method={method}", *TINY, "--set=search.batch_size=16", *settings]
    if method == "drnas":
        args = [*args, "--set=form.channels=4"]  # which both stages' K divide
    epochs = []
    for name in ("whole", "killed"):  # the process that is killed reads what this one compiled
        if name == "killed":
            killed(*args, f"--workdir={tmp_path / name}", write=write)
            assert not (tmp_path / name / "best.json").exists()
        code, out, err = here(*args, f"--workdir={tmp_path / name}")
        assert code == 0, err
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        epochs.append([{k: v for k, v in json.loads(line).items() if k != "wall_s"} for line in lines])
    assert epochs[0] == epochs[1] and len(epochs[0]) == {"gdas": 3, "drnas": 4}[method]
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    last = np.array(epochs[0][-1]["weights"]["cell"])
    assert ((last > 0).sum(1) == {"gdas": 5, "drnas": 3}[method]).all()
    code, out, err = here("--mode=retrain", f"--workdir={tmp_path / 'killed'}", "--set=retrain_recipe.epochs=1")
    assert code == 0 and "Test accuracy" in out, err
    model = nasjax.load(tmp_path / "killed")
    assert model.apply(model.variables, np.zeros((2, *model.shape), model.dtype)).shape == (2, 10)


def test_inspect_counts_what_the_benchmark_counts():
    args = ["--mode=inspect", "--method=random", "--preset=paper", "--space=tabular_cell", f"--arch={SIX_CONVOLUTIONS}"]
    code, out, err = here(*args)
    assert code == 0, err
    assert json.loads(out).items() >= {"params": 1_531_546, "macs": 220_119_690}.items()
    code, out, err = here("--mode=inspect", "--method=spos", "--preset=paper", "--space=tabular_cell")
    assert code == 0, err
    assert json.loads(out).items() >= {"params": 1_686_106, "macs_of_smallest_path": 7_783_050}.items()


def test_a_truth_of_another_space_is_one_line(tmp_path):
    code, _, err = here("--method=random", "--truth=x.npz", f"--workdir={tmp_path / 'run'}")
    assert code == 2 and "none holds those of --space=conv_chain" in err
    code, _, err = here("--method=random", *TINY, "--truth=x.npz", f"--workdir={tmp_path / 'run'}")
    assert code == 2 and "x.npz" in err and not (tmp_path / "run").exists()
