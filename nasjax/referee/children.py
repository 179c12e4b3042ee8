"""A problem without a table: candidates are really trained, and what each search chose is trained twice more.

The budget is a number of candidates or the multiply-adds of their training. Searches keep ledgers, so that a comparison
goes on where it was killed. What is compared is the mean test metric of two trainings of the chosen architecture, with
seeds that the referee draws: the luck of the training by which it was chosen counts for nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.search import search
from nasjax.drive.streams import streams
from nasjax.drive.work import worker
from nasjax.problem.problem import Problem
from nasjax.referee.contest import Entrant, Field, Rules
from nasjax.referee.course import Course, incumbents
from nasjax.referee.draws import drawn, seeds
from nasjax.referee.external import Proposer
from nasjax.referee.figures import Judged
from nasjax.referee.spoken import spoken
from nasjax.runtime.inline import inline
from nasjax.store import checkpoint
from nasjax.types import Budget, Evaluator, Experiment, Proposal, Searcher

TRAININGS = 2  # of what was chosen
_REFUSED = 200  # candidates that may be refused, at no cost, before one is trained


class _SpentError(Exception):
    """The multiply-adds are spent."""


def field(
    name: str,
    problem: Problem,
    make: Callable[[Problem], Experiment],
    entrants: tuple[Entrant, ...],
    rules: Rules,
    folder: Path | None,
    target: float | None,
    facts: dict[str, Any],
) -> Field:
    """The problem of training candidates.

    Args:
      name: of the problem; its seeds follow from it.
      problem: how candidates are trained, and on what.
      make: the method whose evaluator trains them.
      entrants: that take part.
      rules: of the comparison.
      folder: for the ledgers; None = they go to a temporary one.
      target: a value of the metric whose cost is asked about.
      facts: for the record.

    Raises ValueError where the cost is of a table, or as the problem.
    """
    if rules.unit == "seconds":
        raise ValueError(f"--seconds are a table's; {name} trains its candidates: give --trials=N or --macs=N")
    experiment, numbers = make(problem), seeds(rules.master, name, rules.seeds, "search")
    facts = {**facts, "data": problem.data.sha256}
    archs: list[np.ndarray] = []
    places: dict[bytes, int] = {}
    samples, whole = len(problem.data.train.y), problem.config.recipe.epochs

    def place(arch: np.ndarray) -> int:
        if arch.tobytes() not in places:
            places[arch.tobytes()] = len(archs)
            archs.append(arch)
        return places[arch.tobytes()]

    def costs(rows: list[dict[str, Any]]) -> list[float]:
        return trained(rows, samples, whole)

    def one(entrant: Entrant, n: int, path: Path) -> list[dict[str, Any]]:
        """The trials of a search, in the order in which they were asked."""
        path.mkdir(parents=True, exist_ok=True)

        def spent(*told: Any) -> None:
            rows = checkpoint.read_lines(path / "trials.jsonl")
            if rules.cost is not None and sum(costs(rows)) >= rules.cost:
                raise _SpentError
            if rules.cost is not None and len(rows) >= _REFUSED and all(row["status"] == "rejected" for row in rows):
                raise ValueError(f"{entrant.name}: the first {len(rows)} candidates were refused: {rows[-1]['error']}")

        with _searcher(entrant, problem, numbers[n], rules, samples * whole) as searcher:
            work = worker((entrant.evaluator or experiment.evaluator)(), path, experiment.describe(), experiment.refuse)  # type: ignore[misc]
            budget = Budget(trials=rules.trials)
            options = {"workdir": path, "budget": budget, "describe": problem.named, "width": entrant.width}
            try:
                spent()
                search(streams(numbers[n]).search, searcher, inline(work), on_told=spent, **options)  # type: ignore[arg-type]
            except _SpentError:
                pass
        return sorted(checkpoint.read_lines(path / "trials.jsonl"), key=lambda row: int(row["id"]))

    def searched(entrant: Entrant) -> Course:
        began = time.perf_counter()
        told = json.dumps([facts, entrant.facts, entrant.width, rules.limit, rules.unit], sort_keys=True)
        kind = hashlib.sha256(told.encode()).hexdigest()[:8]
        with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory() as place_:
            ways = [Path(str(place_)) / name / f"{entrant.name}-{kind}-{number}" for number in numbers]
            rows = [one(entrant, n, path) for n, path in enumerate(ways)]
        return _course(rows, problem, place, costs, rules, time.perf_counter() - began)

    def judge(courses: dict[str, Course]) -> tuple[dict[str, Judged], dict[str, Any]]:
        trained, known = _tested(problem, make), dict[tuple[int, int], list[float]]()

        def results(chosen: int, n: int) -> list[float]:
            if (chosen, n) not in known:
                keys = [drawn(rules.master, name, n, "training", k) for k in range(TRAININGS)]
                known[chosen, n] = [_fitness(trained, archs[chosen], key) for key in keys]
            return known[chosen, n]

        found, every = {}, {}
        for entrant, course in courses.items():
            best = incumbents(course)[:, -1]
            pairs = [
                results(int(course.place[n, trial]), n) if trial >= 0 else [np.nan] * TRAININGS
                for n, trial in enumerate(best.tolist())
            ]
            every[entrant] = np.array(pairs)
            found[entrant] = Judged(course, every[entrant].mean(1))
        whole = np.concatenate(list(every.values()))
        noise = float(np.sqrt(np.nanmean(whole.var(axis=1, ddof=1))))
        encoded = [problem.space.encode(arch) for arch in archs]
        return found, {"trainings": every, "ceiling": {"deviation": noise}, "architectures": encoded}

    targets = {} if target is None else {"the target": np.full(rules.seeds, problem.metric.value(target))}
    return Field(name, problem.metric, entrants, facts, searched, judge, targets)


def trained(rows: list[dict[str, Any]], samples: int, whole: int) -> list[float]:
    """Multiply-adds of every training; of one that goes on those of the added epochs, none of what was refused.

    Args:
      rows: of trials.jsonl, by id.
      samples: of an epoch.
      whole: epochs of a training where the rows do not tell.
    """
    epochs = {row["id"]: row.get("fidelity", whole) for row in rows}
    begun = [epochs[row["parent"]] if "fidelity" in row and row["parent"] >= 0 else 0 for row in rows]
    return [
        0.0 if row["status"] == "rejected" else float(row["macs"] or 0) * samples * (epochs[row["id"]] - before)
        for row, before in zip(rows, begun, strict=True)
    ]


@contextmanager
def _searcher(entrant: Entrant, problem: Problem, seed: int, rules: Rules, each: int) -> Iterator[Searcher]:
    """The Searcher of an entrant, while it is needed."""
    if entrant.searcher is not None:
        yield entrant.searcher
        return
    assert entrant.begin is not None

    def cost(arch: np.ndarray) -> float:
        return float(problem.describe(arch)["macs"] or 0) * each

    asked = Proposer(entrant.begin(), problem.space, seed, rules.trials or 0, None, entrant.name)
    with asked as proposer, spoken(proposer, problem.space, cost) as searcher:
        yield searcher


def _course(
    rows: list[list[dict[str, Any]]],
    problem: Problem,
    place: Callable[[np.ndarray], int],
    costs: Callable[[list[dict[str, Any]]], list[float]],
    rules: Rules,
    seconds: float,
) -> Course:
    """The rows of all seeds; the trial that exceeds the budget does not count, nor any after it."""
    shape = (len(rows), max(map(len, rows)))
    places, reward, spent = np.full(shape, -1), np.full(shape, np.nan), np.full(shape, np.inf)
    fidelity = np.zeros(shape, np.int64)
    for n, found in enumerate(rows):
        totals = np.cumsum(costs(found) if rules.cost is not None else np.ones(len(found)))
        for t, (row, total) in enumerate(zip(found, totals, strict=True)):
            if isinstance(row["arch"], dict):  # else it could not be built
                places[n, t] = place(np.asarray(problem.space.decode(row["arch"]), np.int32))
                reward[n, t] = np.nan if row["fitness"] is None else row["fitness"]
            fidelity[n, t] = row.get("fidelity", 0)
            spent[n, t] = total if total <= rules.limit else np.inf
    return Course(places, reward, spent, seconds, fidelity)


def _tested(problem: Problem, make: Callable[[Problem], Experiment]) -> Evaluator:
    """Trains as in the search, and judges by the test part after the last epoch."""
    other = Problem(dataclasses.replace(problem.config, last_epochs=1))
    other.__dict__["data"] = problem.data._replace(valid=problem.test())
    evaluator = make(other).evaluator
    assert evaluator is not None
    return evaluator()


def _fitness(evaluator: Evaluator, arch: np.ndarray, seed: int) -> float:
    """Of one training; NaN = it failed."""
    none = jnp.full(1, -1, jnp.int32)
    proposal = Proposal(jnp.zeros(1, jnp.int32), jnp.asarray(arch)[None], none)
    found = evaluator.evaluate(jax.random.key(seed), proposal, None)[0]
    return float(np.asarray(found.fitness)[0])
