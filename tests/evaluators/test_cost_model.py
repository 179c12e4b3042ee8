"""Which strategy is chosen, and that what is not known of a masked network is no obstacle."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tools.networks import built, signature

from nasjax import catalog, commands
from nasjax.commands import searching
from nasjax.evaluators.cost_model import choose_strategy
from nasjax.experiments.families import candidates_run
from nasjax.problem.problem import Problem
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.store import workdir
from nasjax.train.recipe import Recipe
from nasjax.types import Built, Masked, MaskedCost

SPACE = ConvChain(2, 2, (1, 3), (3,), (2, 4))
IMAGE = (8, 8, 1)


@pytest.fixture(scope="module")
def problem():
    archs = np.asarray(jax.vmap(SPACE.sample)(jax.random.split(jax.random.key(0), 3)))
    builts = [built(SPACE, SPACE.encode(arch), IMAGE, 10) for arch in archs]
    return builts, catalog.builder(SPACE.name).masked(SPACE, None, signature(IMAGE, 10))


@pytest.mark.slow
def test_the_sooner_strategy_is_chosen(problem):
    builts, masked = problem
    chosen, estimates = choose_strategy(builts, masked, Recipe(epochs=2), 640, "cpu")
    assert chosen == min(estimates["seconds"], key=estimates["seconds"].__getitem__)
    assert set(estimates["seconds"]) == set(estimates["bytes"]) == {"exact", "vmap"}
    assert estimates["steps"] == 20 and estimates["masked_macs"] >= max(b.macs for b in builts)
    assert estimates["params"] == int(np.mean([b.params for b in builts]))


@pytest.mark.parametrize(("backend", "expected"), [("cpu", "exact"), ("gpu", "vmap"), ("other", "vmap")])
def test_without_a_cost_the_backend_decides(problem, backend, expected):
    builts, masked = problem
    chosen, estimates = choose_strategy(builts, masked._replace(cost=None), Recipe(), 640, backend)
    assert chosen == expected and set(estimates["seconds"]) == {"exact"} and "masked_macs" not in estimates
    assert choose_strategy(builts, None, Recipe(), 640, backend)[0] == "exact"
    record = {"dataset": {"name": "digits"}, "strategy": chosen, "estimates": estimates}
    lines = searching._opening(commands.configure("random"), Path("runs/a"), record).splitlines()
    how = {"exact": "one by one, each by a program of its own", "vmap": "side by side in one program"}[expected]
    assert lines[0] == f"random on digits, in runs/a: candidates train {how} (strategy {expected})"
    assert len(lines) == 1 + (chosen == "exact")


def test_few_children_share_the_compiling_of_their_program_among_themselves():
    of_two_layers = Built({}, 1000, 1_000_000, None, None, layers=2)
    masked = Masked(None, None, None, cost=lambda batch: MaskedCost(1_000_000, 1, 2, slow=False))
    chosen = {n: choose_strategy([of_two_layers], masked, Recipe(epochs=1), 640, "cpu", n)[0] for n in (1, 2, 99, None)}
    assert chosen == {1: "exact", 2: "exact", 99: "vmap", None: "vmap"}


@pytest.mark.parametrize(("begun", "expected"), [("", "exact"), ("vmap", "vmap"), ("table", "exact")])
def test_a_run_keeps_the_strategy_that_it_was_begun_with(begun, expected, monkeypatch, tmp_path):
    """Whatever suits the number of candidates that a resume asks for."""
    monkeypatch.setattr(candidates_run, "choose_strategy", lambda *_: ("exact", {"bytes": {}}))
    monkeypatch.setattr(candidates_run, "_sample", lambda problem: [None])
    config = commands.configure("random")
    assert workdir.strategy(tmp_path) == ""
    (tmp_path / "config.json").write_text(json.dumps({"config": {}, "strategy": begun}))
    problem = Problem(config, begun=workdir.strategy(tmp_path))
    assert candidates_run.judged(problem).facts["strategy"] == expected
