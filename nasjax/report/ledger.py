"""The ledger of an asynchronous search: which worker had which task when, and how that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nasjax.report.runs import number

_ENDS = {"told": "result", "died": "worker died"}
FAILED, INTERRUPTED, RUNNING = "failed", "interrupted", "running"
ENDINGS = (_ENDS["told"], FAILED, _ENDS["died"], INTERRUPTED, RUNNING)


class Attempt(NamedTuple):
    """One task on one worker, from its start to its end."""

    worker: str
    task: str
    attempt: int
    start: float  # seconds since the start of the search, as `stop`
    stop: float
    ending: str  # one of ENDINGS
    ids: tuple[int, ...]  # of the trials in it, as far as known
    error: str


def attempts(events: Sequence[Mapping[str, Any]], *, inline: bool = False) -> list[Attempt]:
    """All attempts in the order of their starts; attempts that the ledger lacks are left out.

    A resumed search ends what was open as interrupted; what is open after the last event is running.

    Args:
      events: the lines of ledger.jsonl.
      inline: the driver is the only worker. It describes a task's candidates before it writes "started", and that is
        work on the task as well, so an attempt begins at the event before.
    """
    found: list[Attempt] = []
    open_: dict[tuple[str, int], int] = {}  # (task, attempt) -> its place in `found`
    asked: dict[str, tuple[int, ...]] = {}
    last = 0.0
    for event in events:
        kind, at = event.get("event"), number(event.get("at"))
        if kind == "asked":
            asked[str(event.get("task"))] = _ids(event.get("ids"))
        if at is None:
            continue
        task, attempt = str(event.get("task")), int(number(event.get("attempt")) or 1)
        if kind == "started":
            if (old := open_.pop((task, attempt), None)) is not None:
                found[old] = _ended(found[old], at, INTERRUPTED)
            open_[task, attempt] = len(found)
            begun = last if inline else at
            found.append(Attempt(str(event.get("worker")), task, attempt, begun, at, RUNNING, asked.get(task, ()), ""))
        elif kind == "resumed":
            for place in open_.values():
                found[place] = _ended(found[place], at, INTERRUPTED)
            open_.clear()
        elif kind in _ENDS and (place := open_.pop((task, attempt), -1)) >= 0:
            rows = [row for row in event.get("rows") or () if isinstance(row, Mapping)]
            lost = kind == "told" and rows and all(row.get("fitness") is None for row in rows)
            ids = _ids([row.get("id") for row in rows]) or found[place].ids
            errors = [event.get("error"), *(row.get("error") for row in rows)]
            why = next((str(text) for text in errors if text), "")
            found[place] = _ended(found[place], at, FAILED if lost else _ENDS[kind])._replace(ids=ids, error=why)
        last = max(last, at)
    for place in open_.values():
        found[place] = _ended(found[place], last, RUNNING)
    return found


def _ended(attempt: Attempt, at: float, ending: str) -> Attempt:
    return attempt._replace(stop=max(at, attempt.start), ending=ending)


def _ids(values: Any) -> tuple[int, ...]:
    found = [number(value) for value in values] if isinstance(values, list) else []
    return tuple(int(value) for value in found if value is not None)


def utilisation(found: Sequence[Attempt], end: float) -> dict[str, float]:
    """Per worker the share of the time from its first start to `end` in which it had a task, 0 to 1.

    Example:
      >>> utilisation([Attempt("0", "1", 1, 2.0, 5.0, "result", (), ""), Attempt("0", "2", 1, 6.0, 8.0, "result", (), "")], 12.0)
      {'0': 0.5}
    """  # noqa: E501
    shares = {}
    for worker in dict.fromkeys(a.worker for a in found):
        own = sorted((a.start, a.stop) for a in found if a.worker == worker)
        busy, until = 0.0, own[0][0]
        for start, stop in own:  # tasks side by side count once
            busy += max(0.0, stop - max(start, until))
            until = max(until, stop)
        whole = end - own[0][0]
        shares[worker] = min(1.0, busy / whole) if whole > 0 else 0.0
    return shares


def load(events: Sequence[Mapping[str, Any]]) -> list[tuple[float, int, int]]:
    """(seconds, running tasks, waiting tasks) after each event.

    A task waits from when it is asked for until it is started, and again where its worker died or the search was
    interrupted; one that was told in part waits for the next budget.
    """
    waiting: dict[str, None] = {}
    running: dict[str, None] = {}
    found = []
    for event in events:
        kind, task = event.get("event"), str(event.get("task"))
        if kind == "resumed":
            waiting |= running
            running = {}
        elif kind in ("asked", "started", "died", "told"):
            waiting.pop(task, None)
            running.pop(task, None)
            if kind == "started":
                running[task] = None
            elif kind != "told":
                waiting[task] = None
        if (at := number(event.get("at"))) is not None:
            found.append((at, len(running), len(waiting)))
    return found


def staleness(events: Sequence[Mapping[str, Any]]) -> list[int]:
    """Per told task, the number of other results between its proposal and its own: unknown when it was proposed.

    Example:
      >>> asked = [{"event": "asked", "task": n} for n in range(2)]
      >>> staleness([*asked, *({"event": "told", "task": n, "rows": [{"id": n}]} for n in (1, 0))])
      [0, 1]
    """
    told, known, found = 0, dict[str, int](), []
    for event in events:
        kind, task = event.get("event"), str(event.get("task"))
        if kind == "asked":
            known[task] = told
        elif kind == "told":
            if task in known:
                found.append(told - known.pop(task))
            rows = event.get("rows")
            told += len(rows) if isinstance(rows, list) else 0
    return found


def end(events: Sequence[Mapping[str, Any]]) -> float:
    """Seconds at the last event."""
    return max((number(event.get("at")) or 0.0 for event in events), default=0.0)


def finished(events: Sequence[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """(seconds, trial) of every result, in the order in which they came."""
    return [
        (at, int(trial))
        for event in events
        if event.get("event") == "told" and (at := number(event.get("at"))) is not None
        for row in event.get("rows") or ()
        if isinstance(row, Mapping) and (trial := number(row.get("id"))) is not None
    ]
