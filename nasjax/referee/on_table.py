"""A table as a problem of a comparison."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from nasjax.evaluators.fidelities import parsed
from nasjax.evaluators.table import check_accuracies, chosen_columns, require_cost
from nasjax.referee import draws, figures, looked_up, truth
from nasjax.referee.contest import Entrant, Field, Rules
from nasjax.referee.course import Course, incumbents, taken
from nasjax.referee.external import Proposer
from nasjax.referee.figures import Judged
from nasjax.types import Metric

COLUMNS = ("reward", "test")  # of the table, by their use


def field(
    name: str,
    metric: Metric,
    space: Any,
    settings: Any,
    entrants: tuple[Entrant, ...],
    rules: Rules,
    *,
    target: float | None = None,
    runs: str | None = None,
    facts: dict[str, Any],
) -> Field:
    """The problem of a table.

    Args:
      name: of the problem; its seeds follow from it.
      metric: of the rewards, and of the test values.
      space: of the architectures.
      settings: of the table (`TableConfig`): file and columns.
      entrants: that take part.
      rules: of the comparison.
      target: a value of the metric whose cost is asked about, beside the best of the table.
      runs: a column (N, runs) of the same rewards, for the noise ceiling where the rewards are one run or a mean.
      facts: for the record.

    Raises ValueError where the file cannot be read, a column is missing or has another unit, or what trains in rungs is
    told other rewards than the rest.
    """
    seen = truth.seen(space, settings)
    if metric.unit == "fraction":
        check_accuracies(seen.table, settings.path)
    if rules.cost is not None and settings.cost is None:
        require_cost(settings.path, space, settings.fitness)
    _require_same_rewards(seen, settings, entrants)
    repeated = seen if runs is None else truth.seen(space, settings, runs)
    seeds = draws.seeds(rules.master, name, rules.seeds, "search")
    noise = draws.seeds(rules.master, name, rules.seeds, "noise")
    tops = truth.tops(seen, noise)
    targets = {"the best reward of the table": tops}
    if target is not None:
        targets["the target"] = np.full(rules.seeds, metric.value(target))

    def begin(entrant: Entrant, trials: int, n: int) -> Proposer:
        assert entrant.begin is not None
        order = draws.drawn(rules.master, name, n, "labels")
        orders = None if rules.named else draws.relabelled(order, space.sites)
        return Proposer(entrant.begin(), space, seeds[n], trials, orders, entrant.name, table=True)

    def search(entrant: Entrant) -> Course:
        def searched(trials: int) -> Course:
            options: dict[str, Any] = {"trials": trials, "width": entrant.width, "budget": rules.cost}
            if entrant.searcher is not None:
                return looked_up.searched(seen, entrant.searcher, seeds, noise, **options)
            return looked_up.proposed(seen, lambda n: begin(entrant, trials, n), noise, **options)

        if rules.trials is not None:
            return searched(rules.trials)
        own = seen if entrant.evaluator is not None else seen._replace(table=seen.table._replace(rungs=None))
        return looked_up.spending(own, rules.limit, searched, once=entrant.searcher is None)

    def judge(courses: dict[str, Course]) -> tuple[dict[str, Judged], dict[str, Any]]:
        opened = truth.opened(space, settings)
        if metric.unit == "fraction":
            check_accuracies(seen.table._replace(result=opened), settings.path)
        result = opened.astype(np.float64)
        found = {}
        for entrant, course in courses.items():
            values = np.where(course.place < 0, np.nan, result[np.maximum(course.place, 0)])
            final = taken(values, incumbents(course)[:, -1:])[:, 0]
            found[entrant] = Judged(course, final, values)
        digest = hashlib.sha256()
        for column in (seen.runs, seen.table.cost, seen.table.known, result):
            digest.update(np.ascontiguousarray(column).tobytes())
        return found, {"ceiling": figures.ceiling(repeated.runs, result), "data": digest.hexdigest()}

    columns = chosen_columns(settings.path, space, settings.fitness, settings.result)
    told = {**facts, "architectures": int(seen.table.known.sum()), "columns": dict(zip(COLUMNS, columns, strict=True))}
    return Field(name, metric, entrants, told, search, judge, targets)


def _require_same_rewards(seen: truth.Seen, settings: Any, entrants: tuple[Entrant, ...]) -> None:
    """Raises ValueError where who trains in rungs is told of whole trainings what others are not."""
    rungs, who = seen.table.rungs, [entrant.name for entrant in entrants if entrant.evaluator is not None]
    if rungs is None or not who:
        return
    if seen.runs.shape[1] > 1:
        raise ValueError(
            f"{who[0]} trains in rungs, which are of one run; choose one: --set table.fitness={settings.fitness}[0]"
        )
    last, known = parsed(settings.fidelities)[-1], seen.table.known
    pairs = ((seen.table.fitness, rungs.fitness[:, -1]), (seen.table.cost, rungs.cost[:, -1]))
    if not all(np.array_equal(one[known], other[known], equal_nan=True) for one, other in pairs):
        raise ValueError(
            f"{who[0]} trains in rungs; all others must be told and pay for its last one: --set "
            f"table.fitness={last.fitness} --set table.cost={last.cost} --set table.cost_scale={last.cost_scale:g}"
        )
