"""What is told of a finished search beside a table of truth: ranks, the largest cell, random draws, orders."""

import json

import numpy as np
import pytest
from tools.handover import Handover
from tools.stand_ins import ROW

from nasjax import commands
from nasjax.settings import override


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """truth.json of three trials over 125 cells whose truth, and short training, is their number / 125."""
    path = tmp_path_factory.mktemp("truth")
    config = override(commands.configure("random", space="tabular_cell"), "space.edges=3", "truth=a.npz")
    cells = np.asarray(config.space.enumerate())
    rows = [
        {**ROW, "id": n, "arch": config.space.encode(cells[cell]), "fitness": fitness, "params": cell}
        for n, (cell, fitness) in enumerate([(124, 0.2), (0, 0.9), (62, 0.5)])
    ]
    (path / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Handover(config, path).phase(2)
    largest = next(n for n, cell in enumerate(cells) if {config.space.ops[op] for op in cell} == {"nor_conv_3x3"})
    return json.loads((path / "truth.json").read_text()), largest


def test_the_best_by_fitness_has_its_true_rank(facts):
    found, _ = facts
    assert (found["result"], found["rank"], found["cells"]) == (0.0, 125, 125)
    assert found["highest"] == pytest.approx(124 / 125) and found["mean"] == pytest.approx(62 / 125)


def test_the_largest_cell_stands_beside_it(facts):
    found, largest = facts
    assert found["largest"] == {"result": pytest.approx(largest / 125), "rank": 125 - largest}


def test_the_best_of_random_draws_is_expected_as_often_as_there_are_trials(facts):
    n = np.arange(125)
    expected = (n / 125) @ ((n + 1) ** 3 - n**3) / 125**3
    assert facts[0]["random"] == {"cells": 3, "result": pytest.approx(expected, rel=1e-5)}


def test_orders_are_those_of_fitness_and_of_parameters(facts):
    found = facts[0]
    assert found["scores"] == {"tau": -1.0, "spearman": -1.0} and found["params"] == {"tau": 1.0, "spearman": 1.0}
