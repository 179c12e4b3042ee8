import json
import threading
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.full_disk import full_disk

from nasjax.drive import search as drive
from nasjax.drive.work import worker
from nasjax.report.workdir import read
from nasjax.runtime.inline import inline, left_behind, within
from nasjax.searchers.random import random_search
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.store import checkpoint, unfinished
from nasjax.store.checkpoint import RunError
from nasjax.train import underway
from nasjax.types import Budget, Evaluation, Evaluator, Status

SPACE = ConvChain(2, 2, (1, 3), (1, 3), (4, 8))


@dataclass
class Toy:
    """Fitness = mean of the active choices plus noise of the trial's own key; id `fails` fails, `raises` raises."""

    fails: int = -9
    raises: int = -9
    calls: int = 0

    def evaluator(self) -> Evaluator:
        def evaluate(key, proposal, inherited):
            self.calls += 1
            if self.raises in np.asarray(proposal.id):
                raise OSError("worker\nfell over")
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, proposal.id)
            noise = jax.vmap(jax.random.uniform)(keys)
            fitness = jnp.maximum(proposal.arch, 0).mean(1) + 0.01 * noise
            bad = proposal.id == self.fails
            status = jnp.where(bad, Status.FAILED, Status.OK).astype(jnp.int8)
            info = {"error": ["loss became NaN" if b else "" for b in bad], "loss": jnp.where(bad, jnp.nan, noise)}
            return Evaluation(jnp.where(bad, jnp.nan, fitness), jnp.full(len(noise), 0.5), status, info), None

        return Evaluator(evaluate)


def describe(arch):
    return {"arch": SPACE.encode(arch), "params": int(arch.sum()), "macs": 7}


def run(path, trials=12, width=4, toy=None, searcher=None, **options):
    path.mkdir(exist_ok=True)
    toy = toy or Toy()
    budget = options.pop("budget", Budget(trials))
    return drive.search(
        jax.random.key(5),
        searcher or random_search(SPACE),
        inline(worker(toy.evaluator(), path, save_every=options.pop("save_every", 60.0))),
        workdir=path,
        budget=budget,
        width=width,
        describe=describe,
        metrics=lambda state: {"leaves": jnp.float32(len(jax.tree.leaves(state)))},
        **options,
    )


def test_leaves_what_the_design_promises(tmp_path):
    summary = run(tmp_path / "a")
    rows = [json.loads(line) for line in (tmp_path / "a/trials.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(12))
    assert all(
        set(row) == {"id", "parent", "arch", "params", "macs", "fitness", "cost_s", "status", "error", "loss"}
        for row in rows
    )
    best = json.loads((tmp_path / "a/best.json").read_text())
    assert best == max(rows, key=lambda row: row["fitness"]) == summary.best
    assert len((tmp_path / "a/metrics.jsonl").read_text().splitlines()) == 3
    assert summary.trials == 12 and summary.failed == 0 and summary.cost_s == 6.0


@pytest.mark.parametrize("torn", ["", '{"id": 8, "par'])
def test_resume_equals_uninterrupted(tmp_path, torn):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", trials=8)
    with (tmp_path / "parts/trials.jsonl").open("a") as file:  # killed while the third round was being written
        file.write(json.dumps({"id": 8}) + "\n" + torn)
    parts = run(tmp_path / "parts")
    assert parts.resumed == 8
    assert (tmp_path / "parts/trials.jsonl").read_bytes() == (tmp_path / "whole/trials.jsonl").read_bytes()
    for a, b in zip(jax.tree.leaves(parts.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("write", [3, 6])
def test_a_search_goes_on_once_a_full_disk_has_room(tmp_path, write):
    with full_disk(write), pytest.raises(RunError, match="No space left on device"):
        run(tmp_path / "full")
    run(tmp_path / "full")
    run(tmp_path / "whole")
    assert (tmp_path / "full/trials.jsonl").read_bytes() == (tmp_path / "whole/trials.jsonl").read_bytes()


def test_states_of_trainings_are_kept_until_their_trials_are_told(tmp_path):
    folder, seen = tmp_path / "a" / unfinished.NAME, []

    class Training(Toy):
        def evaluator(self):
            plain = super().evaluator()

            def evaluate(key, proposal, inherited):
                for trial in proposal.id.tolist():
                    with underway.training(f"{trial}-x", lambda state: {"state": {"0": np.float32(state)}}):
                        underway.reached(trial)
                seen.append(sorted(file.name for file in folder.iterdir()))
                return plain.evaluate(key, proposal, inherited)

            return Evaluator(evaluate)

    run(tmp_path / "a", trials=4)
    assert not folder.exists()
    unfinished.save(tmp_path / "a", "3-x", {})  # by a run that was killed after it had told it
    run(tmp_path / "a", trials=8, toy=Training(), save_every=0.0)
    assert seen == [["4-x.npz", "5-x.npz", "6-x.npz", "7-x.npz"]] and not list(folder.iterdir())
    run(tmp_path / "a", trials=12, toy=Training())  # short ones
    assert seen[1:] == [[]]


@pytest.mark.slow
def test_short_last_round_and_a_longer_budget(tmp_path):
    whole = run(tmp_path / "whole", trials=12)
    assert run(tmp_path / "parts", trials=6).trials == 6
    toy = Toy()
    assert run(tmp_path / "parts", trials=6, toy=toy).trials == 6
    assert run(tmp_path / "parts", trials=5, toy=toy).trials == 6  # a smaller budget deletes nothing
    assert toy.calls == 0  # a finished run only tells its summary
    assert run(tmp_path / "parts", trials=12).trials == whole.trials
    assert (tmp_path / "parts/trials.jsonl").read_bytes() == (tmp_path / "whole/trials.jsonl").read_bytes()


def test_failures_are_values(tmp_path):
    summary = run(tmp_path / "a", toy=Toy(fails=3, raises=5))
    rows = [json.loads(line) for line in (tmp_path / "a/trials.jsonl").read_text().splitlines()]
    assert summary.failed == 5 and summary.best["status"] == "ok"
    assert (rows[3]["fitness"], rows[3]["status"], rows[3]["error"], rows[3]["loss"]) == (
        None,
        "failed",
        "loss became NaN",
        None,
    )
    assert {row["error"] for row in rows[4:8]} == {"OSError: worker fell over"}
    assert all(row["error"] is None for row in rows[8:])


def test_limits_reject_without_training(tmp_path):
    def refuse(row):
        return "params over the limit" if row["params"] > 4 else None

    summary = run(tmp_path / "a", trials=40, refuse=refuse)
    rows = [json.loads(line) for line in (tmp_path / "a/trials.jsonl").read_text().splitlines()]
    rejected = [row for row in rows if row["params"] > 4]
    assert rejected and all(row["status"] == "rejected" and row["fitness"] is None for row in rejected)
    assert summary.failed == len(rejected) and summary.best["params"] <= 4
    free = run(tmp_path / "b", trials=40)
    kept = [row["id"] for row in rows if row["status"] == "ok"]
    other = [json.loads(line) for line in (tmp_path / "b/trials.jsonl").read_text().splitlines()]
    assert all(other[i]["fitness"] == rows[i]["fitness"] for i in kept)  # neighbours do not matter
    assert free.failed == 0


def test_every_candidate_failing_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match=r"every candidate failed.*fell over"):
        run(tmp_path / "a", trials=4, toy=Toy(raises=1))


def test_of_several_errors_the_first_is_told(tmp_path):
    errors = iter(("no such layer", "too large", "too large"))
    with pytest.raises(RunError, match=r"the first one: no such layer \(2 different errors: see trials.jsonl\)"):
        run(tmp_path / "a", trials=3, width=1, refuse=lambda row: next(errors))


def test_other_budgets(tmp_path):
    assert run(tmp_path / "cost", budget=Budget(cost_s=5.0)).trials == 12  # the round that reaches it is the last


def test_what_takes_longer_than_it_may_is_left_behind():
    go = threading.Event()
    assert within(None, lambda: 7) == within(60, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0)
    with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
        within(0.05, lambda: go.wait(60))
    assert left_behind()
    go.set()


class Hung:
    """A searcher's work that does not return from trial 4 on, until it is let go."""

    def __init__(self, toy):
        self.toy, self.go = toy, threading.Event()

    def evaluator(self):
        inner = self.toy.evaluator()

        def evaluate(key, proposal, inherited):
            if max(proposal.id) >= 4:
                self.go.wait(60)
            return inner.evaluate(key, proposal, inherited)

        return Evaluator(evaluate)


@pytest.mark.parametrize("limit", [{"wall_s": 1.0}, {"cost_s": 2.5}])
def test_a_limit_of_time_ends_what_does_not_return(tmp_path, limit):
    """And the search that is repeated is over at once; with a larger budget it goes on to the same trials."""
    toy, (name,) = Hung(Toy()), limit
    run(tmp_path / "a", trials=4)
    began = time.monotonic()
    first = run(tmp_path / "a", budget=Budget(8, **limit), toy=toy)
    assert time.monotonic() - began < 10 and (first.trials, first.best is None) == (4, False)
    again = run(tmp_path / "a", budget=Budget(8, **limit), toy=toy)
    assert again.trials == 4 and first.why == again.why and first.why.startswith(f"{name}={limit[name]:g} seconds")
    events = [json.loads(line) for line in (tmp_path / "a/ledger.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] not in ("asked", "started", "told")] == [
        "resumed",
        "ended",
    ]
    state = read(tmp_path / "a")
    assert state.why == first.why and state.state == "finished"
    toy.go.set()
    last = run(tmp_path / "a", trials=8)
    whole = run(tmp_path / "b", trials=8)
    assert last.why == "" and last.trials == whole.trials == 8
    assert (tmp_path / "a/trials.jsonl").read_bytes() == (tmp_path / "b/trials.jsonl").read_bytes()


def test_nothing_has_returned_within_the_limit(tmp_path):
    with pytest.raises(RunError, match=r"wall_s=0\.1 seconds are over, and no candidate had returned"):
        run(tmp_path, budget=Budget(wall_s=0.1), toy=Hung(Toy()), width=8)


def test_a_space_that_is_wholly_visited_is_the_end(tmp_path):
    """Once, however often the command is repeated; and the report knows."""
    endless = random_search(SPACE)

    def ask(key, state, n):
        state, proposal = endless.ask(key, state, n)
        return state, proposal._replace(id=jnp.where(proposal.id < 6, proposal.id, -1))

    run(tmp_path, trials=4)
    assert read(tmp_path).state == "unfinished"  # there is no config.json that says how many trials are wanted
    for _ in range(2):
        assert run(tmp_path, trials=100, searcher=endless._replace(ask=ask)).trials == 6
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [(row["trials"], row.get("done")) for row in lines] == [(4, None), (6, None), (6, True)]
        assert read(tmp_path).state == "finished"


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(path, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "append_lines", full)
    with pytest.raises(RunError, match="No space left on device"):
        run(tmp_path / "a")
