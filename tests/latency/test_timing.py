"""Times of calls: a busy machine does not move them, and either clock shows what it says."""

import time

import pytest

from nasjax.latency import timing


def test_a_slow_spell_moves_no_time_and_is_seen_in_the_rounds(monkeypatch):
    """A clock that moves by what the calls take: 2 ms and 3 ms, most calls disturbed, and one round of five slow."""
    now, turn, rounds = [0.0], iter(range(10**6)), []
    monkeypatch.setitem(timing.CLOCKS, "wall", lambda: now[0])

    def of(seconds):
        def call():
            n = next(turn)
            slow = 3 if 40 <= n < 80 else 1  # the second round
            now[0] += slow * seconds * (1 if n % 5 == 0 else 1.7)

        return lambda: rounds.append(seconds) or call

    heard = []
    found = timing.timed([of(0.002), of(0.003)], seconds=0.0, least=19, warm_up_s=0.0, say=heard.append)
    assert [one.ms for one in found] == pytest.approx([2.0, 3.0]) and {one.calls for one in found} == {95}
    assert found[0].rounds_ms == pytest.approx((2.0, 6.0, 2.0, 2.0, 2.0)) and found[0].spread == pytest.approx(2.0)
    assert found[0].median_ms == pytest.approx(3.4) and found[0].high_ms == pytest.approx(3.4 * 3)
    assert rounds == [0.002, 0.003] * 5 and heard[-1] == "round 5 of 5"


def test_seconds_of_the_process_leave_out_what_it_waits():
    short = {"seconds": 0.0, "rounds": 1, "least": 5, "warm_up_s": 0.0}
    found = {}
    for clock in ("wall", "cpu"):
        (one,) = timing.timed([lambda: lambda: time.sleep(0.002)], clock=clock, **short)
        found[clock] = one.ms
    assert found["wall"] >= 2.0 and found["cpu"] < 1.0


def test_another_clock_is_refused():
    with pytest.raises(ValueError, match="unknown clock 'gpu'; choose wall or cpu"):
        timing.timed([lambda: lambda: None], clock="gpu")
