"""The host loop of a search: ask, evaluate, tell, until the budget is spent.

Any number of workers evaluate at a time; each gets the next candidates as soon as it is free. What happens is written
to the ledger first (`drive.recorded`), so that a killed run resumes from it and ends with the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasjax.drive.account import Group
from nasjax.drive.recorded import Recorded, Summary
from nasjax.drive.rows import Candidate, Describe, Refuse, candidate, rows
from nasjax.store.checkpoint import RunError
from nasjax.types import Budget, Failure, Key, PyTree, Runtime, Searcher, Status, afterwards

ATTEMPTS = 3  # of a trial whose worker died


def search(
    key: Key,
    searcher: Searcher,
    runtime: Runtime,
    *,
    workdir: Path,
    budget: Budget,
    describe: Describe,
    width: int = 1,
    refuse: Refuse = lambda row: None,
    nothing_left: Callable[[list[dict[str, Any]]], str] = lambda rows: "the searcher has nothing left to ask",
    metrics: Callable[[PyTree], dict[str, Any]] | None = None,
    timeout_s: float | None = None,
    on_told: Callable[[Summary], None] = lambda summary: None,
    record: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Summary:
    """Runs or continues a search in `workdir`.

    Each worker that is free gets `width` candidates, whatever the others do. Several candidates are told together when
    all of them have ended. No more are started than the budget has trials, so that slow ones count like fast ones.
    Candidates that still run when a time budget is spent are cancelled; a search resumed with a larger budget evaluates
    them again. Their seconds count towards the cost budget. A candidate whose worker dies is tried 3 times, not
    counting workers that die before they begin or whose machine is preempted.

    Args:
      key: the run's key; trial i is asked and evaluated with keys that depend on it and on i alone.
      searcher: what to try next.
      runtime: where `drive.work.worker(evaluator, workdir)` runs, e.g. `inline` of it.
      workdir: an existing folder; holds ledger.jsonl, and what follows from it: trials.jsonl, metrics.jsonl, best.json.
      budget: when to stop; the first limit reached counts.
      describe: Arch -> {"arch": JSON form, "params": int, "macs": int}; a ValueError fails the candidate. It runs in
        the driver, without a time limit: code that may hang belongs in the `describe` of `drive.work.worker`.
      width: candidates asked at a time; a short last task is padded with id -1, so programs and bits stay the same.
      refuse: the same row -> why not to train it (a limit), or None.
      nothing_left: all rows -> why the searcher has nothing left to ask, in words.
      metrics: searcher state -> scalars for metrics.jsonl.
      timeout_s: longest time of a task, where the runtime can end it.
      on_told: called after every result.
      record: receives every line of trials.jsonl and metrics.jsonl once it is written.

    Returns:
      The state of the search when the budget was spent.

    Raises:
      ValueError: the ledger is damaged, or this space builds its trials differently.
      RunError: the disk is full, no candidate of the whole search succeeded or returned, or the searcher proposed none.
    """
    if width < 1:
        raise ValueError(f"width (candidates asked at a time) must be at least 1, got {width}")
    so_far = Recorded(key, searcher, workdir, runtime.clock, metrics, describe)
    running: dict[int, tuple[Group, list[Candidate], dict[str, int], float]] = {}  # by ticket; float: its start
    waiting = deque(so_far.account.groups.values())  # unfinished when the previous run ended

    def summary(busy: int = 0) -> Summary:
        return so_far.summary(busy, runtime.workers)

    def room() -> int | None:
        """Trials that may still start."""
        at_work = sum(len(candidates) for _, candidates, *_ in running.values())
        return None if budget.trials is None else budget.trials - len(so_far.account.rows) - at_work

    def told(group: Group, found: list[dict[str, Any]], result: Any, origin: dict[str, int]) -> None:
        for line in so_far.tell(group, found, result, origin):
            record(line)
        if group.open:
            waiting.append(group)
        on_told(summary(busy=len(running) + (result is not None)))

    def start(group: Group) -> None:
        candidates = [candidate(group, n, describe, refuse) for n in group.open[: room()]]
        if all(one.reason for one in candidates):
            told(group, rows(group, candidates, None), None, {"attempt": 0, "worker": -1})
            return
        ticket = runtime.submit(so_far.work(group, candidates), timeout_s)
        origin = {"attempt": group.attempt + 1, "worker": runtime.worker(ticket)}
        so_far.happened("started", task=group.task, **origin)
        running[ticket] = (group, candidates, origin, so_far.now())

    def ended(ticket: int, result: Any) -> None:
        if ticket not in running:
            so_far.happened("stale", ticket=ticket, worker=runtime.worker(ticket))
            return
        group, candidates, origin, _ = running.pop(ticket)
        if isinstance(result, Failure) and result.status == Status.LOST:
            facts = {"error": result.error, "blameless": result.blameless, "seconds": round(result.seconds, 6)}
            so_far.happened("died", task=group.task, **origin, **facts)
            result = result._replace(seconds=0.0)  # the group counts them
            if result.blameless or group.deaths < ATTEMPTS:
                waiting.appendleft(group)
                return
        told(group, rows(group, candidates, result), result, origin)

    def at_work_s() -> float:
        """Seconds that the running tasks have taken so far, added up."""
        return sum(so_far.now() - since for *_, since in running.values())

    def left_s() -> float | None:
        """Seconds until a time limit is reached, even if no task returns; None = no such limit."""
        moments = []
        if budget.wall_s is not None:
            moments.append(budget.wall_s - so_far.now())
        if budget.cost_s is not None:
            moments.append((budget.cost_s - summary().cost_s - at_work_s()) / len(running))
        return max(0.0, min(moments)) if moments else None

    def over() -> bool:
        """Whether the budget is spent; a spent time budget is also recorded."""
        end = summary()
        wall_s = max(end.wall_s, so_far.now() if running else 0.0)
        why = _reached(budget, end.trials, wall_s, end.cost_s + at_work_s())
        if why:
            record(so_far.ended(why, at_work_s() if running else None))
        return why is not None

    def cancel() -> None:
        for ticket in running:
            runtime.cancel(ticket)

    with afterwards(cancel):
        while not over():
            free = len(running) < runtime.workers and room() != 0
            group = (waiting.popleft() if waiting else so_far.ask(width)) if free else None
            if group is not None:
                start(group)
            elif running:
                for ticket, result in runtime.wait() if (left := left_s()) is None else runtime.wait(left):
                    end = summary()
                    if ticket not in running or _reached(budget, end.trials, end.wall_s, end.cost_s) is None:
                        ended(ticket, result)
            else:
                if not summary().trials:
                    raise RunError("the searcher found nothing to ask: no architecture keeps to the limits")
                record(so_far.ended(nothing_left(so_far.account.rows)))
                break
    end = summary()
    if end.best is None and (end.trials or end.why):
        why = f"{end.why}, and " if end.why else ""
        failed = [row["error"] for row in so_far.account.rows]  # in the order in which they returned
        what = f"every candidate failed; the first one: {failed[0]}" if failed else "no candidate had returned"
        if len(other := set(failed)) > 1:
            what += f" ({len(other)} different errors: see trials.jsonl)"
        raise RunError(f"{why}{what}")
    return end


def _reached(budget: Budget, trials: int, wall_s: float, cost_s: float) -> str | None:
    """The limit that is reached: a time limit in words, the number of trials as ""; None where none is."""
    if budget.trials is not None and trials >= budget.trials:
        return ""
    if budget.wall_s is not None and wall_s >= budget.wall_s:
        return f"wall_s={budget.wall_s:g} seconds are over"
    if budget.cost_s is not None and cost_s >= budget.cost_s:
        return f"cost_s={budget.cost_s:g} seconds of candidates are spent"
    return None
