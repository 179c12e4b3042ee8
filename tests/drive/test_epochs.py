"""How far a training in epochs is, and the time left of it."""

import types

import pytest

from nasjax.drive import epochs
from nasjax.drive.epochs import Epochs
from nasjax.types import Watch


@pytest.fixture
def clock(monkeypatch):
    """Its moment `s`, and the seconds `compiled`."""
    now = types.SimpleNamespace(s=100.0, compiled=5.0)
    monkeypatch.setattr(epochs, "time", types.SimpleNamespace(monotonic=lambda: now.s))
    monkeypatch.setattr(epochs.activity, "compiled_s", lambda: now.compiled)
    return now


def epoch(clock, found, done, seconds, compiling=0.0, steps=4, of=4):
    clock.s += compiling  # in the first step
    clock.compiled += compiling
    for step in range(of - steps, of):
        clock.s += (seconds - compiling) / steps
        found.step(step + 1, of)
    left = found.ended(done)
    found.estimate()
    return left


def test_the_first_epoch_compiles_and_the_others_do_not(clock):
    said = []
    found = Epochs(Watch(say=said.append, began=90.0), (50,))
    assert found.words() == "epoch 1 of 50" and found.place(3) == "3/50"
    assert epoch(clock, found, 1, 12.0, 9.0) == ", about 2.5 min left"  # 49 times 3 s
    assert said == ["first epoch: 12 s, of which 9.0 s compiling; about 2.8 min in all"]  # with 10 s before it
    assert epoch(clock, found, 2, 5.0) == ", about 4.0 min left"  # 48 times 5 s: the first no longer counts
    assert len(said) == 1 and found.words() == "epoch 3 of 50, about 4.0 min left"


def test_what_the_first_step_prepares_counts_once(clock):
    """Tracing, say, of which the compiler tells nothing."""
    found = Epochs(Watch(), (11,))
    clock.s += 7
    assert epoch(clock, found, 1, 12.0, 9.0) == ", about 30 s left"  # 10 times 3 s


def test_a_training_without_steps_counts_what_it_did_not_compile(clock):
    found = Epochs(Watch(), (11,))
    clock.s, clock.compiled = clock.s + 12, clock.compiled + 9
    assert found.ended(1) == ", about 30 s left"


def test_a_training_without_steps_waits_for_its_second_epoch(clock):
    """Of the first one's 3 s that are not compiling, 2 are tracing."""
    said = []
    found = Epochs(Watch(say=said.append), (11,))
    clock.s, clock.compiled = clock.s + 12, clock.compiled + 9
    found.ended(1)
    found.estimate()
    assert not said
    clock.s += 1
    assert found.ended(2) == ", about 9.0 s left"
    found.estimate()
    assert said == ["first epoch: 12 s, of which 11 s compiling; about 22 s in all"]


def test_every_stage_compiles(clock):
    found = Epochs(Watch(), (2, 2, 2))
    assert epoch(clock, found, 1, 30.0, 20.0) == ", about 90 s left"  # 5 times 10 s, and twice 20 s
    epoch(clock, found, 2, 10.0)
    assert epoch(clock, found, 3, 40.0, 30.0) == ", about 50 s left"  # 3 times 10 s, and once 20 s


def test_an_epoch_that_another_process_began_counts_as_a_whole(clock):
    found = Epochs(Watch(), (10,), 4)
    assert epoch(clock, found, 5, 3.0, 1.0, steps=2) == ", about 20 s left"  # half of it took 2 s


def test_further_trainings_count(clock):
    found = Epochs(Watch(), (4,), more=2)
    assert epoch(clock, found, 1, 3.0, 2.0) == ", about 15 s left"  # 3 s, and twice 2 + 4 s


def test_a_long_first_epoch_tells_by_its_steps(clock):
    found = Epochs(Watch(), (2,))
    clock.s += 60  # compiling
    for step in range(41):
        assert (step <= 20) == (found.words() == "epoch 1 of 2")
        found.step(step + 1, 1000)
        clock.s += 0.5
    assert found.words() == "epoch 1 of 2, about 17 min left"  # 1959 times 0.51 s


def test_an_unknown_length_promises_nothing(clock):
    said = []
    found = Epochs(Watch(say=said.append), ())
    assert epoch(clock, found, 1, 12.0) == "" and not said and found.place(1) == "1" and found.words() == "epoch 2"
