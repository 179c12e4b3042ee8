"""Runtime `inline`: tasks run in this process, one at a time, while the caller waits for them.

An exception in a task becomes a `Failure`; a dead process is not isolated here. If the caller waits for a limited time,
a task that has not returned by then is left behind in a thread, which cannot be ended.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from nasjax.types import Failure, Runtime, Status, one_line

_LEFT: list[threading.Thread] = []  # of tasks that were left behind


def inline(work: Callable[[Any], Any]) -> Runtime:
    """A Runtime with one worker, the caller; a task runs in `wait`. `timeout_s` is not enforced: nothing can end it.

    Args:
      work: task -> result. It runs in a thread if the caller waits for a limited time.

    Example:
      >>> runtime = inline(abs)
      >>> ticket = runtime.submit(-2)
      >>> runtime.wait()
      [(0, 2)]
    """
    tickets = itertools.count()
    tasks: deque[tuple[int, Any]] = deque()
    running: list[tuple[int, threading.Thread, list[Any]]] = []  # at most one, which had not returned when `wait` did

    def submit(task: Any, timeout_s: float | None = None) -> int:
        del timeout_s
        tasks.append((next(tickets), task))
        return tasks[-1][0]

    def wait(seconds: float | None = None) -> list[tuple[int, Any]]:
        if not running:
            if not tasks:
                return []
            ticket, task = tasks.popleft()
            if seconds is None:
                return [(ticket, answer(work, task))]
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(answer(work, task)), daemon=True)
            running.append((ticket, thread, found))
            thread.start()
        ticket, thread, found = running[0]
        thread.join(seconds)
        if thread.is_alive():
            return []
        running.clear()
        return [(ticket, result) for result in found]

    def cancel(ticket: int) -> None:
        for other in [other for other in tasks if other[0] == ticket]:
            tasks.remove(other)
        if running and running[0][0] == ticket:
            _LEFT.append(running.pop()[1])

    def close() -> None:
        tasks.clear()
        _LEFT.extend(thread for _, thread, _ in running)
        running.clear()

    return Runtime(submit, wait, cancel, close, worker=lambda ticket: 0, workers=1, clock=time.monotonic)


def within(seconds: float | None, function: Callable[[], Any]) -> Any:
    """function(), within `seconds`; None = no limit.

    Raises:
      TimeoutError: it takes longer, and is left behind in its thread.
    """
    if seconds is None:
        return function()
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((function(), None))
        except Exception as error:
            found.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        _LEFT.append(thread)
        raise TimeoutError(f"took longer than {seconds:g} s")
    ((result, error),) = found
    if error is not None:
        raise error
    return result


def left_behind() -> bool:
    """Whether a task that was left behind still runs; this process then cannot exit normally."""
    return any(thread.is_alive() for thread in _LEFT)


def answer(work: Callable[[Any], Any], task: Any) -> Any:
    """work(task), or a Failure where it raises."""
    began = time.monotonic()
    try:
        return work(task)
    except Exception as error:
        return Failure(Status.FAILED, one_line(error), seconds=time.monotonic() - began)
