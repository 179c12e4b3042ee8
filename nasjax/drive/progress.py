"""Progress of a run: a bar where a terminal shows one, else plain lines, with the time left as it was measured."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from nasjax.drive.heartbeat import far
from nasjax.drive.pace import Later, Pace, compiled_once, first_line, left_words
from nasjax.drive.recorded import Summary
from nasjax.drive.rows import scalar_fitness, trained
from nasjax.train import activity
from nasjax.types import Budget, Metric, Watch

_WORTH_S = 5.0  # a shorter run is over before its estimate is read


@contextmanager
def progress(
    budget: Budget,
    metric: Metric,
    watch: Watch,
    *,
    done: int = 0,
    later: Later = compiled_once,
    workers: int = 0,
    anew: float = 1.0,
    second: bool = False,
) -> Iterator[Callable[[Summary], None]]:
    """A function to call after every result; it shows trials, the best so far and the time left.

    Args:
      budget: of the search.
      metric: that it shows.
      watch: where to; with `verbose` every line is followed by the newest architecture.
      done: trials of an interrupted run that goes on.
      later: what the first candidate tells of those that follow.
      workers: that evaluate candidates; 0 = this process does.
      anew: the part of the candidates that are new; the others go on with the training of an earlier one.
      second: the second new candidate tells of those that follow, where the first one's own programs take longer than
        any later one's, as they are the process's first ones too.
    """
    pace = Pace(budget.trials, done, later=later, workers=max(1, workers), anew=anew)
    trials = _Trials(budget, metric, watch, pace, workers, second)
    with _bar(budget.trials, done) if watch.bar else nullcontext() as bar:

        def told(summary: Summary) -> None:
            state = trials.told(summary)
            if bar is not None:
                bar.n = summary.trials
                bar.set_postfix_str(state)
            else:
                total = f"/{budget.trials}" if budget.trials is not None else ""
                watch.say(f"trial {summary.trials}{total}: {state}")
            if watch.verbose and summary.last is not None:
                watch.say(f"  {json.dumps(summary.last['arch'])}")

        with far(trials.words), activity.listening(trials.trained):
            yield told


def _bar(total: int | None, done: int) -> Any:
    from tqdm import tqdm

    # Without tqdm's own estimate, which counts compiling for every trial to come.
    shape = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]" if total is not None else None
    return tqdm(total=total, initial=done, unit="trial", bar_format=shape)


class _Trials:
    """How far a search is."""

    def __init__(
        self, budget: Budget, metric: Metric, watch: Watch, pace: Pace, workers: int, second: bool = False
    ) -> None:
        self._budget, self._metric, self._watch, self._pace, self._workers = budget, metric, watch, pace, workers
        self._second, self._any = second, False  # whether any candidate was measured
        self._told: Summary | None = None
        self._compiled = activity.compiled_s()

    def trained(self, what: activity.Trained) -> None:
        """Candidates whose results are not told yet, as others of their group are not there."""
        self._pace.took(what.seconds / what.number, goes_on=what.goes_on)
        self._pace.reached(self._pace.done + what.number)
        if not what.goes_on:
            self._first(*what[:4])

    def told(self, summary: Summary) -> str:
        """The state after a result, in words."""
        self._told = summary
        self._pace.reached(summary.trials)
        if not self._workers and not self._second:
            count, compiled_s = max(1, summary.trials - summary.resumed), activity.compiled_s() - self._compiled
            self._first(count, time.monotonic() - self._pace.began, compiled_s)
        elif self._workers and summary.last is not None and summary.last["status"] == "ok":
            goes_on = summary.last.get("fidelity") is not None and summary.last["parent"] >= 0
            self._pace.took(summary.last["cost_s"], goes_on=goes_on)
            self._first(1, summary.last["cost_s"], None)
        found = summary.best
        best = f"best {self._metric.text(scalar_fitness(found))}{trained(found)}" if found else "no success yet"
        failed = f", {summary.failed} failed" if summary.failed else ""
        busy = f", {summary.busy} of {summary.workers} workers busy" if summary.workers > 1 else ""
        return f"{best}{failed}{busy}{left_words(self._left())}"

    def words(self) -> str:
        """For a heartbeat."""
        total = f" of {self._budget.trials}" if self._budget.trials is not None else ""
        at_work = f"{self._workers} worker{'s' if self._workers > 1 else ''} at work, " if self._workers else ""
        return f"{at_work}{self._pace.done}{total} trials done{left_words(self._left())}"

    def _first(self, count: int, seconds: float, compiled_s: float | None, programs_s: float | None = None) -> None:
        if self._pace.measured:
            return
        waits, self._any = self._second and not self._any, True
        whole = None
        if not waits:
            self._pace.first(count, seconds, compiled_s, programs_s)
            left, began = self._left(), self._watch.began
            whole = None if left is None else left + time.monotonic() - (self._pace.began if began is None else began)
        if max(seconds, whole or 0.0) >= _WORTH_S:
            which = "second" if self._second and not waits else "first"
            what = f"{which} candidate" if count == 1 else f"{which} {count} candidates"
            self._watch.say(first_line(what, seconds, compiled_s, whole))

    def _left(self) -> float | None:
        """Seconds; None = not known."""
        wall_s, cost_s = (self._told.wall_s, self._told.cost_s) if self._told else (0.0, 0.0)
        limits = [math.inf]
        if self._budget.wall_s is not None:
            limits.append(self._budget.wall_s - wall_s)
        if self._budget.cost_s is not None:
            limits.append((self._budget.cost_s - cost_s) / max(1, self._workers))
        return self._pace.left(max(0.0, min(limits)))
