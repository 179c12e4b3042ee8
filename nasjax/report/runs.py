"""A run as a report sees it: what its files say, and what follows from them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.report.metric import Metric, of, of_table

COSTS = {"latency_ms": "latency (ms)", "memory_mb": "memory (MB)"}
PROGRAM = "python -m nasjax.launch"  # where nobody says how it was started


class Trial(NamedTuple):
    """One line of trials.jsonl."""

    id: int
    order: int  # completion order, from 1
    arch: Any  # its JSON form
    fitness: float | None  # of several objectives the first; None = failed
    objectives: tuple[float, ...]  # all of them, each larger is better; () = failed
    result: float | None  # this architecture's final figure in a table; the search saw only the fitness
    cost_s: float | None
    params: int | None
    macs: int | None
    status: str
    error: str
    hash: str
    parent: int | None = None  # the trial that was mutated; -1 = drawn at random, None = not recorded
    indicators: Mapping[str, float] = {}  # numbers of its graph
    scores: Mapping[str, float] = {}  # training-free ones
    inherited: float | None = None  # the fraction of its weights that its parent gave it
    fidelity: int | None = None  # epochs that it was trained for in all; None = as all others
    costs: Mapping[str, float] = {}  # what else is known of its network: "latency_ms", "memory_mb"
    metrics: Mapping[str, float] = {}  # {"valid_accuracy": ...} where the fitness is that, weighed by costs

    @property
    def after(self) -> str:
        """How long it was trained, in words, where trials differ in that; else ""."""
        return "" if self.fidelity is None else f" after {self.fidelity:,} epoch{'s' if self.fidelity != 1 else ''}"


class Phase(NamedTuple):
    """One of the three parts of a one-shot run."""

    name: str
    seconds: float | None  # of wall-clock time so far, compiling included; None = not recorded yet
    state: str  # "not started", "running", "unfinished" or "finished"


class Run(NamedTuple):
    """One workdir."""

    folder: Path
    config: dict[str, Any]
    trials: list[Trial]  # in completion order
    metrics: list[dict[str, Any]]
    best_json: dict[str, Any]
    result: dict[str, Any]  # of retraining
    supernet: list[dict[str, Any]]  # of a one-shot run: an epoch of the supernet's training each
    optimum: dict[str, Any]  # of a one-shot run whose score is a sum: the provably best path
    truth: dict[str, Any]  # comparison with the true results of all architectures, where they are known
    standalone: list[dict[str, Any]]  # of a one-shot run: paths that were also trained alone
    ledger: list[dict[str, Any]]  # of an asynchronous search: events of its tasks
    unreadable: int  # damaged lines, a torn last line apart
    running: bool  # a search holds the workdir's lock
    written: float  # last change of the results, seconds since 1970
    program: str = PROGRAM  # what begins the commands of "What to run next"
    points: Sequence[dict[str, Any]] = ()  # results of trials whose networks were written with the search's weights
    baselines: Sequence[dict[str, Any]] = ()  # results of networks known by "name" that were trained in the workdir

    @property
    def done(self) -> list[Trial]:
        """Trials with a fitness."""
        return [t for t in self.trials if t.fitness is not None]

    @property
    def failed(self) -> list[Trial]:
        """Trials without one."""
        return [t for t in self.trials if t.fitness is None]

    @property
    def rungs(self) -> list[int]:
        """How long trials are trained, in epochs; [] where all are for equally long."""
        return sorted({t.fidelity for t in self.trials if t.fidelity is not None})

    @property
    def comparable(self) -> list[Trial]:
        """The trials with a result that may be the best: all, or where some are trained longer than others, those."""
        longest = max((t.fidelity or 0 for t in self.done), default=0)
        return [t for t in self.done if (t.fidelity or 0) == longest]

    @property
    def best(self) -> Trial | None:
        """The first trial of the highest fitness, of the longest trained; best.json where trials.jsonl has none."""
        if done := self.comparable:
            return max(done, key=lambda t: t.fitness or 0.0)
        return trial(self.best_json, 0) if "arch" in self.best_json else None

    @property
    def worst(self) -> Trial | None:
        """The trial of the lowest fitness, of the longest trained, if it is another than the best."""
        done = self.comparable
        return min(done, key=lambda t: t.fitness or 0.0) if len(done) > 1 else None

    @property
    def cost_s(self) -> float:
        """Sum of all costs, failed trials included."""
        return sum(t.cost_s or 0.0 for t in self.trials)

    @property
    def one_shot(self) -> bool:
        """Whether the run has, or will have, a supernet."""
        return bool(self.supernet) or "supernet" in mapping(self.config.get("config"))

    @property
    def trained(self) -> bool:
        """Whether the supernet's training has ended."""
        return bool(self.supernet) and self.supernet[-1].get("done") is True

    @property
    def metric(self) -> Metric:
        """What fitness stands for."""
        return of(self.config)

    @property
    def tested(self) -> tuple[Metric, float] | None:
        """The metric of retraining and its value on the test part; None = not retrained."""
        told = of(self.result) if "metric" in self.result else self.metric
        for name in (told.name, "accuracy"):
            if (value := number(self.result.get(f"test_{name}"))) is not None:
                return (told if name == told.name else Metric(name)), value
        return None

    @property
    def loss_unit(self) -> str:
        """The unit of the loss, "" = none. Older workdirs do not tell it; that of two of their tasks is known."""
        told = self.config.get("loss_unit")
        if isinstance(told, str):
            return told
        return "nats" if self.config.get("task") in (None, "classification", "language") else ""

    @property
    def looked_up(self) -> bool:
        """Whether results came from a table: nothing was trained, and a cost is the one that the table tells."""
        return self.config.get("strategy") == "table"

    @property
    def in_table(self) -> Metric:
        """What the figures of `Trial.result` are."""
        return of_table(self.metric, self.looked_up)

    @property
    def inline(self) -> bool:
        """Whether the driver evaluated the candidates itself, one task at a time; no task waits for a worker then."""
        workers = {event.get("worker") for event in self.ledger if event.get("event") == "started"}
        return not number(mapping(self.config.get("config")).get("workers")) and workers <= {0}

    @property
    def phases(self) -> list[Phase]:
        """Supernet, search and retraining of a one-shot run; [] for any other."""
        if not self.one_shot:
            return []
        now = "running" if self.running else "unfinished"
        searched = self.state if self.trials else "not started"
        retrained = "finished" if self.result else now if (self.folder / "retrain").is_dir() else "not started"
        supernet_s, search_s = (wall(rows) for rows in (self.supernet, self.metrics))
        return [
            Phase("supernet", supernet_s, "finished" if self.trained else now),
            Phase("search", search_s or self.cost_s, searched),
            Phase("retraining", number(self.result.get("seconds")), retrained),
        ]

    @property
    def spent_s(self) -> float:
        """What the run has cost: of a one-shot run all phases, else the sum of the trials."""
        phases = self.phases
        return sum(phase.seconds or 0.0 for phase in phases) if phases else self.cost_s

    @property
    def space(self) -> dict[str, Any]:
        """The resolved fields of the space."""
        for holder in (mapping(self.config.get("config")), self.config):
            if isinstance(holder.get("space"), dict):
                return holder["space"]
        return {}

    def name(self, what: str) -> str:
        """The name of the "method", "space" or "dataset", "" where unknown."""
        for holder in (self.config, mapping(self.config.get("config"))):
            value = holder.get(what)
            if isinstance(value, Mapping):
                value = value.get("name")
            if isinstance(value, str):
                return value
        if what == "space":
            return next(
                (str(t.arch["space"]) for t in self.trials if isinstance(t.arch, dict) and "space" in t.arch), ""
            )
        return ""

    def limit(self, what: str) -> float | None:
        """The budget's "trials", "wall_s" or "cost_s", None = no such limit."""
        inner = mapping(self.config.get("config"))
        for holder in (self.config, self.config.get("budget"), inner, inner.get("budget"), inner.get("search")):
            if (value := number(mapping(holder).get(what))) is not None:
                return value
        return None

    @property
    def command(self) -> str | None:
        """The command that began the search, for its workdir where that is now; None = a program began it."""
        told = self.config.get("command")
        if not isinstance(told, str):
            return None
        try:
            words = shlex.split(told)
        except ValueError:  # written by hand
            return told
        for n, word in enumerate(words):
            name, equals, place = word.partition("=")
            if name in ("--workdir", "-workdir"):
                place = place if equals else " ".join(words[n + 1 : n + 2])
                if Path(place).resolve() != self.folder.resolve():  # it was moved, or began in another folder
                    return shlex.join([*words[:n], f"--workdir={self.folder}", *words[n + 2 - bool(equals) :]])
        return told

    @property
    def why(self) -> str:
        """Why the search ended before it had its trials; "" = it did not."""
        told = self.metrics[-1].get("why") if self.metrics else None
        return told if isinstance(told, str) else ""

    @property
    def had_all(self) -> bool:
        """Whether the search had all trials that were asked for."""
        return bool((limit := self.limit("trials")) and len(self.trials) >= limit)

    @property
    def state(self) -> str:
        """ "finished", "running" or "unfinished"."""
        last = self.metrics[-1] if self.metrics else {}
        if self.trials and "epoch" in last:  # by gradients: the derived cell is the end
            return "finished"
        if self.limit("trials") == 0 and self.trained:
            return "finished"  # only a supernet was asked for
        if "epoch" not in last and last.get("done") is True:
            return "finished"  # nothing was left to try
        spent = {"trials": float(len(self.trials)), "wall_s": wall(self.metrics), "cost_s": self.cost_s}
        if any((limit := self.limit(what)) and spent[what] >= limit - 1e-3 for what in spent):  # wall_s is rounded
            return "finished"
        return "running" if self.running else "unfinished"


def number(value: Any) -> float | None:
    """`value` as a finite float, None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        return None
    return float(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def wall(rows: Sequence[Mapping[str, Any]]) -> float:
    """Seconds at the last line of a .jsonl file of metrics."""
    return max((number(row.get("wall_s")) or 0.0 for row in rows), default=0.0)


def _count(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _numbers(tree: Any) -> dict[str, float]:
    return {str(name): value for name, told in mapping(tree).items() if (value := number(told)) is not None}


def trial(row: dict[str, Any], order: int) -> Trial:
    """One line of trials.jsonl, the `order`-th to complete; whatever is damaged counts as missing."""
    fitness = row.get("fitness")
    values = [number(v) for v in (fitness if isinstance(fitness, Sequence) and fitness else [fitness])]
    score = None if None in values else values[0]  # NaN in any objective = failed
    status = row.get("status")
    if not isinstance(status, str) or (status == "ok") != (score is not None):
        status = "failed" if score is None else "ok"
    trial_id = _count(row.get("id"))
    return Trial(
        id=order - 1 if trial_id is None else trial_id,
        order=order,
        arch=row.get("arch"),
        fitness=score if status == "ok" else None,
        objectives=tuple(value for value in values if value is not None) if status == "ok" else (),
        result=number(row.get("result")),
        cost_s=number(row.get("cost_s")),
        params=_count(row.get("params")),
        macs=_count(row.get("macs")),
        status=status,
        error=str(row.get("error") or ""),
        hash=str(row.get("hash") or ""),
        parent=_count(row.get("parent")),
        indicators=_numbers(row.get("indicators")),
        scores=_numbers(row.get("scores")),
        inherited=number(row.get("inherited")),
        fidelity=_count(row.get("fidelity")),
        costs=_numbers({name: row.get(name) for name in COSTS}),
        metrics=_numbers({name: value for name, value in row.items() if name.startswith("valid_")}),
    )
