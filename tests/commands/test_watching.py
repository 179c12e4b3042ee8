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

    assert watch([folder], every_s=7, say=said.append, sleep=sleep) == page
    assert seen == [(7, 0, True), (7, 1, True), (7, 2, True)]
    assert trials(page) == 3 and '<meta http-equiv="refresh"' not in page.read_text()
    (line,) = said
    assert str(page) in line and "every 7 s" in line


def test_a_run_that_has_ended_is_written_once(folder):
    def sleep(seconds):
        raise AssertionError("nothing to wait for")

    page = watch([folder], sleep=sleep)
    assert '<meta http-equiv="refresh"' not in page.read_text()


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
