"""Who was busy when: with workers, and where the search evaluates its candidates itself."""

import json

import pytest
from tools.report_pages import report, trial, workdir

from nasjax.report import ledger, timeline
from nasjax.report.workdir import read

# The driver describes the candidates between "asked" and "started"; here that is nearly all of its work.
INLINE = [
    event
    for n, at in enumerate((0.0, 10.0, 20.0, 30.0))
    for event in (
        {"event": "asked", "task": n, "ids": [n], "at": at},
        {"event": "started", "task": n, "attempt": 1, "worker": 0, "at": at + 9},
        {"event": "told", "task": n, "attempt": 1, "worker": 0, "rows": [{"id": n, "fitness": 0.5}], "at": at + 9.5},
    )
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    found = workdir(tmp_path / "run", [trial(n, 0.5) for n in range(4)])
    (found / "ledger.jsonl").write_text("".join(json.dumps(event) + "\n" for event in INLINE))
    return found


def test_an_inline_search_is_at_work_from_asking_on(folder):
    run = read(folder)
    found = ledger.attempts(run.ledger, inline=run.inline)
    assert run.inline and [(a.start, a.stop) for a in found] == [(10.0 * n, 10.0 * n + 9.5) for n in range(4)]
    assert ledger.utilisation(found, ledger.end(run.ledger)) == {"0": pytest.approx(38 / 39.5)}
    assert [a.start for a in ledger.attempts(run.ledger)] == [9, 19, 29, 39]  # of a worker: from its start


def test_an_inline_search_has_no_queue(folder):
    assert timeline.numbers(read(folder)) == ""
    page = report(folder)
    (row, *_) = page.marks("Workers over time", "bar")
    assert row["worker"] == "this process: 96 %" and "no task waits" in page.text
    assert "Queue" not in page.charts
    assert "tasks at the ledger's end: at work, waiting" not in dict(timeline.counts(read(folder)))


def test_one_worker_process_is_drawn_as_a_worker(folder):
    config = json.loads((folder / "config.json").read_text())
    config["config"]["workers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    page = report(folder)
    assert page.marks("Workers over time", "bar")[0]["worker"] == "worker 0: 7 %" and "Queue" in page.charts


def test_results_that_were_told_together_are_one_moment(tmp_path):
    """Else the best against time is an upright line; and one moment alone is no figure."""
    found = workdir(tmp_path / "run", [trial(n, value) for n, value in enumerate((0.25, 0.5, 0.375))])
    told = [{"event": "told", "task": 0, "rows": [{"id": 0}, {"id": 1}], "at": 9.0}]
    told.append({"event": "told", "task": 1, "rows": [{"id": 2}], "at": 12.0})
    (found / "ledger.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    assert timeline._steps(read(found)) == [(9.0, 50.0), (12.0, 50.0)]
