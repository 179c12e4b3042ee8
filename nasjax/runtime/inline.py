"""Runtime `inline`: tasks run at once, in this process.

An exception in a task becomes a `Failure`; a hang or a dead process is not isolated here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from nasjax.types import Failure, Runtime, Status, one_line


def inline(work: Callable[[Any], Any]) -> Runtime:
    """A Runtime with one worker, the caller. `timeout_s` is not enforced: nothing can interrupt the caller's own work.

    Args:
      work: task -> result.

    Example:
      >>> runtime = inline(abs)
      >>> ticket = runtime.submit(-2)
      >>> runtime.wait()
      [(0, 2)]
    """
    tickets = itertools.count()
    results: dict[int, Any] = {}

    def submit(task: Any, timeout_s: float | None = None) -> int:
        del timeout_s
        ticket = next(tickets)
        results[ticket] = answer(work, task)
        return ticket

    def wait() -> list[tuple[int, Any]]:
        ended = list(results.items())
        results.clear()
        return ended

    def cancel(ticket: int) -> None:
        results.pop(ticket, None)

    return Runtime(submit, wait, cancel, results.clear, worker=lambda ticket: 0, workers=1, clock=time.monotonic)


def answer(work: Callable[[Any], Any], task: Any) -> Any:
    """work(task), or a Failure where it raises."""
    try:
        return work(task)
    except Exception as error:
        return Failure(Status.FAILED, one_line(error))
