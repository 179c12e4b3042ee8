"""What is kept of trainings that are under way: nothing of short ones, and at most `every_s` seconds are lost."""

import numpy as np
import pytest

from nasjax.store import unfinished
from nasjax.train import underway
from nasjax.train.underway import Shelf


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(underway.time, "monotonic", lambda: now[0])
    return now


def test_a_short_training_writes_nothing_and_a_long_one_before_a_minute_is_over(clock):
    kept = {}
    with underway.keeping(Shelf(kept.get, kept.__setitem__, 60.0)):
        with underway.training("1-a", lambda state: {"state": state}):
            for second in range(4, 53, 4):
                clock[0] = second
                underway.reached(second)
        assert not kept  # it ended after 52 s
        underway.ended("1-a", lambda: {"result": 1})
        with underway.training("2-b", lambda state: {"state": state}):
            clock[0] = 55
            underway.reached(55)
            assert not kept
            clock[0] = 58
            underway.reached(58)  # the next question may come after a minute
        assert kept == {"1-a": {"result": 1}, "2-b": {"state": 58}}  # with what ended before it
        with underway.training("3-c", lambda state: {"state": state}):
            clock[0] = 100
            underway.reached(100)
        assert set(kept) == {"1-a", "2-b", "3-c"}


def test_outside_a_task_nothing_is_kept():
    with underway.training("1-a", lambda state: {"state": state}):
        underway.reached(1)
    assert underway.kept("1-a") is None and underway.uncounted(5.0) == 5.0


def test_files_of_told_trials_are_deleted_and_damaged_ones_are_not_read(tmp_path):
    for name in ("3-aa", "4-bb", "12-cc"):
        unfinished.save(tmp_path, name, {"state": {"0": np.arange(3)}, "seconds": np.float64(2)})
    assert unfinished.load(tmp_path, "3-aa")["state"]["0"].tolist() == [0, 1, 2]
    unfinished.delete(tmp_path, [3])
    assert unfinished.load(tmp_path, "3-aa") is None
    (tmp_path / "unfinished" / "12-cc.npz").write_bytes(b"PK half")
    assert unfinished.load(tmp_path, "12-cc") is None
    (tmp_path / "unfinished" / "half.tmp").touch()
    unfinished.keep(tmp_path, [12])
    assert [file.name for file in (tmp_path / "unfinished").iterdir()] == ["12-cc.npz"]


def test_seconds_that_others_count_are_not_counted_twice():
    with underway.keeping(Shelf(lambda name: None, lambda name, tree: None, 60.0, counted_s=40.0)):
        assert underway.uncounted(100.0) == 60.0 and underway.uncounted(30.0) == 0.0
