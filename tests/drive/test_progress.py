"""What a search shows: the first candidate, trials, the time left, and architectures on demand."""

import types

import pytest

from nasjax.drive import pace, progress
from nasjax.drive.recorded import Summary
from nasjax.train import activity
from nasjax.types import Budget, Metric, Watch

ROW = {"id": 0, "arch": {"space": "tiny"}, "fitness": 0.5, "cost_s": 12.0, "status": "ok"}


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(s=100.0)
    for module in (pace, progress):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: now.s))
    return now


def trained(*what, **more):
    """As a `Stopwatch` tells it."""
    for listener in activity._place.listeners:
        listener(activity.Trained(*what, what[-1], **more))


def summary(trials, workers=1, **more):
    found = Summary(trials, 0, ROW, None, ROW, 0.0, 0.0, 0, 1, workers, None)
    return found._replace(**more)


def test_the_first_candidate_is_told_before_its_group_has_ended(clock):
    said = []
    watch = Watch(say=said.append, began=90.0)
    with progress.progress(Budget(trials=32), Metric("accuracy"), watch) as told:
        clock.s += 12
        trained(1, 12.0, 9.0)
        assert said == ["first candidate: 12 s, of which 9.0 s compiling; about 115 s in all"]  # 22 s, and 31 times 3 s
        for _ in range(7):
            clock.s += 4
            trained(1, 4.0, 0.0)
        told(summary(8))
    assert said[1:] == ["trial 8/32: best 50.00%, about 96 s left"]
    trained(1, 4.0, 0.0)
    assert len(said) == 2  # it listens no longer


def test_where_programs_are_compiled_one_at_a_time_the_second_one_tells(clock):
    """The first is the process's first, too; and what goes on with a training compiles nothing."""
    said = []
    with progress.progress(
        Budget(trials=12), Metric("accuracy"), Watch(say=said.append), anew=0.5, second=True
    ) as told:
        for n, (seconds, compiled, goes_on) in enumerate([(16, 13, False), (1, 0, True), (8, 6, False)], 1):
            clock.s += seconds
            trained(1, seconds, compiled, goes_on=goes_on)
            told(summary(n))
    first, second = (line for line in said if "candidate" in line)
    assert first == "first candidate: 16 s, of which 13 s compiling"
    assert second == "second candidate: 8.0 s, of which 6.0 s compiling; about 66 s in all"  # 25 s, and 9 times 4.5 s
    assert said[-1] == "trial 3/12: best 50.00%, about 40 s left" and said[1] == "trial 1/12: best 50.00%"


def test_a_resumed_search_counts_from_where_it_was(clock):
    said = []
    with progress.progress(Budget(trials=10), Metric("accuracy"), Watch(say=said.append), done=8) as told:
        clock.s += 10
        trained(1, 10.0, 2.0)
        told(summary(9, resumed=8))
    assert said == [
        "first candidate: 10 s, of which 2.0 s compiling; about 18 s in all",
        "trial 9/10: best 50.00%, about 8.0 s left",
    ]


def test_with_workers_the_first_result_tells(clock):
    said = []
    with progress.progress(Budget(trials=9), Metric("accuracy"), Watch(say=said.append), workers=4) as told:
        clock.s += 15
        told(summary(1, 4, busy=4))
    assert said[0] == "first candidate: 12 s, compiling included; about 39 s in all"  # 15 s, and 8 of 12 s by four
    assert said[1] == "trial 1/9: best 50.00%, 4 of 4 workers busy, about 24 s left"


@pytest.mark.parametrize(("limit", "left"), [({"wall_s": 30.0}, "30 s"), ({"cost_s": 28.0}, "28 s")])
def test_limits_of_time_bound_the_time_left(clock, limit, left):
    said = []
    with progress.progress(Budget(trials=1000, **limit), Metric("accuracy"), Watch(say=said.append)) as told:
        clock.s += 10
        trained(1, 10.0, 0.0)
        told(summary(1))
    assert said[-1].endswith(f"about {left} left")


@pytest.mark.parametrize("verbose", [False, True])
def test_architectures_are_shown_on_demand(clock, verbose):
    said = []
    with progress.progress(Budget(trials=2), Metric("accuracy"), Watch(say=said.append, verbose=verbose)) as told:
        told(summary(1))
    assert said[1:] == ['  {"space": "tiny"}'] * verbose
