"""How far a training in epochs is and, once the first epoch was measured, how long it still takes."""

from __future__ import annotations

import itertools
import time

from nasjax.drive.pace import first_line, left_words
from nasjax.train import activity
from nasjax.types import Watch

_SETTLED = 20  # steps after which their rate is told: the host waits for the device about as often
_WORTH_S = 5.0  # a shorter training is over before its estimate is read


class Epochs:
    """The epochs of a training.

    The first one of a stage compiles. Those to come take what the newer half of the others took without compiling, and
    each stage to come what the first epoch compiled.

    Args:
      watch: where the first estimate is said.
      lengths: epochs of each stage; () = not known.
      done: epochs of an interrupted training that goes on.
      more: trainings like this one that follow.
      whole: what the estimate is of; where more follows that is not measured yet, this training alone.
    """

    def __init__(
        self, watch: Watch, lengths: tuple[int, ...], done: int = 0, *, more: int = 0, whole: str = "in all"
    ) -> None:
        self._watch, self._lengths, self._done, self._more, self._whole = watch, lengths, done, more, whole
        self._began = self._since = time.monotonic()
        self._compiled = activity.compiled_s()
        self._took: list[float] = []  # seconds of every epoch without compiling
        self._first = 0.0  # seconds of the first one
        self._once = 0.0  # seconds that it took longer: for compiling, and what goes with it
        self._blurred = False  # whether its own seconds hold what else goes with compiling
        self._steps, self._rest = 0, (0, 0)  # steps of this epoch in this process; steps done of it, and in all
        self._second: tuple[float, float] | None = None  # after the first step: moment, seconds of compiling so far

    def step(self, done: int, steps: int) -> None:
        """After a step: how many of the epoch are done."""
        self._steps, self._rest = self._steps + 1, (done, steps)
        if self._second is None:
            self._second = time.monotonic(), activity.compiled_s()
        activity.at(f"step {done} of {steps}" if done < steps else "validation")

    def ended(self, done: int) -> str:
        """After an epoch: the time left, in words that go behind its line; "" = it is not known."""
        now, compiled = time.monotonic(), activity.compiled_s()
        seconds, own = now - self._since, now - self._since - (compiled - self._compiled)
        if not self._took and self._second is not None and self._steps > 1:  # the first step also prepares and traces
            at, before = self._second
            own = min(own, (now - at - (compiled - before)) * self._steps / (self._steps - 1))
        own = max(0.0, own)
        if not self._took:
            self._first, self._once, self._blurred = seconds, seconds - own, self._second is None
        elif len(self._took) == 1 and self._blurred:
            self._once = max(0.0, self._first - own)
        part = self._steps / self._rest[1] if self._steps else 1.0  # another process may have begun the epoch
        self._took.append(own / part)
        self._done, self._since, self._compiled = done, now, compiled
        self._steps, self._rest = 0, (0, 0)
        activity.at("")
        return left_words(self._left())

    def estimate(self) -> None:
        """After an epoch's line, once: what the first one took, and the whole by it.

        Where no step was seen, the first one's tracing looks like training: then the second one is waited for, unless
        the first took longer than compiling.
        """
        wait = self._blurred and self._took[0] < self._once
        if len(self._took) != 1 + wait or (left := self._left()) is None:
            return
        began = self._began if self._watch.began is None or self._whole != "in all" else self._watch.began
        whole = self._since - began + left
        if whole >= _WORTH_S:
            self._watch.say(first_line("first epoch", self._first, self._once, whole, self._whole))

    def place(self, done: int) -> str:
        """ "3/50"."""
        return f"{done}/{sum(self._lengths)}" if self._lengths else str(done)

    def words(self) -> str:
        """For a heartbeat."""
        of = f" of {sum(self._lengths)}" if self._lengths else ""
        return f"epoch {self._done + 1}{of}{left_words(self._left())}"

    def _left(self) -> float | None:
        """Seconds; None = not known."""
        if not self._lengths:
            return None
        total, since = sum(self._lengths), time.monotonic() - self._since
        if self._took:
            newer = self._took[1:] or self._took
            newer = newer[len(newer) // 2 :]
            each = sum(newer) / len(newer)
            starts = list(itertools.accumulate(self._lengths))[:-1]
            once = self._once * sum(start >= self._done for start in starts)
            one = total * each + self._once * len(self._lengths)
            return max(0.0, (total - self._done) * each + once - since) + self._more * one
        done, steps = self._rest
        if self._steps <= _SETTLED or self._second is None:
            return None
        per_step = (time.monotonic() - self._second[0]) / (self._steps - 1)
        return per_step * (steps * (total - self._done) - done)
