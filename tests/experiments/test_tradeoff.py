"""A candidate's metric weighed by what its network costs (Tan et al. 2019, section 3), and searches that go by it."""

import json

import numpy as np
import pytest
from tools.commands import here

from nasjax import commands
from nasjax.experiments.families.traded import TradeoffConfig, traded, weighed
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.types import Evaluation, Evaluator, Metric, Proposal

SOFT = TradeoffConfig(("latency",), (4.0,))
HARD = TradeoffConfig(("latency",), (4.0,), within=0.0, beyond=-1.0)


def test_the_metric_counts_as_it_is_at_the_target():
    assert weighed(0.8, {"latency_ms": 4.0}, SOFT) == weighed(0.8, {"latency_ms": 4.0}, HARD) == 0.8


def test_twice_the_latency_for_five_percent_more_accuracy_is_even():
    assert weighed(0.5 * 1.05, {"latency_ms": 8.0}, SOFT) == pytest.approx(0.5, rel=1e-3)
    assert weighed(0.5, {"latency_ms": 2.0}, SOFT) == pytest.approx(0.5 * 1.05, rel=1e-3)


def test_a_hard_target_costs_nothing_up_to_it():
    assert weighed(0.8, {"latency_ms": 1.0}, HARD) == 0.8
    assert weighed(0.8, {"latency_ms": 8.0}, HARD) == pytest.approx(0.4)


def test_costs_multiply_and_less_is_better_of_a_loss_too():
    both = TradeoffConfig(("memory", "macs"), (2.0, 100.0), within=-1.0, beyond=-1.0)
    assert weighed(0.8, {"memory_mb": 4.0, "macs": 50}, both) == pytest.approx(0.8)
    assert weighed(-3.0, {"memory_mb": 4.0, "macs": 100}, both) == pytest.approx(-6.0)


def test_an_evaluator_tells_the_weighed_fitness_and_the_metric_itself():
    def evaluate(key, proposal, inherited):
        fitness = np.array([-8.0, np.nan, -8.0, np.nan], np.float32)
        return Evaluation(fitness, np.zeros(4), np.zeros(4, np.int8), {"macs": np.ones(4)}), "kept"

    def costs(arch):
        assert arch[0] != 9, "there is no candidate"
        return {"latency_ms": float(arch[0])}

    plain, hard = Evaluator(evaluate), TradeoffConfig(("latency",), (4.0,), within=-1.0, beyond=-1.0)
    metric = Metric("perplexity", "plain", -1)
    archs = np.array([[8], [2], [2], [9]], np.int32)
    proposal = Proposal(np.array([0, 1, 2, -1]), archs, np.full(4, -1))
    found, artifacts = traded(plain, hard, costs, metric).evaluate(None, proposal, None)
    np.testing.assert_allclose(found.fitness, [-16.0, np.nan, -4.0, np.nan])
    np.testing.assert_allclose(found.info["valid_perplexity"], [8.0, np.nan, 8.0, np.nan])
    assert artifacts == "kept" and list(found.info) == ["macs", "valid_perplexity"]
    assert traded(plain, TradeoffConfig(), costs, metric) is plain


def test_a_fitness_says_what_it_stands_for():
    config = override(commands.configure("bo"), "tradeoff.costs=macs,memory", "tradeoff.targets=100000,0.1")
    assert Problem(config).metric == Metric("accuracy weighed by macs and memory", "plain", 1)


def test_the_memory_of_no_network_is_refused():
    code, _, err = here("--mode=inspect", "--method=bo", "--batch=2")
    assert code == 2 and "give --arch and a batch of at least 1" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tradeoff.costs=speed", "tradeoff.targets=1.0"], "distinct ones of params, macs, latency, memory"),
        (["tradeoff.costs=macs"], "tradeoff.costs and tradeoff.targets have 1 and 0 values"),
        (["tradeoff.costs=macs", "tradeoff.targets=-1.0"], "tradeoff.targets must be positive"),
        (["tradeoff.beyond=-1.0"], "no effect without tradeoff.costs"),
        (["tradeoff.costs=macs", "tradeoff.targets=1.0", "tradeoff.within=0.1"], "must be 0 or less, got 0.1"),
        (["tradeoff.costs=latency", "tradeoff.targets=1.0"], "add --latency=FILE.json"),
        (["max_memory_mb=0"], "max_memory_mb must be positive"),
        (["memory_batch=0"], "memory_batch is a number of samples"),
    ],
)
def test_mistakes_are_told_in_a_line(words, told):
    code, _, err = here("--method=bo", *(f"--set={word}" for word in words))
    assert code == 2 and told in err and err.count("\n") == 1


TINY = ["space.min_layers=1", "space.max_layers=2", "recipe.epochs=1", "data.train_limit=48", "data.valid_limit=32"]
TINY += ["recipe.batch_size=16", "retrain_recipe.batch_size=16", "strategy=exact", "last_epochs=1", "width=1"]


@pytest.mark.slow
def test_a_search_keeps_to_memory_and_goes_by_it(tmp_path):
    words = ["--method=bo", "--trials=3", *(f"--set={word}" for word in TINY)]
    told = r"no architecture of --space=conv_chain was found within max_memory_mb=0.0001: the nearest has memory_mb 0.0"
    code, _, err = here(*words, "--max_memory_mb=0.0001", f"--workdir={tmp_path / 'none'}")
    assert code == 2 and told in err and 'It is {"space": "conv_chain"' in err
    words += ["--set=tradeoff.costs=memory", "--set=tradeoff.targets=0.01", "--set=tradeoff.beyond=-1.0"]
    code, out, err = here(*words, "--max_memory_mb=0.2", f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "run/trials.jsonl").read_text().splitlines()]
    for row in rows:
        assert (row["memory_mb"] <= 0.2) == (row["status"] == "ok")
        if row["status"] == "ok":
            factor = row["memory_mb"] / 0.01
            found = row["valid_accuracy"] * factor ** (-0.07 if factor <= 1 else -1.0)
            assert row["fitness"] == pytest.approx(found, rel=1e-5)
    assert "accuracy weighed by memory " in out and " MB at a batch of 1, accuracy " in out
    page = (tmp_path / "run/report.html").read_text()
    assert "memory (MB)" in page and "validation accuracy weighed by memory" in page
    best, told = json.loads((tmp_path / "run/best.json").read_text()), {}
    for batch in (None, 3):
        words = [f"--batch={batch}"] if batch else []
        code, out, err = here("--mode=inspect", f"--workdir={tmp_path / 'run'}", "--arch=best", *words)
        assert code == 0, err
        told[batch] = json.loads(out)["memory_mb"]
    assert told[None]["weights"] + told[None]["activations"] == pytest.approx(best["memory_mb"])
    assert told[None]["batch"] == 1 and told[3]["activations"] == pytest.approx(3 * told[None]["activations"])
