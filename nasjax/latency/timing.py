"""The time that calls take: several rounds over all of them, so that a slow spell of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Clock = Literal["wall", "cpu"]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
ROUNDS = 5
_QUANTILE = 0.1


class Timing(NamedTuple):
    """Milliseconds of a call.

    ms: when nothing disturbs it: the 10 % quantile of the calls of a round, and of the rounds the median. Other
      programs and interrupts make calls longer, never shorter, and as often as they like.
    rounds_ms: that quantile by round.
    median_ms, high_ms: of the calls of all rounds, the median and the 90 % quantile.
    calls: in all rounds.
    """

    ms: float
    rounds_ms: tuple[float, ...]
    median_ms: float
    high_ms: float
    calls: int

    @property
    def spread(self) -> float:
        """(slowest round - fastest round) / ms."""
        return (max(self.rounds_ms) - min(self.rounds_ms)) / self.ms


def timed(
    opened: Sequence[Callable[[], Callable[[], Any]]],
    *,
    clock: Clock = "wall",
    seconds: float = 0.5,
    rounds: int = ROUNDS,
    least: int = 4,
    most: int = 400,
    warm_up_s: float = 0.02,
    say: Callable[[str], None] = lambda line: None,
) -> list[Timing]:
    """Times calls that return when their work is done: a round calls each for a while, one after the other.

    Args:
      opened: each gives a call that is timed; asked anew in each round, as a program that has waited for others may be
        slower than when it was new (its memory is moved, say).
      clock: "wall", or "cpu" for the seconds of all threads of this process. With one thread the latter is what the
        wall clock shows on an idle core, whatever else the machine does.
      seconds: for which each is called, over all rounds.
      rounds: over all calls.
      least, most: calls of each a round, whatever the seconds are.
      warm_up_s: seconds of calls before them, at least one call.
      say: hears a line a round.

    Raises:
      ValueError: an unknown clock.
    """
    if clock not in CLOCKS:
        raise ValueError(f"unknown clock {clock!r}; choose {' or '.join(CLOCKS)}")
    samples: list[list[np.ndarray]] = [[] for _ in opened]
    for n in range(rounds):
        for make, found in zip(opened, samples, strict=True):
            found.append(_round(make(), CLOCKS[clock], seconds / rounds, least, most, warm_up_s))
        say(f"round {n + 1} of {rounds}")
    return [_timing(found) for found in samples]


def _round(
    call: Callable[[], Any], now: Callable[[], float], seconds: float, least: int, most: int, warm_up_s: float
) -> np.ndarray:
    """Milliseconds of each call, f[N]."""
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
    return np.array(samples)


def _timing(rounds: Sequence[np.ndarray]) -> Timing:
    of_rounds = tuple(float(np.quantile(samples, _QUANTILE)) for samples in rounds)
    together = np.concatenate(rounds)
    median, high = np.quantile(together, (0.5, 0.9))
    return Timing(float(np.median(of_rounds)), of_rounds, float(median), float(high), len(together))
