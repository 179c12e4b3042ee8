"""Progress on the terminal: of a search a bar where there is one, else plain lines; a line now and then of an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nasjax.drive.search import Summary, scalar_fitness
from nasjax.types import Budget


@contextmanager
def progress(budget: Budget, percent: bool = True) -> Iterator[Callable[[Summary], None]]:
    """A function to call after every round; it shows trials, best-so-far (`percent`: a fraction) and the time left."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=budget.trials, unit="trial") as bar:

            def draw(summary: Summary) -> None:
                bar.initial = summary.resumed
                bar.n = summary.trials
                bar.set_postfix_str(_state(summary, percent))

            yield draw
        return
    began = time.monotonic()

    def line(summary: Summary) -> None:
        done = summary.trials - summary.resumed
        left = ""
        if budget.trials is not None and done:
            left = f", about {(time.monotonic() - began) / done * (budget.trials - summary.trials):.0f} s left"
        total = f"/{budget.trials}" if budget.trials is not None else ""
        print(f"trial {summary.trials}{total}: {_state(summary, percent)}{left}", file=sys.stderr, flush=True)

    yield line


def _state(summary: Summary, percent: bool) -> str:
    best = f"best {fitness_text(summary.best, percent)}" if summary.best else "no success yet"
    failed = f", {summary.failed} failed" if summary.failed else ""
    return f"{best}{failed}"


def ticking(every_s: float = 20.0) -> Callable[[int, int], None]:
    """A line now and then inside a long epoch."""
    last = time.monotonic()

    def tick(done: int, steps: int) -> None:
        nonlocal last
        if done < steps and time.monotonic() - last > every_s:
            last = time.monotonic()
            print(f"  step {done}/{steps}", file=sys.stderr, flush=True)

    return tick


def fitness_text(row: dict[str, Any], percent: bool) -> str:
    """A trial's fitness as the terminal shows it."""
    return f"{scalar_fitness(row):.2%}" if percent else f"{scalar_fitness(row):.4f}"
