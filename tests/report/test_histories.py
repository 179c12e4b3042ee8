"""The report of searches by gradients: heat maps, curves, the gap, unfinished and damaged workdirs."""

import json
import re

import pytest
from tools.report_pages import report

OPERATORS = ["none", "skip_connect", "sep_conv_3x3"]
ARCH = {"space": "darts_cell", **{c: [["skip_connect", 0], ["sep_conv_3x3", 1]] * 4 for c in ("normal", "reduce")}}


@pytest.fixture
def workdir(tmp_path):
    rows = [
        {
            "epoch": epoch,
            "stage": 0,
            "done": epoch == 3,  # the stage: another one may follow
            "train_loss": 2.0 / epoch,
            "skips": epoch,
            "arch": ARCH,
            "weights": {c: [[0.1, 0.2 * epoch, None]] * 14 for c in ("normal", "reduce")},
        }
        for epoch in (1, 2, 3)
    ]
    (tmp_path / "config.json").write_text(json.dumps({"method": "darts", "config": {"space": {"name": "darts_cell"}}}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {c: [OPERATORS] * 14 for c in ("normal", "reduce")}
    (tmp_path / "stages.json").write_text(json.dumps({"facts": [facts]}))
    return tmp_path


WEIGHTS, LOSS, ACCURACY = "Operator weights, normal cell", "Loss", "Accuracy"


def test_unfinished_search_shows_weights_and_the_cells_so_far(workdir):
    page = report(workdir)
    assert "unfinished" in page.text and len(page.marks(WEIGHTS, "rect")) == 14 * 3
    squares = {(row["row"], row["name"]): row["shown"] for row in page.marks(WEIGHTS, "rect")}
    assert squares["0 → 2", "skip_connect"] == "0.6" and squares["4 → 5", "sep_conv_3x3"] == "not a number"
    curves = page.marks("Operators over the search, normal cell", "line")
    assert [row["y"] for row in curves if row["line"] == "skip_connect"] == pytest.approx([0.2, 0.4, 0.6])
    assert "the search is not finished" in page.text
    assert [row["y"] for row in page.marks("Skip connections", "line")] == [1, 2, 3]
    assert "Discretisation gap" not in page.text


def test_the_gap_of_a_finished_search(workdir):
    row = {"id": 0, "arch": ARCH, "fitness": 0.25, "search_accuracy": 0.9, "status": "ok", "params": 10, "cost_s": 1.0}
    (workdir / "trials.jsonl").write_text(json.dumps(row) + "\n")
    (workdir / "best.json").write_text(json.dumps(row))
    page = report(workdir)
    assert re.search(r"90\.00 %.*25\.00 %, 65\.00 points less", page.text)
    assert "the search is not finished" not in page.text and "finished" in page.text
    assert not any("over the search" in title and "Operators" not in title for title in page.charts)  # one trial
    assert "Cost of a trial" not in page.charts and not any(title.startswith("Size") for title in page.charts)


def test_two_kinds_of_validation_say_what_they_are(workdir):
    row = {
        "epoch": 4,
        "train_loss": 0.5,
        "val_loss": 1.0,
        "valid_loss": 2.0,
        "val_accuracy": 0.5,
        "valid_accuracy": 0.2,
    }
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    page = report(workdir)
    kinds = {row["kind"]: row["y"] for row in page.marks(LOSS, "line") if row["x"] == 4}
    assert list(kinds.values()) == [0.5, 1.0, 2.0] and len(set(kinds)) == 3
    assert {row["y"] for row in page.marks("Validation accuracy", "line")} == {20.0, 50.0}
    assert page.axis(LOSS, "y") == "loss (nats)" and page.axis("Validation accuracy", "y") == "validation accuracy (%)"
    assert "The two validation lines differ" in page.text and "val_loss" not in page.text.split("config.json")[0]


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ([0.25, 0.5, 0.25], "Mixing weights, normal cell"),
        ([1.5, 2.5, 3.0], "Stable ranks, normal cell"),
        ([0.25, 0.5, 3.0], "Operator weights, normal cell"),
    ],
)
def test_what_the_weights_are_is_read_from_the_file(workdir, weights, what):
    row = {"epoch": 4, "stage": 0, "weights": {"normal": [weights] * 14, "reduce_edges": [0.5] * 14}}
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert what in report(workdir).charts


@pytest.mark.parametrize("text", ["{", "[]", '{"facts": []}', '{"facts": [{"normal": 3}]}'])
def test_damaged_stages_leave_the_page_whole(workdir, text):
    (workdir / "stages.json").write_text(text)
    names = {row["name"] for row in report(workdir).marks(WEIGHTS, "rect")}
    assert names == {"operator 0", "operator 1", "operator 2"}


def test_odd_weights_leave_the_page_whole(workdir):
    odd = {"epoch": 4, "stage": "x", "weights": {"normal": [1, 2], "reduce": None}, "train_loss": 0.1}
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(odd) + "\n")
    assert "</html>" in report(workdir).html
