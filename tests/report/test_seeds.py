"""Several seeds in numbers: mean, deviation, and paired differences to random search."""

import json
import statistics

import pytest
from tools.report_pages import report, trial, workdir

from nasjax.report import grouping, seeds
from nasjax.report.workdir import read

CELL = {"space": "tabular_cell", "ops": ["none"] * 6}


def run(folder, method, seed, fitness, **more):
    settings = {"method": method, "seed": seed, "dataset": {"name": "digits"}}
    settings |= {"config": {"space": {"name": "conv_chain"}, "seed": seed}}
    return workdir(folder, [trial(0, fitness, **more.pop("fields", {})), trial(1, 0.1)], settings, **more)


@pytest.fixture
def folders(tmp_path):
    """Seeds 0, 1, 2 of random search, and 1, 2, 3 of another one that is a little better."""
    found = [run(tmp_path / f"random-s{n}", "random", n, 0.5 + 0.1 * n) for n in range(3)]
    return [*found, *(run(tmp_path / f"topk-s{n}", "topk", n, 0.6 + 0.1 * n) for n in (1, 2, 3))]


@pytest.mark.slow  # scipy.stats takes two seconds to import
def test_the_quantiles_of_student_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 5, 30, 31, 60, 500):
        assert seeds.quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4), degrees


def test_the_interval_by_hand():
    assert seeds.quantile(1) == 12.706 and seeds.quantile(31) == pytest.approx(2.0395, abs=1e-4)
    low, high = seeds.interval([1.0, 2.0, 3.0])
    far = 4.303 * statistics.stdev([1, 2, 3]) / 3**0.5
    assert (low, high) == pytest.approx((2 - far, 2 + far))
    assert seeds.interval([1.0]) is None


def test_mean_and_deviation_of_every_method(folders):
    rows = report(*folders).rows["Seeds"]
    assert rows[0] == ["runs", "result", "seeds", "mean", "deviation", "lowest to highest", "95 % interval of the mean"]
    assert rows[1][1:6] == ["best validation accuracy", "3", "60.00 %", "10.00 points", "50.00 % to 70.00 %"]
    assert rows[2][3:6] == ["80.00 %", "10.00 points", "70.00 % to 90.00 %"]
    assert rows[1][6] == "35.16 % to 84.84 %"  # 0.6 ± 4.303 · 0.1 / √3


def test_only_equal_seeds_are_compared_with_random_search(folders):
    lines = grouping.lines([read(f) for f in folders], [f.name for f in folders])
    assert seeds.paired(lines[1], lines[0], lambda r: r.best.fitness) == [
        (1, pytest.approx(0.1)), (2, pytest.approx(0.1))
    ]  # fmt: skip
    (row,) = report(*folders).rows["Differences to random"][1:]
    assert row[1:] == ["best validation accuracy", "1, 2", "+10.00 points", "0.00 points", row[5], "2 of 2"]
    assert row[5] == "+10.00 points to +10.00 points"


def test_where_smaller_is_better_a_negative_difference_is_better(tmp_path):
    metric = {"name": "perplexity", "unit": "plain", "sign": -1}
    folders = []
    for method, values in (("random", (90.0, 80.0)), ("topk", (85.0, 78.0))):
        for seed, value in enumerate(values):
            folder = run(tmp_path / f"{method}-s{seed}", method, seed, None)
            config = {
                "method": method,
                "seed": seed,
                "metric": metric,
                "config": {"space": {"name": "x"}, "seed": seed},
            }
            folders.append(workdir(folder, [trial(0, -value)], config))
    (row,) = report(*folders).rows["Differences to random"][1:]
    assert row[3] == "−3.5" and row[-1] == "2 of 2"


def test_results_of_a_table_and_tests_after_retraining_are_summed_up_as_well(tmp_path):
    result = [{"test_accuracy": 0.9 + 0.02 * n} for n in range(2)]
    folders = [
        run(tmp_path / f"a-s{n}", "random", n, 0.5, fields={"result": 0.8 + 0.1 * n, "arch": CELL}, result=result[n])
        for n in range(2)
    ]
    rows = {row[1]: row[2:5] for row in report(*folders).rows["Seeds"][1:]}
    assert rows["accuracy in the table of the best"] == ["2", "85.00 %", "7.07 points"]
    assert rows["test accuracy, retrained"] == ["2", "91.00 %", "1.41 points"]


def test_single_seeds_have_no_such_section(folders):
    page = report(folders[0], folders[3])
    assert "Seeds" not in page.rows and "Differences to random" not in page.rows


def altered(folder, **changes):
    """The workdir with other entries of its config.json; those of "config" are added to it."""
    file = folder / "config.json"
    tree = json.loads(file.read_text())
    tree |= changes | {"config": {**tree["config"], **changes.get("config", {})}}
    file.write_text(json.dumps(tree))


def test_other_samples_other_budgets_and_shared_weights_are_no_silent_difference(folders):
    for folder in folders[3:]:
        altered(folder, config={"trials": 150})
    for folder in folders[:3]:
        altered(folder, config={"trials": 20})
    (row,) = report(*folders).rows["Differences to random"][1:]
    assert row[1] == "best validation accuracy (150 trials, random 20)"
    for folder in folders[3:]:
        altered(folder, config={"supernet": {"epochs": 2}})
    assert "Differences to random" not in report(*folders).rows  # scores of shared weights are no trained networks'
    for folder in folders:
        (folder / "result.json").write_text('{"test_accuracy": 0.9}')
    assert [row[1] for row in report(*folders).rows["Differences to random"][1:]] == [
        "test accuracy, retrained (150 trials, random 20)"
    ]
    for folder in folders[:3]:
        altered(folder, dataset={"name": "digits", "sha256": "of fewer samples"})
    assert "Differences to random" not in report(*folders).rows


def test_two_random_searches_are_both_compared_with(folders, tmp_path):
    more = [run(tmp_path / f"again-s{n}", "random", n, 0.9) for n in (1, 2)]
    for folder in more:
        altered(folder, config={"trials": 99})
    rows = report(*folders, *more).rows["Differences to random"][1:]
    assert [row[3] for row in rows] == ["+10.00 points", "−15.00 points"]
    assert all(", minus " in row[0] for row in rows)
