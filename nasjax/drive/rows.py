"""The rows of trials.jsonl: what is known of a candidate before it is evaluated, and its result."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from nasjax.drive.account import Group
from nasjax.drive.work import Answer, Describe, Refuse
from nasjax.types import Failure, Status

_WHY = {
    Status.FAILED: "fitness is NaN",
    Status.TIMEOUT: "timed out",
    Status.LOST: "its worker died",
    Status.REJECTED: "the evaluator does not know it",  # absent from a table, say
}


class Candidate(NamedTuple):
    """What is known before an evaluation."""

    position: int  # in its group
    known: dict[str, Any]  # arch (JSON), params, macs, ...
    status: Status = Status.OK
    reason: str = ""  # why it is not evaluated


def candidate(group: Group, position: int, describe: Describe, refuse: Refuse) -> Candidate:
    """Describes a candidate; an invalid one has failed, one beyond a limit is rejected."""
    try:
        known = describe(group.archs[position])
    except ValueError as error:
        nothing = {"arch": group.archs[position].tolist(), "params": None, "macs": None}
        return Candidate(position, nothing, Status.FAILED, str(error))
    reason = refuse(known)
    return Candidate(position, known, Status.REJECTED if reason else Status.OK, reason or "")


def rows(group: Group, candidates: list[Candidate], result: Answer | Failure | None) -> list[dict[str, Any]]:
    """The rows of candidates, by id; `result` is None where none was evaluated."""
    found, number = [], sum(not one.reason for one in candidates)
    for position, known, status, reason in sorted(candidates, key=lambda one: group.ids[one.position]):
        fitness, cost, info = None, 0.0 if reason else group.lost_s / number, {}
        if reason:
            pass
        elif isinstance(result, Failure):
            status, reason = result.status, result.error
            cost += result.seconds / number
        elif result is not None and position in result.stopped:
            known = {**known, **result.known.get(position, {})}
            status, reason = result.stopped[position]
        elif result is not None:
            known = {**known, **result.known.get(position, {})}
            values = np.asarray(result.evaluation.fitness[position], float)
            cost += float(result.evaluation.cost[position])
            status = Status(int(result.evaluation.status[position]))
            info = dict(result.evaluation.info)
            reason = info.pop("error", {position: ""})[position]
            if status == Status.OK and not np.isfinite(values).all():
                status = Status.FAILED
            fitness = values.tolist() if status == Status.OK else None
        found.append(
            {
                "id": int(group.ids[position]),
                "parent": int(group.parents[position]),
                **({} if group.fidelities is None else {"fidelity": int(group.fidelities[position])}),
                **known,
                "fitness": fitness,
                "cost_s": cost,
                "status": status.name.lower(),
                "error": reason or _WHY.get(status),
                **{name: plain(np.asarray(values)[position]) for name, values in info.items() if name not in known},
            }
        )
    return found


def plain(value: np.ndarray) -> Any:
    """An array as JSON: NaN and infinities as null."""
    if value.ndim:
        return [plain(v) for v in value]
    number = value.item()
    return None if isinstance(number, float) and not math.isfinite(number) else number


def rank(row: dict[str, Any]) -> tuple[float, float]:
    """A row's place among others, larger is better: results of different trainings are compared by their epochs."""
    return row.get("fidelity") or 0, scalar_fitness(row)


def trained(row: dict[str, Any]) -> str:
    """ " after 9 epochs" of a row that says how long it was trained, else ""."""
    epochs = row.get("fidelity")
    return "" if epochs is None else f" after {epochs} epoch{'s' if epochs != 1 else ''}"


def scalar_fitness(row: dict[str, Any]) -> float:
    """A row's fitness for ranking: the first objective; -inf if it failed."""
    fitness = row["fitness"]
    if fitness is None:
        return -math.inf
    return float(fitness[0] if isinstance(fitness, list) else fitness)
