"""Runtime `simulated`: workers on a virtual clock, with given durations, to test and study asynchronous searches."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any

from nasjax.runtime.inline import answer
from nasjax.types import Failure, Runtime, Status


def simulated(work: Callable[[Any], Any], duration: Callable[[Any, Any], float], workers: int = 1) -> Runtime:
    """A Runtime whose tasks take virtual time: a search over it runs as on `workers` machines, in a moment.

    Args:
      work: task -> result; it runs when the task is submitted, in this process.
      duration: (task, result) -> virtual seconds. A task that would take longer than its time-out ends there.
      workers: how many tasks run at a time.

    Example:
      >>> runtime = simulated(abs, lambda task, result: float(result), workers=2)
      >>> runtime.submit(-5), runtime.submit(-3)
      (0, 1)
      >>> runtime.wait(), runtime.clock()
      ([(1, 3)], 3.0)
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    tickets, now = itertools.count(), 0.0
    running: dict[int, tuple[int, Any]] = {}  # ticket -> worker, result
    ends: list[tuple[float, int]] = []  # a heap of (when, ticket); of cancelled tickets, too
    free = list(range(workers))  # a heap: the lowest number works first
    served: dict[int, int] = {}

    def submit(task: Any, timeout_s: float | None = None) -> int:
        ticket = next(tickets)
        result = answer(work, task)
        seconds = duration(task, result)
        if timeout_s is not None and seconds > timeout_s:
            seconds = timeout_s
            result = Failure(Status.TIMEOUT, f"took longer than {timeout_s:g} s", seconds=timeout_s)
        served[ticket] = heapq.heappop(free)
        running[ticket] = (served[ticket], result)
        heapq.heappush(ends, (now + seconds, ticket))
        return ticket

    def wait(seconds: float | None = None) -> list[tuple[int, Any]]:
        nonlocal now
        until = math.inf if seconds is None else now + seconds
        while ends:
            at, ticket = ends[0]
            if ticket in running and at > until:
                now = until
                return []
            heapq.heappop(ends)
            if ticket in running:
                now, (worker, result) = at, running.pop(ticket)
                heapq.heappush(free, worker)
                return [(ticket, result)]
        return []

    def cancel(ticket: int) -> None:
        if ticket in running:
            heapq.heappush(free, running.pop(ticket)[0])

    def close() -> None:
        for ticket in list(running):
            cancel(ticket)

    return Runtime(submit, wait, cancel, close, served.__getitem__, workers, lambda: now)
