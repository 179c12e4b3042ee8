"""The report of searches by gradients: heat maps, curves, the gap, unfinished and damaged workdirs."""

import json
import re

import pytest

from nasjax.report import write_report

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


def page(workdir):
    return write_report([workdir]).read_text()


def test_unfinished_search_shows_weights_and_the_cells_so_far(workdir):
    html = page(workdir)
    assert ">unfinished<" in html and html.count("<rect") >= 2 * 14 * 3
    assert "0-2 skip_connect: 0.6" in html and "4-5 sep_conv_3x3: not a number" in html
    assert "the search is not finished" in html and "Skips" in html
    assert "Discretisation gap" not in html


def test_the_gap_of_a_finished_search(workdir):
    row = {"id": 0, "arch": ARCH, "fitness": 0.25, "search_accuracy": 0.9, "status": "ok", "params": 10, "cost_s": 1.0}
    (workdir / "trials.jsonl").write_text(json.dumps(row) + "\n")
    (workdir / "best.json").write_text(json.dumps(row))
    html = page(workdir)
    assert re.search(r"90\.00 %.*25\.00 %, 65\.00 points less", html)
    assert "the search is not finished" not in html and ">finished<" in html


@pytest.mark.parametrize("text", ["{", "[]", '{"facts": []}', '{"facts": [{"normal": 3}]}'])
def test_damaged_stages_leave_the_page_whole(workdir, text):
    (workdir / "stages.json").write_text(text)
    html = page(workdir)
    assert "0-2 operator 1: 0.6" in html and "skip_connect: 0.6" not in html


def test_odd_weights_leave_the_page_whole(workdir):
    odd = {"epoch": 4, "stage": "x", "weights": {"normal": [1, 2], "reduce": None}, "train_loss": 0.1}
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(odd) + "\n")
    assert "</html>" in page(workdir)
