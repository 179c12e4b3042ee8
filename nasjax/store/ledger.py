"""ledger.jsonl: everything that happened in a search, in order, appended and never changed.

It is the only truth about a search: trials.jsonl, metrics.jsonl, best.json and the searcher's state follow from it. An
event is an object with "event" and "at", seconds since the search began (all resumed parts together):

  asked    task, ids, parents, archs     the searcher proposed them; a row of `archs` is an Arch, id -1 is none. Where
             it says how long each is trained also fidelities, epochs in all
  started  task, attempt, worker
  told     task, attempt, worker, rows, objectives, weights     the final rows of these trials, as in
             trials.jsonl. An id is told once. objectives = how many a fitness has. weights = {id: sha256}
  died     task, attempt, worker, error, blameless, seconds     its worker died; the task starts again, or is told as
             lost. blameless: the task was not begun, or its machine was preempted; this attempt does not count
  ended    why, cost_s     a time limit was reached; cost_s = seconds of the running tasks, which were cancelled
  stale    ticket, worker     a result that came after its task was told; ticket = the runtime's number of the task
  resumed                            the search was resumed here
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasjax.store import checkpoint

Event = dict[str, Any]
NAME = "ledger.jsonl"


def read(workdir: Path) -> list[Event]:
    """The events of a workdir. An incomplete last line, of a run that was killed while writing, is cut off.

    Raises:
      ValueError: an earlier line is damaged.
    """
    file = workdir / NAME
    events = checkpoint.read_lines(file)
    checkpoint.truncate_lines(file, len(events))
    for number, event in enumerate(events, 1):
        if not isinstance(event, dict) or "event" not in event or "at" not in event:
            raise ValueError(f"{file} is damaged: line {number} is no event")
    return events


def append(workdir: Path, event: Event) -> None:
    """Appends an event and makes sure that it is on disk. Raises RunError where it cannot be written."""
    with checkpoint.writing(workdir):
        checkpoint.append_lines(workdir / NAME, [event])
