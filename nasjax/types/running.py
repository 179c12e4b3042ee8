"""A method on its data: where it runs, who watches, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nasjax.types.arrays import PyTree
from nasjax.types.learning import Metric
from nasjax.types.searching import Evaluator, Searcher, Status


class Watch(NamedTuple):
    """Receivers of a run's progress. Nothing here changes its result."""

    say: Callable[[str], None] = lambda line: None  # progress, a line at a time
    record: Callable[[dict[str, Any]], None] = lambda row: None  # every line of trials.jsonl and metrics.jsonl
    bar: bool = False  # whether a progress bar may take the place of lines
    verbose: bool = False  # whether the architecture of every epoch or trial is wanted, too
    began: float | None = None  # when the command began, time.monotonic(), which "in all" counts from; None = unknown


class Outcome(NamedTuple):
    """The result of a search."""

    best: dict[str, Any] | None  # the row of trials.jsonl with the largest fitness, of the longest trained ones
    metric: Metric
    trials: int
    failed: int
    wall_s: float
    lines: tuple[str, ...] = ()  # lines for the user

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        best = self.best
        rows = {"trials": f"{self.trials} ({self.failed} failed), {self.wall_s:.0f} s"}
        if best is not None:
            fitness = best["fitness"][0] if isinstance(best["fitness"], list) else best["fitness"]
            after = f", epochs {best['fidelity']}" if "fidelity" in best else ""
            rows |= {"best": f"trial {best['id']}, {self.metric.name} {self.metric.text(fitness)}{after}"}
            rows |= {name: f"{best[name]:,}" for name in ("params", "macs") if best.get(name) is not None}
            rows |= {"architecture": best["arch"]}
        return html_table("search", rows, self.lines)


def html_table(title: str, rows: Mapping[str, Any], lines: Sequence[str] = ()) -> str:
    """A small table for a notebook, with lines of text below."""
    body = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    below = f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
    return f"<table><caption>{escape(title)}</caption>{body}</table>{below}"


class Failure(NamedTuple):
    """A task that did not return."""

    status: Status
    error: str  # one line
    blameless: bool = False  # the task was not the cause: its worker never began it, or its machine was preempted
    seconds: float = 0.0  # that it took


def one_line(error: BaseException) -> str:
    """An exception as one line of at most 300 characters."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:300]


@contextmanager
def afterwards(clean: Callable[[], object]) -> Iterator[None]:
    """Runs `clean` at the end of the block. If the block raises, its exception is raised, even if `clean` fails too."""
    try:
        yield
    except BaseException as error:
        try:
            clean()
        except Exception as second:
            error.add_note(f"afterwards: {one_line(second)}")
        raise
    clean()


class Runtime(NamedTuple):
    """Where tasks run, at most `workers` at a time; the runtime was made with the function that tasks run.

    submit(task, timeout_s=None) -> ticket, a number     for a worker that is free
    wait(seconds=None) -> [(ticket, result | Failure)], at least one unless none runs or the seconds pass before; a late
      result of a ticket that was already answered may follow
    cancel(ticket);  close()
    worker(ticket) -> the number of its worker, from 0
    clock() -> seconds
    """

    submit: Callable[..., int]
    wait: Callable[..., list[tuple[int, Any]]]
    cancel: Callable[[int], None]
    close: Callable[[], None]
    worker: Callable[[int], int]
    workers: int
    clock: Callable[[], float]


class Experiment(NamedTuple):
    """A method on its data. Its functions load data and build evaluators when they are called, not before.

    facts() -> for config.json: data, metric, strategy, estimates. Raises ValueError or FileNotFoundError.
    run(path, watch, runtime) -> Outcome      runs or resumes in an opened workdir; with a runtime the candidates are
      evaluated there, by the `evaluator` of its workers, else in this process
    evaluator() -> the Evaluator of candidates, where the method has any that do not depend on its other phases
    describe() -> (Arch -> what a worker finds of its network before training), where there are networks
    refuse(of that) -> why not to train it, or None
    before_retrain(path, watch)      what the method does with a finished search before its best is retrained
    inherited(path, rows, watch) -> for each of these rows of trials.jsonl the variables of its own network with what
      the search has trained, and its metric on the test part; where networks need no training of their own
    searcher      what proposes its candidates, where nothing but that decides what is tried
    """

    config: Any
    facts: Callable[[], dict[str, Any]]
    run: Callable[[Path, Watch, Runtime | None], Outcome]
    evaluator: Callable[[], Evaluator] | None = None
    describe: Callable[[], Callable[[np.ndarray], dict[str, Any]] | None] = lambda: None
    refuse: Callable[[dict[str, Any]], str | None] = lambda row: None
    before_retrain: Callable[[Path, Watch], None] | None = None
    inherited: Callable[[Path, Sequence[dict[str, Any]], Watch], Iterator[tuple[PyTree, float]]] | None = None
    searcher: Searcher | None = None
