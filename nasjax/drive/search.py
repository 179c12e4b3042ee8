"""The host loop of a search: ask, evaluate, tell, write down, until the budget is spent.

A round of `width` candidates is in flight at a time; it is told and written in id order at its end. Checkpoints
exist for whole rounds only, so a killed run repeats at most one round and ends with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.runtime.inline import inline
from nasjax.store import checkpoint
from nasjax.store.checkpoint import RunError
from nasjax.types import Budget, Evaluation, Evaluator, Failure, Key, Proposal, PyTree, Runtime, Searcher, Status

Describe = Callable[[np.ndarray], dict[str, Any]]


class Summary(NamedTuple):
    """Where a search stands."""

    trials: int
    failed: int  # failed, timed out, lost or rejected
    best: dict[str, Any] | None  # the row of trials.jsonl with the largest fitness
    last: dict[str, Any] | None  # the newest row
    wall_s: float  # all resumed parts together
    cost_s: float  # sum of the trials' costs
    resumed: int  # trials that were already there
    state: PyTree  # of the searcher


def search(
    key: Key,
    searcher: Searcher,
    evaluator: Evaluator,
    *,
    workdir: Path,
    budget: Budget,
    width: int,
    describe: Describe,
    refuse: Callable[[dict[str, Any]], str | None] = lambda row: None,
    metrics: Callable[[PyTree], dict[str, Any]] | None = None,
    runtime: Runtime | None = None,
    on_round: Callable[[Summary], None] = lambda summary: None,
    record: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Summary:
    """Runs or continues a search in `workdir`.

    Args:
      key: the run's key; trial i is asked and evaluated with keys that depend on it and on i alone.
      searcher: what to try next.
      evaluator: how good it is.
      workdir: an existing folder; holds trials.jsonl, metrics.jsonl, best.json and checkpoints/.
      budget: when to stop; the first limit reached counts.
      width: candidates in flight. A short last round is padded with id -1, so that programs and bits stay the same.
      describe: Arch -> {"arch": JSON form, "params": int, "macs": int}; a ValueError fails the candidate.
      refuse: the same row -> why not to train it (a limit), or None.
      metrics: searcher state -> scalars for metrics.jsonl.
      runtime: where evaluations run, `inline` unless given.
      on_round: called after every round.
      record: receives every line of trials.jsonl and metrics.jsonl once it is written.

    Returns:
      The state of the search when the budget was spent.

    Raises:
      ValueError: the workdir's files are damaged.
      RunError: the disk is full, no candidate of the whole search succeeded, or there was none to ask for.
    """
    if width < 1:
        raise ValueError(f"width (candidates in flight) must be at least 1, got {width}")
    key_init, key_ask, key_eval = jax.random.split(key, 3)
    runtime = runtime or inline()
    trials_file, metrics_file, folder = workdir / "trials.jsonl", workdir / "metrics.jsonl", workdir / "checkpoints"
    start = {"state": searcher.init(key_init), "told": 0, "rounds": 0, "wall_s": 0.0}
    rows = checkpoint.read_lines(trials_file)
    found = checkpoint.latest(folder, start)
    if found is not None:
        start = found[1]
    if budget.trials is not None and len(rows) >= budget.trials > start["told"] and (folder / "final").is_dir():
        final = checkpoint.restore(folder, "final", start)  # a finished run whose last round was short
        start = final if final["told"] >= budget.trials else start
    checkpoint.truncate_lines(trials_file, start["told"])
    checkpoint.truncate_lines(metrics_file, start["rounds"])
    rows, resumed = rows[: start["told"]], start["told"]
    state, rounds, wall_s = start["state"], start["rounds"], start["wall_s"]
    ask, tell = jax.jit(searcher.ask, static_argnums=2), jax.jit(searcher.tell)
    summary = _summary(rows, wall_s, resumed, state)
    while not _spent(budget, summary):
        began = time.monotonic()
        state, proposal = ask(key_ask, state, width)
        cut = budget.trials is not None and width > budget.trials - len(rows)
        if budget.trials is not None and cut:
            keep = jnp.arange(width) < budget.trials - len(rows)
            proposal = proposal._replace(id=jnp.where(keep, proposal.id, -1))
        if not np.any(np.asarray(proposal.id) >= 0):
            if not rows:
                raise RunError("the searcher found nothing to ask: no architecture keeps to the limits")
            # A small space, wholly visited. The line tells the report that this is the end; resuming cuts it off.
            _write(workdir, [], summary, lambda state: {"done": True}, record)
            break
        new, evaluation = _round(key_eval, proposal, evaluator, describe, refuse, runtime)
        state = tell(state, proposal, evaluation)
        jax.block_until_ready(state)
        wall_s += time.monotonic() - began
        rounds += 1
        rows += new
        summary = _summary(rows, wall_s, resumed, state)
        _write(workdir, new, summary, metrics, record)
        saved = {"state": state, "told": len(rows), "rounds": rounds, "wall_s": wall_s}
        checkpoint.save(folder, "final" if cut else f"{len(rows):08d}", saved)
        on_round(summary)
    if summary.trials and summary.best is None:
        reason = summary.last["error"] if summary.last else ""
        raise RunError(f"every candidate failed; the last one: {reason}")
    return summary


def _round(
    key: Key,
    proposal: Proposal,
    evaluator: Evaluator,
    describe: Describe,
    refuse: Callable[[dict[str, Any]], str | None],
    runtime: Runtime,
) -> tuple[list[dict[str, Any]], Evaluation]:
    """Evaluates one round; rows in id order and the Evaluation to tell, both for every proposal with an id."""
    ids, archs, parents = (np.asarray(x) for x in proposal)
    status = np.full(len(ids), Status.REJECTED, np.int8)
    described: dict[int, dict[str, Any]] = {}
    reasons: dict[int, str] = {}
    for n in np.flatnonzero(ids >= 0).tolist():
        try:
            described[n] = describe(archs[n])
            if reason := refuse(described[n]):
                reasons[n] = reason
        except ValueError as error:
            reasons[n], status[n] = str(error), Status.FAILED
    trained = np.array([n for n in described if n not in reasons], int)
    cost = np.zeros(len(ids), np.float32)
    fitness = np.full(len(ids), np.nan, np.float32)
    info: dict[str, Any] = {}
    if len(trained):
        asked = proposal._replace(id=jnp.where(jnp.isin(jnp.arange(len(ids)), trained), proposal.id, -1))
        ticket = runtime.submit(evaluator.evaluate, key, asked, None)
        [(_, result)], _ = runtime.wait([ticket])
        if isinstance(result, Failure):
            status[trained] = result.status
            reasons.update(dict.fromkeys(trained, result.error))
        else:
            evaluation = result[0]
            fitness = np.full(np.shape(evaluation.fitness), np.nan, np.float32)
            for target, source in ((fitness, evaluation.fitness), (cost, evaluation.cost), (status, evaluation.status)):
                target[trained] = np.asarray(source)[trained]
            info = evaluation.info
    errors = info.pop("error", [""] * len(ids))
    new = []
    for n in sorted(described | reasons, key=lambda n: ids[n]):
        finite = bool(np.all(np.isfinite(fitness[n])))
        if status[n] == Status.OK and not finite:
            status[n] = Status.FAILED
        row = described.get(n, {"arch": archs[n].tolist(), "params": None, "macs": None})
        new.append(
            {
                "id": int(ids[n]),
                "parent": int(parents[n]),
                **row,
                "fitness": np.asarray(fitness[n], float).tolist() if status[n] == Status.OK else None,
                "cost_s": float(cost[n]),
                "status": Status(status[n]).name.lower(),
                "error": reasons.get(n) or errors[n] or (None if finite else _WHY[Status(status[n])]),
                **{name: _plain(np.asarray(values)[n]) for name, values in info.items() if name not in row},
            }
        )
    fitness[status != Status.OK] = np.nan
    return new, Evaluation(jnp.asarray(fitness), jnp.asarray(cost), jnp.asarray(status), {})


_WHY = {
    Status.FAILED: "fitness is NaN",
    Status.TIMEOUT: "timed out",
    Status.LOST: "its worker died",
    Status.REJECTED: "the evaluator does not know it",  # absent from a table, say
}


def _plain(value: np.ndarray) -> Any:
    """An info entry as JSON: NaN and infinities as null."""
    if value.ndim:
        return [_plain(v) for v in value]
    number = value.item()
    return None if isinstance(number, float) and not math.isfinite(number) else number


def scalar_fitness(row: dict[str, Any]) -> float:
    """A row's fitness for ranking: the first objective; -inf if it failed."""
    fitness = row["fitness"]
    if fitness is None:
        return -math.inf
    return float(fitness[0] if isinstance(fitness, list) else fitness)


def _summary(rows: list[dict[str, Any]], wall_s: float, resumed: int, state: PyTree) -> Summary:
    done = [row for row in rows if row["status"] == "ok"]
    return Summary(
        trials=len(rows),
        failed=len(rows) - len(done),
        best=max(done, key=scalar_fitness) if done else None,
        last=rows[-1] if rows else None,
        wall_s=wall_s,
        cost_s=sum(row["cost_s"] for row in rows),
        resumed=resumed,
        state=state,
    )


def _spent(budget: Budget, summary: Summary) -> bool:
    return (
        (budget.trials is not None and summary.trials >= budget.trials)
        or (budget.wall_s is not None and summary.wall_s >= budget.wall_s)
        or (budget.cost_s is not None and summary.cost_s >= budget.cost_s)
    )


def _write(
    workdir: Path,
    new: list[dict[str, Any]],
    summary: Summary,
    metrics: Callable[[PyTree], dict[str, Any]] | None,
    record: Callable[[dict[str, Any]], None],
) -> None:
    """Appends the round to the workdir's files."""
    with checkpoint.writing(workdir):
        checkpoint.append_lines(workdir / "trials.jsonl", new)
        values = {
            name: _plain(np.asarray(value)) for name, value in (metrics(summary.state) if metrics else {}).items()
        }
        line = {"trials": summary.trials, "wall_s": round(summary.wall_s, 3), **values}
        checkpoint.append_lines(workdir / "metrics.jsonl", [line])
        if summary.best is not None:
            checkpoint.write_json(workdir / "best.json", summary.best)
    for row in (*new, line):
        record(row)
