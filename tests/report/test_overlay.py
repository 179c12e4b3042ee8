"""Several workdirs on one page: seeds of one configuration are a line with a band."""

import pytest
from tools.report_pages import report, trial, workdir

from nasjax.report import charts, grouping
from nasjax.report.workdir import read

TITLE = "Validation accuracy over the search"


def run(folder, fitness, *, seed, metrics=(), **config):
    settings = {"method": "random", "seed": seed, "config": {"space": {"name": "conv_chain"}, "seed": seed, **config}}
    return workdir(folder, [trial(i, f) for i, f in enumerate(fitness)], settings, metrics)


@pytest.fixture
def folders(tmp_path):
    updates = [[{"updates": u, "entropy": e} for u, e in enumerate(es, 1)] for es in ((9.0, 8.0, 6.0), (7.0, 4.0))]
    return [
        run(tmp_path / "random-s0", [0.5, 0.75, 0.25], seed=0, metrics=updates[0]),
        run(tmp_path / "random-s1", [0.25, 0.5, 1.0, 0.5], seed=1, metrics=updates[1]),
        run(tmp_path / "other", [0.5, 0.5], seed=0, width=2),
    ]


def test_runs_that_differ_in_their_seed_only_are_one_line(folders):
    lines = grouping.lines([read(f) for f in folders], [f.name for f in folders])
    assert [line.label for line in lines] == ["random (2 seeds)", "other"]
    assert [[n for n, _ in line.members] for line in lines] == [[0, 1], [2]]
    assert [line.colour for line in lines] == list(charts.PALETTE[:2])


def test_the_band_goes_from_the_lowest_to_the_highest(folders):
    page = report(*folders)
    band = [(row["x"], row["y"], row["low"], row["high"]) for row in page.marks(TITLE, "area")]
    assert band == [(1, 37.5, 25, 50), (2, 62.5, 50, 75), (3, 87.5, 75, 100)]  # the best so far; as far as both got
    lines = [row for row in page.marks(TITLE, "line") if row["kind"] == "best so far"]
    assert [row["y"] for row in lines if row["line"] == "random (2 seeds)"] == [37.5, 62.5, 87.5]
    assert [row["y"] for row in lines if row["line"] == "other"] == [50, 50]
    assert "with a band from the lowest to the highest" in page.text
    dots = page.marks(TITLE, "circle")
    assert len(dots) == 9 and dots[3]["trial"] == "0, random-s1" and dots[3]["row"] == "trial-1-0"
    entropy = [(row["x"], row["y"], row["low"], row["high"]) for row in page.marks("Entropy of the policy", "area")]
    assert entropy == [(1, 8, 7, 9), (2, 6, 4, 8)]


def test_names_of_lines_differ(tmp_path):
    folders = [run(tmp_path / f"a-s{n}", [0.5], seed=n, width=n // 2) for n in range(4)]
    lines = grouping.lines([read(f) for f in folders], [f.name for f in folders])
    assert [line.label for line in lines] == ["a-s0, a-s1", "a-s2, a-s3"]


def test_without_a_configuration_runs_stay_apart(tmp_path):
    folders = [workdir(tmp_path / name, [trial(0, 0.5)], {"method": "random"}) for name in "ab"]
    assert len(grouping.lines([read(f) for f in folders], ["a", "b"])) == 2


def test_each_figure_has_the_axis_of_its_own_numbers(tmp_path):
    """Also where another run of the page counts in something else."""
    a = workdir(tmp_path / "a", [trial(0, 0.5)], {"method": "a"}, [{"updates": u, "entropy": 9.0 - u} for u in (1, 2)])
    b = workdir(tmp_path / "b", [trial(0, 0.5)], {"method": "b"}, [{"epoch": e, "train_loss": 1 / e} for e in (1, 2)])
    page = report(a, b)
    assert page.axis("Entropy of the policy", "x") == "updates of the policy"
    assert page.axis("Training loss", "x") == "epoch"


def test_band():
    assert grouping.band([]) == grouping.band([[], []]) == []
    assert grouping.band([[(1, 2.0), (2, 6.0)], [(1, 4.0)]]) == [{"x": 1, "y": 3.0, "low": 2.0, "high": 4.0}]
