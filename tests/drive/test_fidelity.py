"""A search whose trials go on from where others stopped: ledger, artifacts, the best, and a resume after a kill."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.drive import search as drive
from nasjax.drive.work import worker
from nasjax.runtime.inline import inline
from nasjax.searchers.asha import asha
from nasjax.searchers.random import random_search
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.types import Budget, Evaluation, Evaluator, Proposal, Status

SPACE, RUNGS = ConvChain(2, 2, (1, 3), (1, 3), (4, 8)), (1, 2, 4)
SEARCHER = asha(random_search(SPACE), SPACE, rungs=RUNGS, eta=2, capacity=30)


def trainer(seen):
    """A training is a sum over its epochs; it goes on from its parent's, and its fitness falls with every epoch."""

    def evaluate(key, proposal, inherited):
        epochs, parent, trial = (int(x[0]) for x in (proposal.fidelity, proposal.parent, proposal.id))
        seen.append((trial, parent))
        before = inherited[parent]["training"] if parent >= 0 else {"epochs": np.int32(0), "sum": np.float32(0)}
        assert epochs > before["epochs"]
        total = np.float32(before["sum"] + (epochs - before["epochs"]))
        fitness = float(np.maximum(proposal.arch[0], 0).mean()) - epochs
        kept = {"training": {"epochs": np.int32(epochs), "sum": total}, "variables": {"w": np.full(3, total)}}
        found = Evaluation(np.array([fitness]), np.array([0.5]), np.zeros(1, np.int8), {"sum": np.array([total])})
        return found, {trial: kept}

    return Evaluator(evaluate)


def run(path, trials, seen):
    path.mkdir(exist_ok=True)
    return drive.search(
        jax.random.key(5),
        SEARCHER,
        inline(worker(trainer(seen), path)),
        workdir=path,
        budget=Budget(trials),
        describe=lambda arch: {"arch": SPACE.encode(arch), "params": 1, "macs": 7},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("fidelity") / "whole"
    return path, run(path, 14, [])


def lines(path, name="trials.jsonl"):
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def test_the_ledger_says_how_long_each_is_trained_and_what_it_goes_on_from(whole):
    rows = {row["id"]: row for row in lines(whole[0])}
    assert len(rows) == 14 and list(rows[0])[:3] == ["id", "parent", "fidelity"]
    for row in rows.values():
        below = rows.get(row["parent"])
        assert (below is None) == (row["fidelity"] == 1) and row["sum"] == row["fidelity"]
        assert below is None or (RUNGS.index(row["fidelity"]) == RUNGS.index(below["fidelity"]) + 1)
        assert below is None or row["arch"] == below["arch"]
    assert {row["fidelity"] for row in rows.values()} == set(RUNGS)
    asked = [event for event in lines(whole[0], "ledger.jsonl") if event["event"] == "asked"]
    assert [event["fidelities"] for event in asked] == [[row["fidelity"]] for row in rows.values()]


def test_the_best_is_the_best_of_the_longest_trained(whole):
    path, summary = whole
    rows = lines(path)
    longest = [row for row in rows if row["fidelity"] == 4]
    assert summary.best == max(longest, key=lambda row: row["fitness"]) == json.loads((path / "best.json").read_text())
    assert max(row["fitness"] for row in rows) > summary.best["fitness"]


def test_what_may_still_be_promoted_is_kept_and_nothing_else(whole):
    path, summary = whole
    live = {int(i) for i in SEARCHER.live(summary.state)} - {-1}
    ended = {row["id"]: row for row in lines(path)}
    assert live == {i for i, row in ended.items() if row["fidelity"] < 4} - {row["parent"] for row in ended.values()}
    assert len(list((path / "artifacts").glob("*.npz"))) <= len(live) + 1  # and the best; equal ones are one file


@pytest.mark.parametrize("torn", [6, 11])
def test_a_killed_search_goes_on_to_the_same_bits(whole, tmp_path, torn):
    path, summary = whole
    run(tmp_path / "parts", torn, [])
    with (tmp_path / "parts/ledger.jsonl").open("a") as file:
        file.write('{"event": "ask')
    seen = []
    resumed = run(tmp_path / "parts", 14, seen)
    assert [trial for trial, _ in seen] == list(range(torn, 14)) and any(parent >= 0 for _, parent in seen)
    assert (tmp_path / "parts/trials.jsonl").read_bytes() == (path / "trials.jsonl").read_bytes()
    for a, b in zip(jax.tree.leaves(resumed.state), jax.tree.leaves(summary.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_worker_is_not_told_it_does_not_say():
    """Other searchers' proposals have no fidelity, and reach the evaluator without."""
    seen = []

    def evaluate(key, proposal, inherited):
        seen.append(proposal)
        one = jnp.ones(1)
        return Evaluation(one, one, jnp.full(1, Status.OK, jnp.int8), {}), None

    from nasjax.drive.work import Work

    some = np.zeros(1, np.int32)
    key = np.asarray(jax.random.key_data(jax.random.key(0)))
    worker(Evaluator(evaluate), None)(Work(key, some, some[None], some - 1, {}))
    assert isinstance(seen[0], Proposal) and seen[0].fidelity is None
