"""A comparison on a table of nine architectures, with proposers in this process."""

import json
import types

import numpy as np
import pytest

from nasjax.drive import heartbeat
from nasjax.evaluators.fidelities import Rungs
from nasjax.evaluators.table import Table
from nasjax.referee import contest, looked_up, on_table, record, truth
from nasjax.referee.contest import Entrant, Rules
from nasjax.referee.external import InProcess
from nasjax.referee.page import page
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Metric

SPACE = TabularCell(edges=2, ops=("a", "b", "c"))
ARCHS = SPACE.enumerate()


def columns(**changed):
    rng = np.random.default_rng(0)
    value = ARCHS.sum(1) / 10 + 0.4
    found = {"arch": ARCHS, "cost": 1.0 + ARCHS[:, 0], "test_fraction": value, "runs_fraction": value[:, None]}
    found["runs_fraction"] = value[:, None] + rng.normal(0, 0.05, (9, 3))
    return found | changed


def settings(path, **changed):
    whole = {"fitness": "runs_fraction", "cost": None, "cost_scale": None, "result": "test_fraction", "percent": None}
    whole |= {"metric": "accuracy", "smaller": False, "fidelities": ()}
    return types.SimpleNamespace(path=str(path), **(whole | changed))


class Walker:
    """Proposes at random by the seed that it is told, and keeps what it hears."""

    def __init__(self, heard):
        self.heard = heard

    def __call__(self, message):
        self.heard.append(message)
        if "start" in message:
            self.rng = np.random.default_rng(message["start"]["seed"])
        return {"archs": self.rng.integers(0, 3, (message["ask"], 2)).tolist()} if "ask" in message else None

    def close(self):
        pass


def entrants(heard):
    stubborn = InProcess(lambda message: {"archs": [[2, 2]] * message.get("ask", 0)})
    walkers = [Entrant("random", None, 1, lambda: Walker(heard)), Entrant("pairs", None, 2, lambda: Walker([]))]
    return (*walkers, Entrant("stubborn", None, 1, lambda: stubborn))


def compared(path, rules, heard=None, **changed):
    np.savez(path, **columns(**changed))
    heard = [] if heard is None else heard
    field = on_table.field(
        "nine", Metric("accuracy"), SPACE, settings(path), entrants(heard), rules, facts={"of": "a test"}
    )
    return contest.contest([field], rules)[0]


RULES = Rules(5, 6, 4.0, "trials")


def test_a_search_that_takes_long_is_told_of_with_its_name():
    def search(entrant):
        raise ValueError(heartbeat._run.far())

    field = contest.Field("nine", Metric("accuracy"), (Entrant("pairs", None),), {}, search, None)
    with pytest.raises(ValueError, match=r"^nine: pairs, 6 seeds$"):
        contest.contest([field], RULES)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    heard = []
    found = compared(tmp_path_factory.mktemp("nine") / "t.npz", RULES, heard)
    return found, heard


def test_the_digest_is_the_same_twice_and_another_with_other_seeds(told, tmp_path):
    again = compared(tmp_path / "t.npz", RULES)
    assert record.digest(again) == record.digest(told[0])
    other = compared(tmp_path / "t.npz", RULES._replace(master=6))
    assert (
        other["problems"]["nine"]["finals"]["random"].tolist() != again["problems"]["nine"]["finals"]["random"].tolist()
    )


def test_what_is_told_does_not_depend_on_the_tests_which_are_opened_last(told, tmp_path):
    heard = []
    other = compared(tmp_path / "t.npz", RULES, heard, test_fraction=np.linspace(0, 1, 9)[::-1])
    before, after = told[0]["problems"]["nine"], other["problems"]["nine"]
    assert heard == told[1] and after["chosen"]["pairs"].tolist() == before["chosen"]["pairs"].tolist()
    assert after["finals"]["pairs"].tolist() != before["finals"]["pairs"].tolist()
    heard.clear()
    with pytest.raises(ValueError, match="column 'test_fraction' must hold 9 numbers"):  # once it is opened
        compared(tmp_path / "t.npz", RULES, heard, test_fraction=np.array(["shut"] * 9))
    assert heard == told[1]


def test_a_searcher_sees_no_test_value(tmp_path):
    np.savez(tmp_path / "t.npz", **columns())
    seen = truth.seen(SPACE, settings(tmp_path / "t.npz"))
    assert seen.runs.shape == (9, 3) and np.isnan(seen.table.result).all()
    looked_up = truth.evaluator(seen, truth.rewards(seen, np.uint32(1)))
    proposal = types.SimpleNamespace(arch=ARCHS, fidelity=None)
    evaluation = looked_up.evaluate(None, proposal)[0]
    assert np.isnan(evaluation.info["result"]).all() and np.isfinite(evaluation.fitness).all()
    with pytest.raises(ValueError, match="no column 'tset'"):  # before a search, and without its values
        truth.seen(SPACE, settings(tmp_path / "t.npz", result="tset"))


def test_asking_again_tells_the_same_and_the_run_is_drawn_anew_for_every_seed(told):
    rewards = {}
    for message in told[1]:
        if "start" in message:
            rewards = {}
        for row in message.get("tell", ()):
            assert rewards.setdefault(tuple(row["arch"]), row["reward"]) == row["reward"]
    there = np.ones((9, 3), bool)
    there[0] = False, True, False  # the others of its runs are missing
    spread = [truth.told_run(np.uint32(seed), there).tolist() for seed in range(4)]
    assert len(set(map(tuple, spread))) == 4 and {k for row in spread for k in row} == {0, 1, 2}
    assert {row[0] for row in spread} == {1}


def test_what_always_proposes_the_same_gets_another_architecture_on_every_seed(told):
    chosen = told[0]["problems"]["nine"]["chosen"]["stubborn"]
    assert len(set(chosen.tolist())) > 2


def test_a_budget_in_the_tables_seconds_is_kept(tmp_path):
    found = compared(tmp_path / "t.npz", RULES._replace(limit=7.0, unit="seconds"))["problems"]["nine"]
    assert 2 < found["table"]["random"]["trials"] < 8
    costs = found["targets"]["the best reward of the table"]["cost"].values()
    assert all(row["median"] is None or row["median"] <= 7.0 for row in costs)


def test_the_trials_that_spend_a_budget_are_counted_by_the_shortest_trainings():
    costs = np.stack([np.full(9, 10.0), np.full(9, 100.0)], 1)
    rungs = Rungs(np.array([1, 10]), np.zeros((9, 2)), costs)
    seen = truth.Seen(SPACE, np.zeros((9, 1)), Table(np.zeros(9), costs[:, 1], np.zeros(9), np.ones(9, bool), rungs))
    assert looked_up.enough(seen, 600.0) == 2 * 61 + 1  # all of them may go on, for next to nothing
    with pytest.raises(ValueError, match="the cheapest is 10"):
        looked_up.enough(seen, 9.0)


def test_the_page_has_everyone_and_the_digest(told):
    whole = record.whole(told[0], {"all_seconds": 1.0, "environment": {"versions": {}}, "drawn": "from a given number"})
    text = page(whole)
    assert whole["sha256"] in text and all(f" {name}</td>" in text for name in ("random", "pairs", "stubborn"))
    assert text.count('class="chart"') == 2 and "The noise of the truth" in text
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
