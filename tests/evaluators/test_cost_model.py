"""Which strategy is chosen, and that what is not known of a masked network is no obstacle."""

from pathlib import Path

import jax
import numpy as np
import pytest
from tools.networks import built, signature

from nasjax import catalog, commands
from nasjax.commands import searching
from nasjax.evaluators.cost_model import choose_strategy
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.train.recipe import Recipe

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
    assert lines[0] == f"random on digits, strategy {expected}, in runs/a" and len(lines) == 1 + (chosen == "exact")
