"""The time left: from the first one alone, then from the newer ones, and nothing before anything was measured."""

import functools
import types

import pytest

from nasjax.drive import pace
from nasjax.drive.pace import Pace
from nasjax.evaluators.cost_model import later_seconds


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(s=100.0)
    monkeypatch.setattr(pace, "time", types.SimpleNamespace(monotonic=lambda: now.s))
    return now


def after(clock, pace, seconds, done):
    clock.s += seconds
    pace.reached(done)


def test_nothing_is_told_before_the_first():
    assert Pace(10).left() is None and Pace(None).left() is None
    assert Pace(10).left(most_s=30.0) == 30.0  # but a limit of time is known


def test_what_is_compiled_once_counts_once(clock):
    found = Pace(10)
    found.first(1, 12.0, 9.0)
    after(clock, found, 12, 1)
    assert found.left() == pytest.approx(9 * 3.0)
    clock.s += 2
    assert found.left() == pytest.approx(9 * 3.0 - 2)  # it counts down


def test_a_candidate_that_takes_longer_than_expected_is_still_one_candidate(clock):
    found = Pace(3)
    found.first(1, 4.0, 0.0)
    after(clock, found, 4, 1)
    clock.s += 100
    assert found.left() == pytest.approx(4.0)  # those that follow it


def test_the_newer_half_counts_once_there_are_more(clock):
    found = Pace(100)
    found.first(1, 50.0, 45.0)
    for done, seconds in enumerate((50, 9, 9, 2, 2, 2), 1):
        after(clock, found, seconds, done)
    assert found.each() == pytest.approx(2.0)


def test_a_resumed_run_counts_what_is_left(clock):
    found = Pace(10, 8)
    found.first(1, 5.0, 1.0)
    after(clock, found, 5, 9)
    assert found.left() == pytest.approx(4.0)


def test_workers_share_what_is_left_and_end_in_bursts(clock):
    found = Pace(40, workers=4)
    found.first(1, 8.0, None)
    after(clock, found, 8, 1)
    assert found.left() == pytest.approx(39 * 2.0)
    for done in (2, 3, 4):
        after(clock, found, 0.01, done)
    assert found.each() == pytest.approx(2.0)  # not 0.01 s each
    for done, seconds in ((5, 4), (6, 0), (7, 0), (8, 0)):
        after(clock, found, seconds, done)
    assert found.each() == pytest.approx(1.0)


def test_the_limit_of_time_is_never_exceeded(clock):
    found = Pace(1000)
    found.first(1, 5.0, 0.0)
    after(clock, found, 5, 1)
    assert found.left(most_s=60.0) == 60.0


@pytest.mark.parametrize(
    ("strategy", "width", "seconds"),
    [("exact", 1, 120), ("exact", 4, 97.5), ("path", 4, 30), ("vmap", 8, 30), ("parts", 1, 30 + 9 * 1023 / 1024)],
)
def test_what_the_first_candidate_tells_of_ten_others(strategy, width, seconds):
    """9 s of compiling, 3 s of training; compiling goes on beside the training of others in a group."""
    assert later_seconds(strategy, width, 10, 9.0, 3.0) == pytest.approx(seconds)


def test_things_made_together_share_their_seconds(clock):
    found = Pace(32, later=functools.partial(later_seconds, "vmap", 8))
    after(clock, found, 28, 8)
    found.first(8, 28.0, 12.0, 10.0)
    assert found.left() == pytest.approx(24 * 2.0)


def test_what_begins_anew_and_what_goes_on_count_by_themselves(clock):
    """However they have come so far: after a promotion the time left is not that of promotions alone."""
    found = Pace(30, anew=0.5)
    for done, (seconds, goes_on) in enumerate([(20, False), (8, False), (1, True), (1, True)], 1):
        found.took(seconds, goes_on=goes_on)
        after(clock, found, seconds, done)
        if done == 2:
            found.first(1, 8.0, 6.0)
            assert found.each() == pytest.approx(2.0)  # by `later`, as nothing has gone on yet
    assert found.left() == pytest.approx(26 * (8 + 1) / 2)


def test_the_first_line():
    assert pace.first_line("first candidate", 12.3, 9.3, None) == "first candidate: 12 s, of which 9.3 s compiling"
    assert pace.first_line("first", 12.3, None, 180.0) == "first: 12 s, compiling included; about 3.0 min in all"
    assert [pace.duration(s) for s in (0.04, 9.96, 119, 121, 1300, 7300, 200_000)] == [
        *("0.0 s", "10 s", "119 s", "2.0 min", "22 min", "2.0 h", "2.3 days"),
    ]
