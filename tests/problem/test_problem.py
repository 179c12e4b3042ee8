"""A run's problem: looked up once, and nothing is read before it is asked for."""

import numpy as np
import pytest

from nasjax import catalog, commands
from nasjax.problem import problem as room
from nasjax.problem.problem import Problem
from nasjax.settings import override

CHAIN = override(commands.configure("random"), "space.min_layers=2", "space.max_layers=2", "space.skips=false")


@pytest.fixture
def unread(monkeypatch):
    def load(*arguments):
        raise AssertionError("the data were read")

    monkeypatch.setattr(room, "load", load)


@pytest.mark.parametrize("method", catalog.METHODS)
def test_making_and_inspecting_a_method_reads_nothing(method, unread, monkeypatch):
    config = commands.configure(method)
    assert catalog.method(method).make(Problem(config)).config is config
    monkeypatch.setattr(np, "load", None)
    found = commands.inspect(config)
    assert (found["params"] is None) == (found["macs"] is None) == found["describes"].startswith("the space; a network")


def test_an_architecture_is_built_once(unread):
    problem = Problem(CHAIN)
    one, other = (problem.space.decode(problem.example()) for _ in range(2))
    assert one is not other and problem.build(one) is problem.build(other)
    assert problem.build(one).params == problem.describe(one)["params"]
    archs = problem.space.enumerate()[: 2 * room._KEPT]
    assert len(archs) > room._KEPT and all(problem.build(arch).arch == problem.space.encode(arch) for arch in archs)
    assert len(problem._built) == room._KEPT


def test_networks_of_one_identity_keep_the_numbers_of_their_edges():
    """By which weights are inherited."""
    problem = Problem(commands.configure("evolution"))
    tree = problem.example()
    edges = [dict(edge) for edge in tree["edges"]]
    edges[-1]["id"], edges[-2]["id"] = edges[-2]["id"], edges[-1]["id"]
    one, other = (problem.space.decode(graph) for graph in (tree, {**tree, "edges": edges}))
    assert problem.space.identity(one) == problem.space.identity(other) and one.tolist() != other.tolist()
    assert problem.build(one).arch == problem.space.encode(one) != problem.build(other).arch


def test_what_the_data_say_comes_before_what_is_known_of_their_name():
    problem = Problem(override(CHAIN, "data.train_limit=8", "data.valid_limit=4"))
    known = problem.signature
    assert "data" not in vars(problem)
    del problem.signature
    assert problem.data.name == "digits" and problem.signature == known


def test_another_form_keeps_the_data():
    problem = Problem(override(commands.configure("reinforce_rnn"), "data.train_limit=8", "form.hidden=8"))
    data, other = problem.data, problem.formed({"dropout": 0.25})
    assert other.data is data and (problem.form.dropout, other.form.dropout) != (0.25, 0.25) == (
        0.25,
        other.form.dropout,
    )
    assert problem.formed({}) is problem
    with pytest.raises(ValueError, match=r"have no wings for a grid to try; write --set 'retrain.grid_wingss=\(\)'"):
        problem.formed({"wings": 2})


def test_a_table_is_a_problem_without_networks():
    config = override(commands.configure("random", space="tabular_cell"), "table.path=absent.npz")
    problem = Problem(config)
    assert problem.looked_up and problem.metric.name == "accuracy"
    arch = problem.space.decode(problem.example())
    assert problem.describe(arch) == problem.named(arch) and problem.named(arch)["params"] is None
