"""`--mode=report --watch`: the page is written again while a run goes on, and ends as one that does not reload."""

import fcntl
import json

import pytest

from nasjax.commands import watch
from nasjax.launch import main

RELOADS = '<meta http-equiv="refresh" content="{}">'


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "run"
    found.mkdir()
    (found / "config.json").write_text(json.dumps({"method": "random"}))
    (found / ".lock").touch()
    return found


def add(folder, i):
    with (folder / "trials.jsonl").open("a") as file:
        file.write(json.dumps({"id": i, "arch": {}, "fitness": 0.5, "status": "ok"}) + "\n")


def trials(page):
    return page.read_text().count('id="trial-0-')


def test_the_page_follows_a_run_and_ends_with_it(folder):
    page, seen, said = folder / "report.html", [], []
    lock = (folder / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def sleep(seconds):
        seen.append((seconds, trials(page), RELOADS.format(7) in page.read_text()))
        add(folder, len(seen))
        if len(seen) == 3:
            lock.close()  # the run ends

    assert watch([folder], every_s=7, patience_s=0, say=said.append, sleep=sleep) == page
    assert seen == [(7, 0, True), (7, 1, True), (7, 2, True)]
    assert trials(page) == 3 and '<meta http-equiv="refresh"' not in page.read_text()
    (line,) = said
    assert str(page) in line and "every 7 s" in line


def test_it_waits_for_a_run_to_begin_and_for_the_next_one(folder, tmp_path):
    """Of two, the second begins when the first has ended; then nothing goes on for as long as it waits."""
    lock, second, times, said = (folder / ".lock").open("w"), tmp_path / "second", [], []

    def sleep(seconds):
        times.append(seconds)
        if len(times) == 2:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if len(times) == 4:
            add(folder, 0)
            lock.close()
        if len(times) == 6:
            second.mkdir()
            (second / "config.json").write_text(json.dumps({"method": "random"}))
            add(second, 1)

    page = watch([folder, second], every_s=10, patience_s=30, say=said.append, sleep=sleep)
    assert len(times) == 3 + 3 and page == tmp_path / "report-run-second.html" and "second" in page.read_text()
    assert len(said) == 1 and '<meta http-equiv="refresh"' not in page.read_text()


def test_where_no_run_begins_it_ends_with_the_reason(tmp_path):
    waits, said = [], []
    with pytest.raises(ValueError, match=r"no trials\.jsonl or config\.json in .*none"):
        watch([tmp_path / "none"], patience_s=30, say=said.append, sleep=waits.append)
    assert waits == [10, 10, 10] and said == [
        f"no run has begun in {tmp_path}/none; waiting 30 s for one; Ctrl-C ends that earlier"
    ]


def test_interrupted_the_last_page_does_not_reload(folder, capsys, monkeypatch):
    def interrupted(seconds):
        assert RELOADS.format(10) in (folder / "report.html").read_text()
        raise KeyboardInterrupt

    monkeypatch.setitem(watch.__kwdefaults__, "sleep", interrupted)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["nasjax", "--mode=report", f"--workdir={folder}", "--watch"]) == 130
    assert '<meta http-equiv="refresh"' not in (folder / "report.html").read_text()
    assert "Ctrl-C" in capsys.readouterr().err
