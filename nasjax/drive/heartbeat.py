"""A line when a run has been silent for a while: what it is doing, how far it is, what is left.

Compiling blocks the thread that runs, so the line comes from another one. It only reads what was said
(`train.activity`), takes no signals, and has ended when the block has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nasjax.train import activity
from nasjax.types import Watch

SILENT_S = 12.0  # so that with a busy machine no silence is longer than 15 s


class _Run:
    """How far the run is, in words; "" = it did not say."""

    far: Callable[[], str] = staticmethod(lambda: "")


_run = _Run()


@contextmanager
def far(words: Callable[[], str]) -> Iterator[None]:
    """Heartbeats in this block end with words() of how far the run is."""
    before, _run.far = _run.far, words
    try:
        yield
    finally:
        _run.far = before


@contextmanager
def heartbeat(watch: Watch, first: str, silent_s: float = SILENT_S) -> Iterator[Watch]:
    """`watch` with a line after every `silent_s` seconds of silence in this block; none after the block.

    `first` is what the process does until something else is said.
    """
    activity.doing(first)
    lock, over, last = threading.Lock(), threading.Event(), time.monotonic()

    def say(line: str) -> None:
        nonlocal last
        with lock:
            last = time.monotonic()
            watch.say(line)

    def beat() -> None:
        nonlocal last
        while not over.wait(max(0.0, last + silent_s - time.monotonic())):
            with lock:
                if time.monotonic() - last < silent_s or over.is_set():
                    continue
                last = time.monotonic()
                words = "; ".join(part for part in (activity.now(), _run.far()) if part)
                try:
                    watch.say(f"  {words or 'at work'}")
                except OSError:  # nobody reads any more; the run's next line says so
                    return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield watch._replace(say=say)
    finally:
        over.set()
        thread.join()
