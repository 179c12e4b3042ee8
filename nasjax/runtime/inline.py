"""Runtime `inline`: tasks run at once, in this process.

An exception in a task becomes a `Failure`; a hang or a dead process is not isolated here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from nasjax.types import Failure, Runtime, Status, one_line


def inline() -> Runtime:
    """A Runtime with one worker, the caller. `timeout_s` is not enforced: nothing can interrupt the caller's own work.

    Example:
      >>> runtime = inline()
      >>> done, pending = runtime.wait([runtime.submit(max, 1, 2)])
      >>> done[0][1], pending
      (2, [])
    """
    tickets = itertools.count()
    results: dict[int, Any] = {}

    def submit(fn: Callable[..., Any], *args: Any, timeout_s: float | None = None) -> int:
        del timeout_s
        ticket = next(tickets)
        try:
            results[ticket] = fn(*args)
        except Exception as error:
            results[ticket] = Failure(Status.FAILED, one_line(error))
        return ticket

    def wait(pending: list[int], timeout_s: float | None = None) -> tuple[list[tuple[int, Any]], list[int]]:
        del timeout_s
        return [(ticket, results.pop(ticket)) for ticket in pending], []

    def cancel(ticket: int) -> None:
        results.pop(ticket, None)

    return Runtime(submit, wait, cancel, results.clear)
