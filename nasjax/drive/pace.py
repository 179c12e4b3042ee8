"""How long a run still takes, told from what was measured in it; before anything was measured nothing is told."""

from __future__ import annotations

import bisect
import math
import statistics
import time
from collections.abc import Callable

# (how many follow; of the first one: seconds of compiling its own programs, of all but compiling) -> seconds they take
Later = Callable[[int, float, float], float]


def compiled_once(count: int, programs_s: float, rest_s: float) -> float:
    """Of things that share one program."""
    return count * rest_s


def duration(seconds: float) -> str:
    """Seconds in words, to two digits.

    Example:
      >>> duration(7.31), duration(48.0), duration(200.0), duration(9000.0)
      ('7.3 s', '48 s', '3.3 min', '2.5 h')
    """
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{seconds < 10 * size:d}f} {unit}"
    return f"{seconds:.{seconds < 9.95:d}f} s"


def first_line(
    what: str, seconds: float, compiled_s: float | None, whole_s: float | None, whole: str = "in all"
) -> str:
    """What the first one took, and the whole by it.

    Example:
      >>> first_line("first candidate", 12.0, 9.0, 180.0)
      'first candidate: 12 s, of which 9.0 s compiling; about 3.0 min in all'

    Args:
      what: was measured, "first candidate".
      seconds: that it took.
      compiled_s: the part of it that the compiler took; None = not known.
      whole_s: the estimate of the whole; None = there is none.
      whole: of what that is.
    """
    of = ", compiling included" if compiled_s is None else f", of which {duration(compiled_s)} compiling"
    return f"{what}: {duration(seconds)}{of}{f'; about {duration(whole_s)} {whole}' if whole_s is not None else ''}"


class Pace:
    """The time left of a run of `total` like things, of which `done` were there before.

    The first one counts without what is needed once. As soon as there are more, the newer half of them counts. Workers
    end theirs in bursts, so with workers it takes two of each. Where only a part of them, `anew`, begins anew and the
    others go on from what an earlier one left, the two kinds count by themselves, each as often as it comes.
    """

    def __init__(
        self, total: int | None, done: int = 0, *, later: Later = compiled_once, workers: int = 1, anew: float = 1.0
    ) -> None:
        self._total, self._later, self._workers, self._anew = total, later, workers, anew
        self._took: tuple[list[float], list[float]] = ([], [])  # seconds of what began anew, and of what went on
        self._done, self._moments = [done], [time.monotonic()]  # how many were done at which moment
        self._each: float | None = None  # seconds per thing of the whole run, by the first

    @property
    def done(self) -> int:
        """How many are."""
        return self._done[-1]

    @property
    def measured(self) -> bool:
        """Whether `first` was told."""
        return self._each is not None

    @property
    def began(self) -> float:
        """The moment at which this pace began."""
        return self._moments[0]

    def first(self, count: int, seconds: float, compiled_s: float | None, programs_s: float | None = None) -> None:
        """The first things, made together; `programs_s` is the part of compiling for what is their own, None = all."""
        compiled = compiled_s or 0.0
        own = compiled if programs_s is None else programs_s
        follow = 1 if self._total is None else max(1, self._total - self.done)
        self._each = self._later(follow, own / count, max(0.0, seconds - compiled) / count) / follow / self._workers

    def reached(self, done: int) -> None:
        """So many are done now, those from before among them."""
        if done > self.done:
            self._done.append(done)
            self._moments.append(time.monotonic())

    def took(self, seconds: float, *, goes_on: bool) -> None:
        """What one of them took, and of which kind it is; told before `reached`."""
        self._took[goes_on].append(seconds)

    def each(self) -> float | None:
        """Seconds per thing from now on; None = nothing was measured."""
        if self._anew < 1:
            anew, further = self._took[0][1:], self._took[1]  # not the first one, which paid what is needed once
            if not anew or not further:
                return self._each
            means = [statistics.fmean(seconds[len(seconds) // 2 :]) for seconds in (anew, further)]
            return (self._anew * means[0] + (1 - self._anew) * means[1]) / self._workers
        new = self.done - self._done[0]
        if len(self._done) < 3 or new < 2 * self._workers:
            return self._each
        window = max(self._workers, new // 2)
        at = max(1, bisect.bisect_right(self._done, self.done - window) - 1)  # not before the first one's end
        return (self._moments[-1] - self._moments[at]) / (self.done - self._done[at])

    def left(self, most_s: float = math.inf) -> float | None:
        """Seconds left, at most `most_s`; None = not known."""
        each = self.each()
        if each is None or self._total is None:
            return most_s if math.isfinite(most_s) else None
        since = min(each, time.monotonic() - self._moments[-1])
        return min(most_s, max(0.0, (self._total - self.done) * each - since))


def left_words(seconds: float | None) -> str:
    """The time left as the end of a line; "" where it is not known, or less than a second."""
    return f", about {duration(seconds)} left" if seconds is not None and seconds >= 1 else ""
