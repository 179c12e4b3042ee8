"""What a search counts: costs, deaths, the best of equals and its weights, and the clock of a run that goes on."""

import json

import jax
import numpy as np
import pytest

from nasjax.drive.account import Account
from nasjax.drive.search import search
from nasjax.drive.work import Answer, Work, worker
from nasjax.runtime.simulated import simulated
from nasjax.searchers.random import random_search
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.store import artifacts
from nasjax.types import Budget, Evaluation, Evaluator, Failure, Status

SPACE = TabularCell(edges=1)


def events(path):
    return [json.loads(line) for line in (path / "ledger.jsonl").read_text().splitlines()]


def run(path, fitness, trials=6, attempts=None, searcher=None, **options):
    """A search on one worker, a virtual second and a cost of 2 for each trial, whose weights are its number."""
    attempts = [] if attempts is None else attempts

    def work(task):
        (trial,) = task.ids.tolist()
        attempts.append((trial, {parent: int(artifacts.load(path, w)["w"]) for parent, w in task.weights.items()}))
        value = fitness(trial)
        if isinstance(value, Failure):
            return value
        status = Status.OK if np.isfinite(value) else Status.FAILED
        info = {"error": ["" if np.isfinite(value) else "NaN"]}
        evaluation = Evaluation(np.float32([value]), np.float32([2]), np.int8([status]), info)
        return Answer(evaluation, {trial: artifacts.save(path, {"w": np.int32(trial)})})

    path.mkdir(exist_ok=True)
    options = {"describe": lambda arch: {"arch": arch.tolist(), "params": 1, "macs": 1}, **options}
    runtime = simulated(work, lambda task, result: 1.0)
    searcher = searcher or random_search(SPACE)
    return search(jax.random.key(0), searcher, runtime, workdir=path, budget=Budget(trials), **options)


def test_failures_cost_what_they_took(tmp_path):
    end = run(tmp_path, lambda trial: np.nan if trial == 2 else trial)
    assert (end.failed, end.cost_s) == (1, 12.0)


def test_the_first_of_equals_is_the_best_and_keeps_its_weights(tmp_path):
    end = run(tmp_path, lambda trial: float(trial in (2, 4)))
    assert end.best["id"] == 2 and artifacts.stored(tmp_path) == {end.weights}
    assert int(artifacts.load(tmp_path, end.weights)["w"]) == 2


def test_the_clock_goes_on_where_it_stopped(tmp_path):
    assert run(tmp_path, float, trials=3).wall_s == 3.0
    assert run(tmp_path, float, trials=5).wall_s == 5.0
    at = [event["at"] for event in events(tmp_path)]
    assert at == sorted(at)


def test_a_resumed_search_proposes_what_it_would_have(tmp_path, capsys):
    """Its replay asks by the same key: nothing differs from what the ledger says."""
    run(tmp_path, float, trials=3)
    run(tmp_path, float, trials=6)
    asked = [event["archs"] for event in events(tmp_path) if event["event"] == "asked"]
    run(tmp_path / "whole", float, trials=6)
    assert asked == [event["archs"] for event in events(tmp_path / "whole") if event["event"] == "asked"]
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("blameless", "tries", "status"),
    [([False] * 5, 3, "lost"), ([True] * 5, 6, "ok"), ([True] * 4 + [False] * 2, 7, "ok")],
)
def test_three_deaths_are_enough_but_for_preemptions(tmp_path, blameless, tries, status):
    """Trial 1 loses so many workers."""
    attempts, left = [], iter(blameless)

    def fitness(trial):
        preempted = next(left, None) if trial == 1 else None
        return 0.5 if preempted is None else Failure(Status.LOST, "gone", blameless=preempted)

    end = run(tmp_path, fitness, 2, attempts)
    assert [trial for trial, _ in attempts].count(1) == tries
    assert {row["id"]: row["status"] for row in account_of(tmp_path).rows} == {0: "ok", 1: status}
    assert end.failed == (status == "lost")


def account_of(path):
    account = Account()
    for event in events(path):
        account.add(event)
    return account


def test_a_worker_hands_the_parents_weights_on(tmp_path):
    seen = []

    def evaluate(key, proposal, inherited):
        seen.append(inherited and {parent: int(tree["w"]) for parent, tree in inherited.items()})
        return Evaluation(np.zeros(1), np.zeros(1), np.int8([Status.OK]), {}), None

    work, key = worker(Evaluator(evaluate), tmp_path), np.asarray(jax.random.key_data(jax.random.key(0)))
    digest = artifacts.save(tmp_path, {"w": np.int32(7)})
    for weights in ({3: digest}, {}):
        work(Work(key, np.array([5]), np.array([[0]]), np.array([3]), weights))
    assert seen == [{3: 7}, None]


def test_a_searcher_is_told_nan_of_what_failed(tmp_path):
    told = []
    plain = random_search(SPACE)

    def tell(state, proposal, evaluation):
        jax.debug.callback(lambda f, s: told.append((float(f[0]), int(s[0]))), evaluation.fitness, evaluation.status)
        return plain.tell(state, proposal, evaluation)

    reason = lambda row: "too large" if row["arch"] == [0] else None  # noqa: E731
    run(tmp_path, lambda trial: np.nan if trial == 2 else 0.5, 12, searcher=plain._replace(tell=tell), refuse=reason)
    jax.effects_barrier()
    rows = [event["rows"][0] for event in events(tmp_path) if event["event"] == "told"]
    assert [np.isfinite(value) for value, _ in told] == [row["status"] == "ok" for row in rows]
    assert {row["status"] for row in rows} == {"ok", "failed", "rejected"}
    assert [status for _, status in told] == [Status[row["status"].upper()] for row in rows]
