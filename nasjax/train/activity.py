"""What this process is doing, and how long it compiled: for the lines that tell a user, never for a result.

Loops that may take long say here where they are; a silent run's heartbeat reads it (`drive.heartbeat`). A process has
one such place, as the compiler's own events (`jax.monitoring`) are those of a process too, and code that is deep inside
a training need not be handed anything.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import jax

_EVENTS = "/jax/core/compile/"  # of tracing, lowering and compiling
_KEPT = 256  # intervals that a later one may still contain: calls of a program inside another's tracing


class Trained(NamedTuple):
    """Candidates that were trained or scored, with what that took."""

    number: int
    seconds: float
    compiled_s: float  # part of the seconds in which they waited for the compiler
    programs_s: float  # part of that for the programs of their networks, and not for what all candidates share
    goes_on: bool = False  # whether it was the further training of a candidate whose program was there


@dataclass
class _Place:
    """Where the process is. Each field is set in one assignment, so that another thread may read it."""

    subject: str = ""  # "trial 3"
    detail: tuple[str, float | None] = ("", None)  # "step 120 of 500"; since when, where the seconds are worth telling
    listeners: list[Callable[[Trained], None]] = field(default_factory=list)


class _Compiled(threading.local):
    """Seconds that a thread spent compiling; intervals inside others count once."""

    total: float = 0.0
    programs: float = 0.0  # part of it in blocks of `compiling`

    def __init__(self) -> None:
        self.recent: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def add(self, begin: float, end: float) -> None:
        while self.recent and self.recent[-1][0] >= begin:
            inner = self.recent.pop()
            self.total -= inner[1] - inner[0]
        if self.recent:
            begin = max(begin, self.recent[-1][1])
        self.recent.append((begin, end))
        self.total += end - begin


_place, _compiled = _Place(), _Compiled()


def doing(subject: str, detail: str = "") -> None:
    """Says what the process turns to, and what it does first."""
    _place.subject, _place.detail = subject, (detail, time.monotonic() if detail else None)


def at(detail: str) -> None:
    """Says how far it is."""
    _place.detail = (detail, None)


def now() -> str:
    """What the process is doing, in words; "" = nothing was said."""
    detail, since = _place.detail
    if since is not None and (seconds := time.monotonic() - since) >= 1:
        detail += f", {seconds:.0f} s"
    return ": ".join(part for part in (_place.subject, detail) if part)


@contextmanager
def compiling(what: str = "compiling") -> Iterator[None]:
    """A block that waits for the compiler, in this thread or others."""
    began = time.monotonic()
    _place.detail = (what, began)
    try:
        yield
    finally:
        _place.detail = ("", None)
        _compiled.add(began, time.monotonic())
        _compiled.programs += time.monotonic() - began


def compiled_s() -> float:
    """Seconds that this thread has waited for the compiler so far, since it was first asked; only differences count."""
    _listen()
    return _compiled.total


class Stopwatch:
    """Measures candidates from here on."""

    def __init__(self) -> None:
        self._began, self._compiled, self._programs = time.monotonic(), compiled_s(), _compiled.programs

    def trained(self, number: int, *, goes_on: bool = False) -> float:
        """Tells listeners that so many candidates were trained or scored since; returns the seconds."""
        seconds = time.monotonic() - self._began
        compiled, programs = compiled_s() - self._compiled, _compiled.programs - self._programs
        what = Trained(number, seconds, compiled, programs, goes_on)
        for listener in _place.listeners:
            listener(what)
        return seconds


@functools.cache
def _listen() -> None:
    def heard(event: str, duration_secs: float, **facts: str | int) -> None:
        if event.startswith(_EVENTS):
            end = time.monotonic()
            _compiled.add(end - duration_secs, end)

    jax.monitoring.register_event_duration_secs_listener(heard)


@contextmanager
def listening(listener: Callable[[Trained], None]) -> Iterator[None]:
    """Calls `listener` whenever candidates were trained in this process; in the thread that trained them."""
    _place.listeners.append(listener)
    try:
        yield
    finally:
        _place.listeners.remove(listener)
