"""The comparison itself: every search first, then the tests, then the figures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasjax.drive.heartbeat import far
from nasjax.referee import figures
from nasjax.referee.course import Course, incumbents, taken
from nasjax.referee.draws import drawn
from nasjax.referee.external import Line
from nasjax.referee.figures import BASELINE, Judged
from nasjax.types import Evaluator, Metric, Searcher


class Entrant(NamedTuple):
    """Who takes part in a problem: a searcher of ours or of a plugin, or what proposes by messages."""

    name: str
    searcher: Searcher | None
    width: int = 1
    begin: Callable[[], Line] | None = None  # starts what proposes, once for every seed
    evaluator: Callable[[], Evaluator] | None = None  # that goes on with trainings as the searcher asks, if it does
    facts: Mapping[str, Any] = {}  # for the record: method, settings, command


class Rules(NamedTuple):
    """What is equal for all."""

    master: int  # decides every seed
    seeds: int
    limit: float  # of the cost
    unit: str  # of the cost: "trials", "seconds", "multiply-adds"
    named: bool = False  # whether those that propose by messages see the names of choices of a table

    @property
    def trials(self) -> int | None:
        """The limit where it is a number of trials."""
        return int(self.limit) if self.unit == "trials" else None

    @property
    def cost(self) -> float | None:
        """The limit where it is a sum of costs."""
        return None if self.unit == "trials" else self.limit


class Field(NamedTuple):
    """A problem with all that take part.

    search(entrant) -> Course
    judge({name: Course}) -> ({name: Judged}, facts that the tests told)      after all searches, once
    """

    name: str
    metric: Metric
    entrants: tuple[Entrant, ...]
    facts: dict[str, Any]
    search: Callable[[Entrant], Course]
    judge: Callable[[dict[str, Course]], tuple[dict[str, Judged], dict[str, Any]]]
    targets: Mapping[str, np.ndarray] = {}  # name -> f64[S], rewards whose cost is compared


def contest(
    fields: Sequence[Field], rules: Rules, say: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs a comparison: what came out, and the seconds that everything took. Raises ValueError as its searches do."""
    courses: dict[str, dict[str, Course]] = {}
    for field in fields:
        courses[field.name] = {}
        for entrant in field.entrants:
            with far(functools.partial("{}: {}, {} seeds".format, field.name, entrant.name, rules.seeds)):
                course = field.search(entrant)
            courses[field.name][entrant.name] = course
            say(f"{field.name}: {entrant.name}, {rules.seeds} seeds in {course.calls:.1f} s")
    say("all searches are over; the tests are opened")
    told: dict[str, Any] = {
        "seed": str(rules.master),  # too long for a number of JSON
        "seeds": rules.seeds,
        "budget": {"limit": rules.limit, "unit": rules.unit},
        "named": rules.named,
        "problems": {},
    }
    every: dict[str, list[np.ndarray]] = {}
    for field in fields:
        judged, more = field.judge(courses[field.name])
        weights = figures.resamples(drawn(rules.master, field.name, "bootstrap"), rules.seeds)
        told["problems"][field.name] = {**_told(field, judged, rules, weights), **more}
        for name, placed in figures.ranks({name: one.final for name, one in judged.items()}).items():
            every.setdefault(name, []).append(placed)
    told["ranks"] = {name: np.mean(placed) for name, placed in every.items()}
    spent = {field.name: {name: c.calls for name, c in courses[field.name].items()} for field in fields}
    return told, {"seconds": spent}


def _told(field: Field, judged: dict[str, Judged], rules: Rules, weights: np.ndarray) -> dict[str, Any]:
    places = figures.grid(rules.limit, rules.unit == "trials")
    targets = {**field.targets, f"the mean that {BASELINE} ends with": _ends(judged[BASELINE].course)}
    curves: dict[str, Any] = {"cost": places, "reward": {}}
    for name, one in judged.items():
        curves["reward"][name] = figures.curve(one, places, one.course.reward)
        if one.values is not None:
            curves.setdefault("test", {})[name] = figures.curve(one, places, one.values)
    return {
        "metric": field.metric._asdict(),
        "facts": field.facts,
        "entrants": {entrant.name: {"width": entrant.width, **entrant.facts} for entrant in field.entrants},
        "finals": {name: one.final for name, one in judged.items()},
        "chosen": {name: taken(one.course.place, incumbents(one.course)[:, -1:])[:, 0] for name, one in judged.items()},
        "table": figures.table(judged, weights),
        "targets": {
            target: {
                "reward": float(np.mean(values)),
                "cost": {name: figures.to_target(one.course, values) for name, one in judged.items()},
            }
            for target, values in targets.items()
        },
        "curves": curves,
    }


def _ends(random: Course) -> np.ndarray:
    """The mean reward with which random search ends, for every seed the same."""
    ends = taken(random.reward, incumbents(random)[:, -1:])[:, 0]
    return np.full(len(ends), np.nanmean(ends))
