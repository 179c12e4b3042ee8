"""Progress of a search on the terminal: a bar where there is one, else plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nasjax.drive import Summary, scalar_fitness
from nasjax.types import Budget


@contextmanager
def progress(budget: Budget) -> Iterator[Callable[[Summary], None]]:
    """A function to call after every round; it shows trials, best-so-far and the time left."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=budget.trials, unit="trial") as bar:

            def draw(summary: Summary) -> None:
                bar.initial = summary.resumed
                bar.n = summary.trials
                bar.set_postfix_str(_state(summary))

            yield draw
        return
    began = time.monotonic()

    def line(summary: Summary) -> None:
        done = summary.trials - summary.resumed
        left = ""
        if budget.trials is not None and done:
            left = f", about {(time.monotonic() - began) / done * (budget.trials - summary.trials):.0f} s left"
        total = f"/{budget.trials}" if budget.trials is not None else ""
        print(f"trial {summary.trials}{total}: {_state(summary)}{left}", file=sys.stderr, flush=True)

    yield line


def _state(summary: Summary) -> str:
    best = f"best {scalar_fitness(summary.best):.2%}" if summary.best else "no success yet"
    failed = f", {summary.failed} failed" if summary.failed else ""
    return f"{best}{failed}"
