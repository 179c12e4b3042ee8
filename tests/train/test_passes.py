"""A network run part by part gives what it gives as a whole, backwards and twice backwards."""

import jax
import numpy as np
import pytest
from tools.toy_search_network import toy_batch, toy_parts_network

from nasjax.learners.mixed_product import mixed_product
from nasjax.nets.cell_parts import Dense
from nasjax.nets.parts import Line, assemble
from nasjax.spaces.darts_cell.space import CELLS
from nasjax.train import passes
from nasjax.train.objective import CLASSIFICATION
from nasjax.types import Network


@pytest.fixture(scope="module")
def case():
    network = toy_parts_network()
    with jax.enable_x64(True):
        batch = toy_batch(0, dtype=np.float64)["train"]
        random = np.random.default_rng(0)
        choice = {cell: random.random((14, 8)) for cell in CELLS}
        variables = network.init(jax.random.key(0), choice, batch[0])
        v = jax.tree.map(lambda p: random.standard_normal(p.shape), variables["params"])
    return network, Network(network.init, network.apply), variables, choice, v, batch


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.mark.slow
def test_gradients_equal_those_of_the_whole(case):
    """The parts' keys follow their order in both; a dropout of 0.3 shows it. The whole gets the pass's key folded."""
    parts, whole, variables, choice, _, batch = case
    with jax.enable_x64(True):
        fixed = (variables["params"], variables["batch_stats"], choice, jax.random.key(1))
        one, other = (
            passes.gradient_pass(network, CLASSIFICATION, 1)(*fixed, None, batch) for network in (parts, whole)
        )
        close(one, other)
        dropped = passes.gradient_pass(parts, CLASSIFICATION, 1)(*fixed, np.float64(0.3), batch)
    assert all(np.abs(g).max() > 1e-6 for g in jax.tree.leaves((one.params, one.choice["normal"][0])))
    assert not np.allclose(dropped.loss, one.loss, rtol=1e-3)


@pytest.mark.slow
def test_the_mixed_product_is_the_derivative_of_the_gradient(case):
    """Against the whole network's, and against a central difference along one direction of the choice."""
    parts, whole, variables, choice, v, batch = case
    with jax.enable_x64(True):
        fixed = (variables["params"], variables["batch_stats"])
        rest = (jax.random.key(1), None)
        one, other = (mixed_product(n, CLASSIFICATION, 1)(*fixed, choice, *rest, v, batch) for n in (parts, whole))
        close(one, other)
        direction = jax.tree.map(lambda c: np.random.default_rng(1).standard_normal(c.shape), choice)
        gradient = passes.gradient_pass(parts, CLASSIFICATION, 1)
        moved = [
            gradient(*fixed, jax.tree.map(lambda c, d, e=eps: c + e * d, choice, direction), *rest, batch).params
            for eps in (1e-5, -1e-5)
        ]
        slope = jax.tree.map(lambda a, b: (a - b) / 2e-5, *moved)
        expected, found = (
            sum(np.vdot(a, b) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))
            for x, y in ((slope, v), (one, direction))
        )
    assert abs(expected) > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_validation_equals_that_of_the_whole(case, batch_statistics):
    parts, whole, variables, choice, _, (x, y) = case
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    with jax.enable_x64(True):
        one, other = (
            passes.validation(n, CLASSIFICATION, 1, batch_statistics=batch_statistics)(
                variables["params"], variables["batch_stats"], choice, batches
            )
            for n in (parts, whole)
        )
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_equal_parts_share_their_programs(case):
    network = case[0]
    stem, first, second, _ = network.parts
    assert first.apply is second.apply
    assert passes._forward(first.apply, (), 0.9, 1) is passes._forward(second.apply, (), 0.9, 1)
    assert [part.apply for part in toy_parts_network().parts] == [part.apply for part in network.parts]
    assert network.parts[-1].apply is not stem.apply


@pytest.mark.parametrize(
    "values",
    [(("z",), ("y",)), (("x",), ("x", "y")), (("x",), ("a", "y"))],
    ids=["read before it is written", "written twice", "never read"],
)
def test_a_program_that_makes_no_sense_is_refused(values):
    with pytest.raises(ValueError, match="written once"):
        assemble([Line((), Dense(2), *values)])
