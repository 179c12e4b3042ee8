"""What a ledger says: the trials told so far, and the tasks that are open."""

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
    attempt: int = 0  # the last that was started
    deaths: int = 0  # of its workers, but for those that it had no part in
    lost_s: float = 0.0  # that these attempts took
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # trial -> its row, once it ended

    @property
    def proposal(self) -> Proposal:
        """As the searcher made it."""
        return Proposal(*(np.asarray(x, np.int32) for x in (self.ids, self.archs, self.parents)))  # type: ignore[arg-type]

    @property
    def open(self) -> list[int]:
        """Positions of the trials that have not ended."""
        return [n for n, trial in enumerate(self.ids.tolist()) if trial >= 0 and trial not in self.rows]


@dataclass
class Account:
    """The sum of a ledger's events; `add` takes the next one."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of trials.jsonl, in the order in which they were told
    groups: dict[int, Group] = field(default_factory=dict)  # the open ones, by task
    tasks: int = 0
    at: float = 0.0  # of the last event
    told_at: float = 0.0  # of the last result, or end
    ended_cost_s: float = 0.0  # of candidates that were at work when a search ended
    objectives: int = 0  # how many a fitness has, 0 = it is a number
    weights: dict[int, str] = field(default_factory=dict)  # trial -> sha256 of its artifact

    def add(self, event: Event) -> Group | None:
        """Takes an event; returns the group that ended with it, if one did.

        Raises:
          ValueError: it does not belong here.
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
                self.groups[event["task"]] = Group(event["task"], ids, archs, parents)
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
