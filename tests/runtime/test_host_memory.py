"""A process that trains keeps the memory that it frees: looked at from outside, by its page faults."""

import json
import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys, threading
import numpy as np
from nasjax.runtime.host_memory import keep_freed_memory

kept = [keep_freed_memory() for _ in range(2)] if sys.argv[1] == "keep" else []
def work():
    for _ in range(20):
        np.ones(count)  # dropped at once
def in_a_thread():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
run, count = (in_a_thread, 12_000_000) if sys.argv[2] == "thread" else (work, 2_000_000)  # 96 or 16 MB
run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
run()
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


def told(what, where="here", **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, where], env=clean | environment, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_freed_memory_is_used_again():
    (_, without), (kept, with_it) = told("leave", MALLOC_MMAP_THRESHOLD_="131072"), told("keep")
    assert kept == [True, True]
    assert with_it < 100 < 1_000 < without


def test_threads_use_it_again_too():
    """Arrays that no arena but the main one has room for, where there is no other."""
    assert told("keep", "thread", MALLOC_ARENA_MAX="1")[1] < 100 < 1_000 < told("keep", "thread")[1]


@pytest.mark.parametrize(
    "chosen", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}]
)
def test_what_the_user_set_stays(chosen):
    assert told("keep", **chosen)[0] == [False, False]
