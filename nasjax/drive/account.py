"""The state that a ledger describes: the trials told so far, and the open tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nasjax.store.ledger import Event
from nasjax.types import Evaluation, Proposal, Status


@dataclass
class Group:
    """What the searcher proposed at one time; it is told when all of it has ended."""

    task: int
    ids: np.ndarray  # i32[N]; -1 = none
    archs: np.ndarray  # i32[N, A]
    parents: np.ndarray  # i32[N]
    fidelities: np.ndarray | None = None  # i32[N], epochs; None = all the recipe's
    attempt: int = 0  # number of the last one started
    deaths: int = 0  # workers that died at it, except where it was not the cause
    lost_s: float = 0.0  # time spent on attempts whose worker died
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # trial -> its row, once it ended

    @property
    def proposal(self) -> Proposal:
        """As the searcher made it."""
        given = (self.ids, self.archs, self.parents, self.fidelities)
        return Proposal(*(None if x is None else np.asarray(x, np.int32) for x in given))  # type: ignore[arg-type]

    @property
    def open(self) -> list[int]:
        """Positions of the trials that have not ended."""
        return [n for n, trial in enumerate(self.ids.tolist()) if trial >= 0 and trial not in self.rows]


@dataclass
class Account:
    """The state after a ledger's events; `add` applies the next one."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of trials.jsonl, in the order in which they were told
    groups: dict[int, Group] = field(default_factory=dict)  # the open ones, by task
    tasks: int = 0
    at: float = 0.0  # of the last event
    told_at: float = 0.0  # of the last result, or end
    ended_cost_s: float = 0.0  # of candidates that still ran when a search ended
    objectives: int = 0  # of a fitness; 0 = it is a single number
    weights: dict[int, str] = field(default_factory=dict)  # trial -> sha256 of its artifact

    def add(self, event: Event) -> Group | None:
        """Applies an event; returns the group that it completed, if any.

        Raises:
          ValueError: the event cannot follow those before it.
        """
        self.at = event["at"]
        try:
            return self._add(event)
        except (KeyError, TypeError) as error:
            what = f"{event['event']} of task {event.get('task')}"
            raise ValueError(f"the ledger is damaged: {what} is out of place") from error

    def _add(self, event: Event) -> Group | None:
        match event["event"]:
            case "asked":
                ids, archs, parents = (np.asarray(event[name], np.int32) for name in ("ids", "archs", "parents"))
                epochs = np.asarray(event["fidelities"], np.int32) if "fidelities" in event else None
                self.groups[event["task"]] = Group(event["task"], ids, archs, parents, epochs)
                self.tasks = max(self.tasks, event["task"] + 1)
            case "started":
                self.groups[event["task"]].attempt = event["attempt"]
            case "died":
                if not event.get("blameless", False):
                    self.groups[event["task"]].deaths += 1
                    self.groups[event["task"]].lost_s += event.get("seconds", 0.0)
            case "ended":
                self.told_at, self.ended_cost_s = event["at"], self.ended_cost_s + event["cost_s"]
            case "told":
                group, self.told_at = self.groups[event["task"]], event["at"]
                self.objectives = event["objectives"]
                self.weights |= {int(trial): digest for trial, digest in event["weights"].items()}
                for row in event["rows"]:
                    group.rows[row["id"]] = row
                    self.rows.append(row)
                group.lost_s = 0.0
                if not group.open:
                    return self.groups.pop(group.task)
        return None

    def evaluation(self, group: Group) -> Evaluation:
        """What the searcher is told of a group that has ended; a failed trial has fitness NaN."""
        shape = (len(group.ids), self.objectives) if self.objectives else (len(group.ids),)
        fitness, cost = np.full(shape, np.nan, np.float32), np.zeros(len(group.ids), np.float32)
        status = np.full(len(group.ids), Status.REJECTED, np.int8)
        for n, trial in enumerate(group.ids.tolist()):
            if trial >= 0:
                row = group.rows[trial]
                cost[n], status[n] = row["cost_s"], Status[row["status"].upper()]
                if row["fitness"] is not None:
                    fitness[n] = row["fitness"]
        return Evaluation(fitness, cost, status, {})
