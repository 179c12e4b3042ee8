"""What a process says of itself."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from nasjax.train import activity


def test_compiling_is_measured_and_running_is_not():
    before = activity.compiled_s()
    program = jax.jit(lambda x: jnp.sin(x) * 3)
    program(jnp.ones(7))
    compiled = activity.compiled_s()
    assert compiled > before
    program(jnp.ones(7))
    assert activity.compiled_s() == pytest.approx(compiled, abs=1e-3)


def test_what_lies_inside_another_interval_counts_once():
    spent = activity._Compiled()
    for begin, end in ((2, 3), (4, 5), (1, 6), (7, 8), (5.5, 8.5)):
        spent.add(begin, end)
    assert spent.total == pytest.approx(7.5)  # 1 to 8.5


def test_waiting_for_a_compiler_in_another_thread_counts_and_is_said():
    before = activity.compiled_s()
    activity.doing("trial 3")
    with activity.compiling():
        time.sleep(0.02)
        assert activity.now() == "trial 3: compiling"
    assert activity.compiled_s() - before >= 0.02 and activity.now() == "trial 3"
    found = []
    thread = threading.Thread(target=lambda: found.append(activity.compiled_s()))
    thread.start()
    thread.join()
    assert found == [0.0]  # a thread has its own


def test_listeners_hear_what_was_trained_while_they_listen():
    heard = []
    with activity.listening(heard.append):
        watch = activity.Stopwatch()
        jax.jit(lambda x: jnp.cos(x) * 5)(jnp.ones(9))  # what all share
        with activity.compiling():
            time.sleep(0.02)
        assert watch.trained(8) == heard[0].seconds
    watch.trained(1)
    assert len(heard) == 1 and heard[0].number == 8
    assert 0.02 <= heard[0].programs_s < heard[0].compiled_s <= heard[0].seconds
