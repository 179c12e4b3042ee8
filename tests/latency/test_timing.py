"""Times of calls: the median does not follow an outlier, and either clock shows what it says."""

import time

import pytest

from nasjax.latency import timing


def test_the_median_of_calls_and_their_spread(monkeypatch):
    """A clock that moves by what the call takes."""
    now, durations = [0.0], iter([9.0, *([0.002, 0.003, 0.004] * 6), 5.0, 0.003])
    monkeypatch.setitem(timing._CLOCKS, "wall", lambda: now[0])

    def call():
        now[0] += next(durations)

    found = timing.timed(call, seconds=0.0, least=20, warm_up_s=0.0)  # the first call is the warm-up
    assert found.calls == 20 and found.ms == pytest.approx(3.0)
    assert (found.low_ms, found.high_ms) == pytest.approx((2.0, 4.0)) and found.spread == pytest.approx(2 / 3)


def test_seconds_of_the_process_leave_out_what_it_waits():
    found = {
        clock: timing.timed(lambda: time.sleep(0.002), clock=clock, seconds=0.0, least=5, warm_up_s=0.0).ms
        for clock in ("wall", "cpu")
    }
    assert found["wall"] >= 2.0 and found["cpu"] < 1.0


def test_another_clock_is_refused():
    with pytest.raises(ValueError, match="unknown clock 'gpu'; choose wall or cpu"):
        timing.timed(lambda: None, clock="gpu")
