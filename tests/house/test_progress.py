"""The tests' own progress line."""

import time
import types

from tools.progress import Progress


def test_a_line_says_how_many_tests_are_done():
    lines = []
    terminal = types.SimpleNamespace(write_line=lambda line, flush: lines.append(line))
    config = types.SimpleNamespace(pluginmanager=types.SimpleNamespace(get_plugin=lambda name: terminal))
    progress = Progress(config, seconds=0.01)
    for when in ("setup", "call", "teardown"):
        progress.pytest_runtest_logreport(types.SimpleNamespace(when=when))
    progress.pytest_sessionstart()
    deadline = time.monotonic() + 10
    while not lines and time.monotonic() < deadline:
        time.sleep(0.01)
    progress.pytest_sessionfinish()
    assert lines[0].strip() == "1 tests done after 0 s"
