"""The state of a search, derived from its ledger, and the files derived from that state.

Live and replayed searches apply events in the same way, so a ledger gives the same state, trials.jsonl and
metrics.jsonl whenever it is read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.account import Account, Group
from nasjax.drive.rows import Candidate, plain, rank
from nasjax.drive.work import Answer, Describe, Work
from nasjax.store import artifacts, checkpoint, ledger, unfinished
from nasjax.store.ledger import Event
from nasjax.train.compiling import jit
from nasjax.types import Failure, Key, Proposal, PyTree, Searcher


class Summary(NamedTuple):
    """The progress of a search."""

    trials: int
    failed: int  # failed, timed out, lost or rejected
    best: dict[str, Any] | None  # the row of trials.jsonl with the largest fitness, of the longest trained ones
    weights: str | None  # sha256 of its artifact, where there is one
    last: dict[str, Any] | None  # the newest row
    wall_s: float  # all resumed parts together
    cost_s: float  # sum of the trials' costs, and of candidates that still ran when a time limit ended the search
    resumed: int  # trials from before this call
    busy: int  # workers that were busy before the last result
    workers: int
    state: PyTree  # of the searcher
    why: str = ""  # the search ended before it had the trials that were asked for


class Recorded:
    """The search in `workdir` as its ledger has it; reading the ledger brings the other files up to date.

    Raises ValueError where the ledger is damaged. Arguments as of `drive.search`.
    """

    def __init__(
        self,
        key: Key,
        searcher: Searcher,
        workdir: Path,
        clock: Callable[[], float],
        metrics: Callable[[PyTree], dict[str, Any]] | None = None,
        describe: Describe | None = None,
    ) -> None:
        key_init, self._key_ask, key_work = jax.random.split(key, 3)
        self._key_work = np.asarray(jax.random.key_data(key_work))
        self._searcher, self._workdir, self._clock, self._metrics = searcher, workdir, clock, metrics
        self._describe = describe
        self._ask, self._tell = jit(searcher.ask, static_argnums=2), jit(searcher.tell)
        self._state = jit(searcher.init)(key_init)
        self._began: float | None = None  # the clock at second 0 of the ledger, once something new happens
        self._idle_at = -1  # number of trials told when the searcher last had nothing to propose
        self._failed, self._cost_s, self._best, self._why = 0, 0.0, None, ""
        self.account = Account()
        self._replay()
        self._resumed = len(self.account.rows)

    def _replay(self) -> None:
        lines, differs = [], False
        events = ledger.read(self._workdir)
        if not events and (self._workdir / "trials.jsonl").exists():
            raise ValueError(
                f"{self._workdir}/{ledger.NAME} is missing, so its search cannot be resumed; choose another --workdir"
            )
        for event in events:
            if event["event"] == "asked":
                self._state, proposal = self._ask(self._key_ask, self._state, len(event["ids"]))
                asked = _asked(proposal)
                differs |= any(asked[name] != event.get(name) for name in asked)
            self._check(event)
            lines += self._take(event)
        if differs:
            print(
                f"warning: the searcher no longer reproduces {self._workdir}/{ledger.NAME} (different machine or "
                "versions?); continuing from the ledger",
                file=sys.stderr,
            )
        with checkpoint.writing(self._workdir):
            checkpoint.replace_lines(self._workdir / "trials.jsonl", self.account.rows)
            checkpoint.replace_lines(self._workdir / "metrics.jsonl", lines)
            if self._best is not None:
                checkpoint.write_json(self._workdir / "best.json", self._best)
        trials = {int(group.ids[n]) for group in self.account.groups.values() for n in group.open}
        unfinished.keep(self._workdir, trials)
        if self.account.weights:  # nothing runs yet, so weights that no trial may inherit were left by a killed run
            self.account.weights = self._inheritable()
            kept = set(self.account.weights.values())
            artifacts.delete(self._workdir, artifacts.stored(self._workdir) - kept)

    def _check(self, event: Event) -> None:
        """Raises ValueError where the space now builds a stored trial differently than when it was evaluated."""
        if self._describe is None or event["event"] != "told" or event.get("task") not in self.account.groups:
            return
        group = self.account.groups[event["task"]]
        archs = dict(zip(group.ids.tolist(), group.archs, strict=True))
        for row in event.get("rows", ()):
            if row.get("id") not in archs or not isinstance(row.get("arch"), dict):
                continue  # damaged; or older, of a candidate that was not built
            try:
                known = self._describe(archs[row["id"]])
            except ValueError as error:
                known = {"arch": f"none: {error}"}
            now = json.loads(json.dumps({name: known.get(name) for name in ("arch", "hash", "params", "macs")}))
            for name, value in now.items():
                if None not in (value, row.get(name)) and value != row[name]:
                    raise ValueError(
                        f"{self._workdir} belongs to another space: {name} of trial {row['id']} was "
                        f"{json.dumps(row[name])}, and would now be {json.dumps(value)}; register the space that it "
                        "was begun with, or choose another --workdir"
                    )

    def summary(self, busy: int = 0, workers: int = 1) -> Summary:
        """Where the search stands."""
        rows = self.account.rows
        return Summary(
            trials=len(rows),
            failed=self._failed,
            best=self._best,
            weights=self.account.weights.get(self._best["id"]) if self._best else None,
            last=rows[-1] if rows else None,
            wall_s=self.account.told_at,
            cost_s=self._cost_s + self.account.ended_cost_s,
            resumed=self._resumed,
            busy=busy,
            workers=workers,
            state=self._state,
            why=self._why,
        )

    def now(self) -> float:
        """Seconds since the search began, all resumed parts together."""
        return self.account.at if self._began is None else self._clock() - self._began

    def ask(self, n: int) -> Group | None:
        """The searcher's next n candidates; None where it has none before more results are told."""
        if self._idle_at == len(self.account.rows):
            return None
        state, proposal = self._ask(self._key_ask, self._state, n)
        asked = _asked(proposal)
        if max(asked["ids"]) < 0:
            self._idle_at = len(self.account.rows)
            return None
        self._state, task = state, self.account.tasks
        self.happened("asked", task=task, **asked)
        return self.account.groups[task]

    def work(self, group: Group, candidates: list[Candidate]) -> Work:
        """The work item for the candidates of a group that were not rejected."""
        positions = [one.position for one in candidates if not one.reason]
        ids = np.full_like(group.ids, -1)
        ids[positions] = group.ids[positions]
        known = self.account.weights
        weights = {parent: known[parent] for parent in group.parents[positions].tolist() if parent in known}
        return Work(self._key_work, ids, group.archs, group.parents, weights, group.fidelities, group.lost_s)

    def happened(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """Writes an event to the ledger and applies it; returns the new lines of metrics.jsonl."""
        if self._began is None:
            self._began = self._clock() - self.account.at
            if self.account.tasks:
                self.happened("resumed")
        whole = {"event": event, **facts, "at": round(self._clock() - self._began, 6)}
        ledger.append(self._workdir, whole)
        return self._take(whole)

    def tell(
        self, group: Group, rows: list[dict[str, Any]], result: Answer | Failure | None, origin: dict[str, int]
    ) -> list[dict[str, Any]]:
        """Records the final rows of trials; returns the new lines of trials.jsonl and metrics.jsonl.

        Args:
          group: of the trials.
          rows: final rows of some or all of its open trials.
          result: the worker's, from which the rows were made; None where none was evaluated.
          origin: attempt and worker.
        """
        objectives, weights = self.account.objectives, {}
        if isinstance(result, Answer):
            objectives = sum(np.shape(result.evaluation.fitness)[1:])
            weights = {str(row["id"]): result.weights[row["id"]] for row in rows if row["id"] in result.weights}
        before = self._best
        facts = {"task": group.task, **origin, "rows": rows, "objectives": objectives, "weights": weights}
        lines = self.happened("told", **facts)
        with checkpoint.writing(self._workdir):
            checkpoint.append_lines(self._workdir / "trials.jsonl", rows)
            checkpoint.append_lines(self._workdir / "metrics.jsonl", lines)
            if self._best is not before:
                checkpoint.write_json(self._workdir / "best.json", self._best)
        unfinished.delete(self._workdir, [row["id"] for row in rows])
        if self.account.weights:
            dead, self.account.weights = set(self.account.weights.values()), self._inheritable()
            artifacts.delete(self._workdir, dead - set(self.account.weights.values()))
        return [*rows, *lines]

    def ended(self, why: str, cost_s: float | None = None) -> dict[str, Any]:
        """Records that a search ended before it had its trials; returns the last line of metrics.jsonl, for the report.

        Args:
          why: in words.
          cost_s: total seconds of the candidates that still run; given where a time limit ended the search.
        """
        self._why = why
        if cost_s is not None:
            self.happened("ended", why=why, cost_s=round(cost_s, 6))
        line = {"trials": len(self.account.rows), "wall_s": round(self.account.told_at, 3), "done": True, "why": why}
        with checkpoint.writing(self._workdir):
            checkpoint.append_lines(self._workdir / "metrics.jsonl", [line])
        return line

    def _take(self, event: Event) -> list[dict[str, Any]]:
        """Updates the account, the searcher and the counts by an event; returns the new lines of metrics.jsonl."""
        group = self.account.add(event)
        for row in event.get("rows", ()):
            self._failed += row["status"] != "ok"
            self._cost_s += row["cost_s"]
            if row["status"] == "ok" and (self._best is None or rank(row) > rank(self._best)):
                self._best = row
        if group is None:
            return []
        evaluation = jax.tree.map(jnp.asarray, self.account.evaluation(group))
        self._state = self._tell(self._state, group.proposal, evaluation)
        values = self._metrics(self._state) if self._metrics else {}
        found = {name: plain(np.asarray(value)) for name, value in values.items()}
        return [{"trials": len(self.account.rows), "wall_s": round(event["at"], 3), **found}]

    def _inheritable(self) -> dict[int, str]:
        """The artifacts that a later trial may inherit from, and the best trial's."""
        wanted = set(np.asarray(self._searcher.live(self._state)).tolist())
        wanted |= {parent for group in self.account.groups.values() for parent in group.parents.tolist()}
        if self._best is not None:
            wanted.add(self._best["id"])
        return {trial: digest for trial, digest in self.account.weights.items() if trial in wanted}


def _asked(proposal: Proposal) -> dict[str, Any]:
    """A proposal as the ledger has it."""
    names = ("ids", "archs", "parents", "fidelities")
    return {name: np.asarray(x).tolist() for name, x in zip(names, proposal, strict=True) if x is not None}
