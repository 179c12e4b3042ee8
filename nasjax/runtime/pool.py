"""What runtimes with workers of their own share: places for workers, one task at a time in each, and deadlines.

A worker is started when there is something for it to do. One that dies or takes too long is replaced, and what it did
is a `Failure`.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nasjax.types import Failure, Runtime, Status

STARTS = 3  # failed starts in a row before giving up

# ("ready", facts), ("refused", kind of error, line), ("died", why[, whether it was preempted]) or (ticket, result)
Message = tuple[Any, ...]


class Link(Protocol):
    """A worker that was started."""

    def send(self, ticket: int, task: Any) -> None:
        """Gives it a task; it must be ready and have no other."""

    def stop(self) -> list[Message]:
        """Ends it at once, whatever it does; returns its last messages."""


@dataclass
class _Worker:
    number: int
    link: Any = None  # to the process or actor; None = there is none
    ready: bool = False
    begun: int = 0  # its place in the order of all starts, from 1


@dataclass
class _Place:
    """Where one task at a time runs."""

    number: int
    worker: _Worker
    ticket: int | None = None
    task: Any = None
    timeout_s: float | None = None
    since: float | None = None  # when the worker was given the task

    @property
    def deadline(self) -> float | None:
        return None if self.since is None or self.timeout_s is None else self.since + self.timeout_s

    @property
    def seconds(self) -> float:
        """How long the worker has had the task."""
        return 0.0 if self.since is None else time.monotonic() - self.since

    def free(self) -> None:
        self.ticket = self.task = self.since = None


def pool(
    start: Callable[[int], Link],
    heard: Callable[[Sequence[Any], float | None], list[tuple[Any, Message]]],
    *,
    workers: int,
    logs: str,
    agree: Sequence[str] = (),
) -> tuple[Runtime, Any]:
    """A Runtime of workers, of which the first is started at once.

    Args:
      start: number of a worker -> its link; the worker will say that it is ready, or what is wrong.
      heard: (links, seconds) -> their messages, [(link, message)] in the order in which they were sent; at least one
        unless the seconds pass before.
      workers: how many.
      logs: where a worker writes what it prints, for the errors; "{}" is its number.
      agree: names of facts, in which all workers must be like the first.

    Returns:
      The Runtime, and the facts of the first worker, once it is ready.

    Raises:
      ValueError or FileNotFoundError: as a worker raised it while it started; ValueError: two workers do not agree.
      OSError: three workers in a row die while they start; those that die together, with a machine, count once.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    places = [_Place(number, _Worker(number)) for number in range(workers)]
    tickets, served, results = itertools.count(), {}, deque()  # type: ignore[var-annotated]
    begun = counted = failed_starts = 0  # counted: value of begun when a failed start was last counted
    first_facts, first_death = None, ""  # of starts that fail in a row

    def begin(worker: _Worker) -> None:
        nonlocal begun
        begun += 1
        worker.link, worker.ready, worker.begun = start(worker.number), False, begun

    def stop(place: _Place) -> list[Message]:
        """Ends a place's worker and frees the place; returns the worker's last messages."""
        link, place.worker.link, place.worker.ready = place.worker.link, None, False
        place.free()
        return [] if link is None else link.stop()

    def hand(place: _Place) -> None:
        """Sends a worker its task, once it is ready for one."""
        if place.worker.ready and place.ticket is not None:
            place.since = time.monotonic()
            place.worker.link.send(place.ticket, place.task)

    def take_over() -> None:
        """A worker that has nothing to do takes the place of one that is still starting, or waits for a machine."""
        for place in places:
            if place.ticket is not None and not place.worker.ready:
                idle = next((one for one in places if one.worker.ready and one.ticket is None), None)
                if idle is None:
                    return
                place.worker, idle.worker = idle.worker, place.worker
                hand(place)

    def submit(task: Any, timeout_s: float | None = None) -> int:
        ticket = next(tickets)
        place = min((one for one in places if one.ticket is None), key=lambda one: (not one.worker.ready, one.number))
        served[ticket] = place.number
        place.ticket, place.task, place.timeout_s = ticket, task, timeout_s
        if place.worker.link is None:
            begin(place.worker)
        hand(place)
        return ticket

    def take(place: _Place, message: Message) -> Any:
        """Handles a worker's message; returns the facts of one that has just become ready, else None."""
        nonlocal counted, failed_starts, first_facts, first_death
        match message:
            case ("died", why, *preempted):
                number, ticket, was_ready = place.worker.number, place.ticket, place.worker.ready
                lost = Failure(Status.LOST, why, not was_ready or any(preempted), place.seconds)
                stop(place)
                if ticket is not None:
                    results.append((ticket, lost))
                if not was_ready and not any(preempted) and place.worker.begun > counted:
                    first_death = first_death if failed_starts else f"({why}); see {logs.format(number)}"
                    failed_starts, counted = failed_starts + 1, begun
                if failed_starts >= STARTS:
                    raise OSError(f"workers die while they start {first_death}")
            case ("refused", kind, text):
                raise {"ValueError": ValueError, "FileNotFoundError": FileNotFoundError}.get(kind, OSError)(text)
            case ("ready", facts):
                first_facts = facts if first_facts is None else first_facts
                for name in agree:
                    if (own := facts.get(name)) != (other := first_facts.get(name)):
                        number = place.worker.number
                        raise ValueError(f"machines differ: {name} of worker {number} is {own}, of the first {other}")
                place.worker.ready, failed_starts = True, 0
                hand(place)
                return facts
            case ticket, result:
                results.append((ticket, result))
                if place.ticket == ticket:
                    place.free()
        return None

    def listen(seconds: float | None) -> list[Any]:
        """Handles all messages; returns the facts of workers that have become ready."""
        facts = []
        for link, message in heard([place.worker.link for place in places if place.worker.link is not None], seconds):
            # Looked up by link, as a worker that died or was stopped meanwhile has no place any more.
            for place in places:
                if place.worker.link is link:
                    facts.append(take(place, message))
                    break
        take_over()
        return [one for one in facts if one is not None]

    def wait(seconds: float | None = None) -> list[tuple[int, Any]]:
        until = None if seconds is None else time.monotonic() + seconds
        while not results and any(place.ticket is not None for place in places):
            moments = [moment for moment in (until, *(place.deadline for place in places)) if moment is not None]
            listen(max(0.0, min(moments) - time.monotonic()) if moments else None)
            for place in places:
                if place.deadline is not None and time.monotonic() >= place.deadline:
                    ticket, limit = place.ticket, place.timeout_s
                    late = [message for message in stop(place) if message[0] == ticket]
                    why = f"took longer than {limit:g} s"
                    results.append((ticket, Failure(Status.TIMEOUT, why, seconds=limit or 0.0)))
                    results.extend(late)
            if until is not None and time.monotonic() >= until:
                break
        ended = list(results)
        results.clear()
        return ended

    def cancel(ticket: int) -> None:
        for place in places:
            if place.ticket == ticket:
                stop(place)

    def close() -> None:
        for place in places:
            stop(place)

    first = places[0].worker
    try:
        while not (facts := listen(None) if first.link is not None else []):
            if first.link is None:  # not started yet, or it died: `take` counts the failures
                begin(first)
    except BaseException:
        close()
        raise
    return Runtime(submit, wait, cancel, close, served.__getitem__, workers, time.monotonic), facts[0]
