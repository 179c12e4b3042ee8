"""What the report says of a search that trains the best on, by numbers that can be checked by hand."""

import json

import pytest
from tools.report_pages import report

from nasjax.cli import runs as listing
from nasjax.report.workdir import read

ROWS = [  # id, parent, fidelity, fitness
    (0, -1, 1, 0.50),
    (1, -1, 1, 0.40),
    (2, -1, 1, None),
    (3, 0, 3, 0.60),
    (4, -1, 1, 0.95),  # better than all, after one epoch
    (5, 4, 3, 0.55),
    (6, 3, 9, 0.70),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("rungs")
    lines = []
    for trial, parent, epochs, fitness in ROWS:
        row = {"id": trial, "parent": parent, "fidelity": epochs, "arch": {"space": "none", "n": trial}, "params": 9}
        row |= {"macs": 10, "fitness": fitness, "cost_s": 2.0, "status": "failed" if fitness is None else "ok"}
        lines.append(json.dumps(row | {"error": None if fitness else "NaN", "hash": str(trial)}))
    (path / "trials.jsonl").write_text("\n".join(lines) + "\n")
    config = {"method": "asha", "dataset": {"train": 100}, "config": {"trials": 7}}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def page(folder):
    return report(folder)


def test_the_table_of_rungs_counts_the_added_epochs(page):
    heads, *rows = page.rows["Rungs"]
    found = {int(row[0]): dict(zip(heads, row, strict=True)) for row in rows}
    assert list(found) == [1, 3, 9]
    assert [found[n]["trials"] for n in found] == ["4", "2", "1"] and found[1]["failed"] == "1"
    assert [found[n]["went on"] for n in found] == ["2", "1", "0"]
    assert [found[n]["epochs trained"] for n in found] == ["4", "4", "6"]
    assert found[9]["multiply-adds, forward"] == "6e+03" and found[3]["median"] == "57.50 %"


def test_curves_join_the_trials_of_one_architecture(page):
    points = page.marks("Learning curves, joined by promotions", "circle")
    chains = {}
    for point in points:
        chains.setdefault(point["chain"], []).append((point["x"], round(point["y"], 4)))
    assert chains == {"0": [(1, 50), (3, 60), (9, 70)], "4": [(1, 95), (3, 55)], "1": [(1, 40)]}


def test_the_best_is_one_of_the_longest_trained_everywhere(folder, page):
    run = read(folder)
    assert run.best.id == 6 and [t.id for t in run.comparable] == [6] and run.worst is None
    assert "trial 6 after 9 epochs" in page.text and "95.00 %" not in page.text.split("Rungs and promotions")[0]
    assert page.rows["Trials"][1][0] == "6" and page.rows["Trials"][1][2] == "9"
    assert "Individuals and their parents" not in page.text and "Lineage" not in page.text
    assert "best validation accuracy 70.00 % after 9 epochs" in listing.row(folder).best
