"""The time that a call takes: warm-up, then its median and spread over many calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

Clock = Literal["wall", "cpu"]
_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Timing(NamedTuple):
    """Milliseconds of a call: the median, the 10 % and the 90 % quantile, and over how many calls."""

    ms: float
    low_ms: float
    high_ms: float
    calls: int

    @property
    def spread(self) -> float:
        """(90 % quantile - 10 % quantile) / median."""
        return (self.high_ms - self.low_ms) / self.ms


def timed(
    call: Callable[[], Any],
    *,
    clock: Clock = "wall",
    seconds: float = 1.0,
    least: int = 20,
    most: int = 2000,
    warm_up_s: float = 0.2,
) -> Timing:
    """Times a call that returns when its work is done.

    Args:
      call: what is timed.
      clock: "wall", or "cpu" for the seconds of all threads of this process. With one thread the latter is what the
        wall clock shows on an idle core, whatever else the machine does.
      seconds: for which it is called, in all.
      least, most: calls, whatever the seconds are.
      warm_up_s: seconds of calls before, at least one call.

    Raises:
      ValueError: an unknown clock.
    """
    if clock not in _CLOCKS:
        raise ValueError(f"unknown clock {clock!r}; choose {' or '.join(_CLOCKS)}")
    now = _CLOCKS[clock]
    begin = time.perf_counter()
    while True:
        call()
        if time.perf_counter() - begin >= warm_up_s:
            break
    samples: list[float] = []
    begin = time.perf_counter()
    while len(samples) < least or (len(samples) < most and time.perf_counter() - begin < seconds):
        start = now()
        call()
        samples.append(1000 * (now() - start))
    low, middle, high = np.quantile(samples, (0.1, 0.5, 0.9))
    return Timing(float(middle), float(low), float(high), len(samples))
