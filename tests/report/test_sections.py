"""What a reader sees first is so: tiles, units, hardware, and colours."""

import pytest
from tools.report_pages import report, trial, workdir

from nasjax.report import charts
from nasjax.report.elements import devices

ACCURACY = {"name": "accuracy", "unit": "fraction", "sign": 1}
CELL = {"space": "tabular_cell", "ops": ["none"] * 6}


def in_a_table(folder, **config):
    trials = [trial(i, 0.8 - 0.1 * i, result=0.93, arch=CELL, params=None, macs=None, cost_s=400.0) for i in range(3)]
    settings = {"method": "random", "strategy": "table", "config": {"space": {"name": "tabular_cell"}, "trials": 9}}
    events = [{"event": "asked", "task": 0, "ids": [0, 1, 2], "at": 0.0}]
    events += [{"event": "started", "task": 0, "attempt": 1, "worker": 0, "at": 1.0}]
    events += [{"event": "told", "task": 0, "attempt": 1, "worker": 0, "rows": [{"id": 0}], "at": 1.001}]
    metrics = [{"trials": 3, "wall_s": 1.5, "why": "cost_s=1200 seconds of candidates are spent"}]
    workdir(folder, trials, settings | config, metrics)
    (folder / "ledger.jsonl").write_text("".join(f"{event}\n" for event in events).replace("'", '"'))
    return folder


def test_a_search_of_a_table_shows_its_result_its_simulated_cost_and_why_it_ended(tmp_path):
    page = report(in_a_table(tmp_path / "run"))
    assert "The search ended at 3 of 9 trials: cost_s=1200 seconds of candidates are spent." in page.text
    assert "accuracy in the table93.00 %of trial 0best validation accuracy80.00 %" in page.text
    assert "simulated cost1,200 s20.0 minutes, by the table, nothing was trained" in page.text
    assert "time of the search1.5 s" in page.text and "parameters (best)" not in page.text
    assert "Workers over time" not in page.charts and "Queue" not in page.charts  # nobody worked
    best = "Best validation accuracy against simulated time"
    assert [row["x"] for row in page.marks(best, "line")] == [400, 1200]
    assert page.axis(best, "x") == "simulated time (s)"
    assert "multiply-adds" not in page.text  # no network has any
    plain = report(in_a_table(tmp_path / "plain", metric={"name": "perplexity", "unit": "plain", "sign": -1}))
    assert "perplexity in the table0.93of trial 0" in plain.text  # in the metric of the search that looks it up


def test_the_network_that_was_tested_is_the_headline(tmp_path):
    result = {"test_accuracy": 0.9495, "test_samples": 297, "metric": ACCURACY, "params": 10, "macs": 20}
    page = report(workdir(tmp_path / "run", [trial(0, 0.2595), trial(1, 0.1)], result=result))
    first = page.text.index("test accuracy94.95 %retrained from scratch, 297 samples")
    assert (
        first < page.text.index("best validation accuracy25.95 %")
        and "parameters (retrained)1020 multiply" in page.text
    )


def test_after_a_search_by_another_score_the_headline_is_the_metric_of_the_test(tmp_path):
    score = {"name": "batch norm score", "unit": "plain", "sign": 1}
    result = {"test_accuracy": 0.5, "metric": ACCURACY}
    page = report(workdir(tmp_path / "run", [trial(0, 7.5)], {"metric": score}, result=result))
    assert "test accuracy50.00 %" in page.text and "best batch norm score7.5" in page.text


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"loss_unit": ""}, "loss"),
        ({"loss_unit": "m²"}, "loss (m²)"),
        ({}, "loss (nats)"),
        ({"task": "language"}, "loss (nats)"),
        ({"task": "segmentation"}, "loss"),
        ({"task": "mine"}, "loss"),
    ],
)
def test_a_loss_has_its_own_unit_or_none(tmp_path, told, shown):
    rows = [{"epoch": e, "train_loss": 1 / e} for e in (1, 2)]
    page = report(workdir(tmp_path / "run", [], {"method": "x", **told}, rows, result={"train_loss": 0.5}))
    assert page.axis("Training loss", "y") == f"training {shown}"
    assert page.rows["Retrained from scratch"][1][0] == f"training {shown}"


def test_losses_of_several_units_share_none(tmp_path):
    rows = [{"epoch": e, "train_loss": 1 / e} for e in (1, 2)]
    folders = [workdir(tmp_path / unit, [], {"method": unit, "loss_unit": unit}, rows) for unit in ("nats", "m")]
    assert report(*folders).axis("Training loss", "y") == "training loss"


@pytest.mark.parametrize(
    ("told", "shown"),
    [("1 x cpu cpu", "1 x CPU"), ("2 x cpu", "2 x CPU"), ("1 x gpu NVIDIA H100", "1 x GPU NVIDIA H100"), (None, "")],
)
def test_hardware_in_words(told, shown):
    assert devices(told) == shown


def test_counts_have_no_fractions_on_their_axis(tmp_path):
    rows = [{"epoch": e, "skips": e, "tau": 1.0 / e} for e in (1, 2)]
    page = report(workdir(tmp_path / "run", [], {"method": "x"}, rows))
    skips, tau = (
        page.charts[title]["layer"][0]["encoding"]["y"]["axis"]
        for title in ("Skip connections", "Order of operator scores")
    )
    assert skips["tickMinStep"] == 1 and skips["format"] == ",d"
    assert "tickMinStep" not in tau


def test_a_run_has_one_colour_everywhere(tmp_path):
    """Also where the figure is about one run among others, and where its numbers are several."""
    rows = [{"epoch": e, "train_loss": 1 / e, "valid_loss": 2 / e} for e in (1, 2)]
    history = {"train_loss": [2.0, 1.0], "valid_accuracy": [0.3, 0.5]}
    events = '{"event": "started", "task": 0, "attempt": 1, "worker": 0, "at": 0}\n{"event": "resumed", "at": 2}\n'
    folders = []
    for name in "ab":
        folders.append(workdir(tmp_path / name, [trial(0, 0.5)], {"method": name}, rows, result={"history": history}))
        (folders[-1] / "ledger.jsonl").write_text(events)
    page = report(*folders)  # of figures with the same title the last, that of the second run
    second = charts.PALETTE[1]
    assert page.charts["Loss"]["layer"][0]["encoding"]["color"]["scale"] == {
        "domain": ["a", "b"], "range": list(charts.PALETTE[:2])
    }  # fmt: skip
    for title in ("Training loss", "Validation accuracy"):
        assert page.charts[title]["layer"][0]["encoding"]["color"]["scale"]["range"] == [second]
    alone = report(folders[0]).charts["Loss"]["layer"][0]["encoding"]["color"]["scale"]
    assert alone["range"][0] == charts.PALETTE[0] and len(set(alone["range"])) == 2
    assert not set(alone["range"]) & set(charts.PALETTE[1:])  # shades of its own colour


def test_a_dozen_runs_have_a_dozen_colours():
    assert len({charts.colour(n) for n in range(12)}) == 12
