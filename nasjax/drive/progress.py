"""Progress of a run: a bar where a terminal shows one, else plain lines; inside a long epoch a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nasjax.drive.recorded import Summary
from nasjax.drive.rows import scalar_fitness
from nasjax.types import Budget, Metric, Watch


@contextmanager
def progress(budget: Budget, metric: Metric, watch: Watch) -> Iterator[Callable[[Summary], None]]:
    """A function to call after every result; it shows trials, the best so far and the time left."""
    if watch.bar:
        from tqdm import tqdm

        with tqdm(total=budget.trials, unit="trial") as bar:

            def draw(summary: Summary) -> None:
                bar.initial = summary.resumed
                bar.n = summary.trials
                bar.set_postfix_str(_state(summary, metric))

            yield draw
        return
    began = time.monotonic()

    def line(summary: Summary) -> None:
        done = summary.trials - summary.resumed
        left = ""
        if budget.trials is not None and done:
            left = f", about {(time.monotonic() - began) / done * (budget.trials - summary.trials):.0f} s left"
        total = f"/{budget.trials}" if budget.trials is not None else ""
        watch.say(f"trial {summary.trials}{total}: {_state(summary, metric)}{left}")

    yield line


def _state(summary: Summary, metric: Metric) -> str:
    best = f"best {metric.text(scalar_fitness(summary.best))}" if summary.best else "no success yet"
    failed = f", {summary.failed} failed" if summary.failed else ""
    busy = f", {summary.busy} of {summary.workers} workers busy" if summary.workers > 1 else ""
    return f"{best}{failed}{busy}"


def ticking(watch: Watch, every_s: float = 20.0) -> Callable[[int, int], None]:
    """A line now and then inside a long epoch."""
    last = time.monotonic()

    def tick(done: int, steps: int) -> None:
        nonlocal last
        if done < steps and time.monotonic() - last > every_s:
            last = time.monotonic()
            watch.say(f"  step {done}/{steps}")

    return tick
