"""A silent run says what it does; a talking one, a finished one and one without progress say nothing more."""

import threading
import time

import pytest

from nasjax.commands.searching import watching
from nasjax.drive.heartbeat import far, heartbeat
from nasjax.train import activity
from nasjax.types import Watch


def beats():
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_silence_is_broken_by_what_the_run_does_and_how_far_it_is():
    said = []
    with heartbeat(Watch(say=said.append), "reading the data", 0.05):
        until(lambda: said)
        assert said[0] == "  reading the data"
        activity.doing("trial 3")
        activity.at("step 120 of 500")
        with far(lambda: "3 of 64 trials done"):
            until(lambda: "  trial 3: step 120 of 500; 3 of 64 trials done" in said)
        until(lambda: said[-1] == "  trial 3: step 120 of 500")


def test_a_run_that_talks_is_not_interrupted():
    said = []
    with heartbeat(Watch(say=said.append), "x", 0.5) as watch:
        for _ in range(40):
            watch.say("line")
            time.sleep(0.02)
    assert said == ["line"] * 40


def test_nothing_is_said_after_the_block_however_it_ends():
    said = []
    with pytest.raises(KeyboardInterrupt), heartbeat(Watch(say=said.append), "x", 0.02):
        until(lambda: said)
        raise KeyboardInterrupt
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count and not beats()


def test_a_reader_that_is_gone_ends_the_lines_and_not_the_run():
    calls = []

    def gone(line):
        calls.append(line)
        raise BrokenPipeError

    with heartbeat(Watch(say=gone), "x", 0.02):
        until(lambda: not beats())
    assert len(calls) == 1


def test_without_progress_there_is_no_heartbeat():
    with watching(False, None) as watch:
        assert not beats() and watch.began is None
    with watching(True, None, verbose=True) as watch:
        assert len(beats()) == 1 and watch.verbose and watch.began is not None
    assert not beats()
