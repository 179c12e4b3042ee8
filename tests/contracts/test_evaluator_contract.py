"""What every evaluator promises. To add one, add a line to CASES."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.networks import children
from tools.tiny_choice_chains import images, tiniest

from nasjax.data.dataset import DataConfig
from nasjax.evaluators.path_training import trained_alone
from nasjax.evaluators.supernet import indicator, inherited_accuracy, path_accuracy, with_costs
from nasjax.evaluators.table import Table, table
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.problem.data import load
from nasjax.spaces.choice_chain.plan import counter
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data
from nasjax.types import Evaluation, Evaluator, Proposal, Status

KEY = jax.random.key(0)
IDS = np.array([4, 0, 7], np.int32)
PLAN = tiniest()
PATHS, BROKEN = np.array([[0, 1], [0, 0], [0, 1]], np.int32), np.array([1, 0], np.int32)
SECOND = PLAN.space.operators[1]
RECIPE = Recipe(epochs=1, batch_size=16, augment=Augment("none", flip=False))


class Case(NamedTuple):
    evaluator: Evaluator
    archs: np.ndarray  # i32[3, S], all of which succeed
    failing: np.ndarray  # i32[S], one that does not
    trains: bool = True  # on the host: what is not asked takes no time and has no result
    atol: float = 0.0  # of the fitness: where children share a program, rounding may turn an image


def child(strategy):
    space = ConvChain(1, 1, (1, 3), (3,), (2,), learning_rates=(0.1, 1e38))
    rates = space.columns["learning_rate"]
    archs = np.array(jax.vmap(space.sample)(jax.random.split(jax.random.key(1), 4)))
    archs[:, rates] = [0, 0, 0, 1]
    data = load(DataConfig(train_limit=32, valid_limit=16))
    return Case(children(space, data, strategy, recipe=RECIPE), archs[:3], archs[3], atol=1.01 / 16)


def looked_up():
    space = TabularCell(edges=2, ops=("none", "conv"))
    fitness = np.array([0.1, 0.2, np.nan, 0.4], np.float32)
    rows = Table(fitness, np.arange(4, dtype=np.float32), fitness, np.ones(4, bool))
    archs = space.enumerate()
    return Case(table(space, rows), archs[[3, 0, 1]], archs[2], trains=False)


def broken(variables):
    """Those of a supernet whose second operator gives NaN in the first layer."""
    operator = jax.tree.map(lambda leaf: jnp.asarray(leaf).at[0].set(jnp.nan), variables["params"]["group0"][SECOND])
    group = {**variables["params"]["group0"], SECOND: operator}
    return {**variables, "params": {**variables["params"], "group0": group}}


def supernet():
    """Its paths, some data, and weights of which an operator is broken."""
    network = choice_supernet(PLAN)
    (train_x, train_y), (valid_x, valid_y) = images(1, 16), images(2, 16)
    data = Data(train_x, train_y, valid_x, valid_y, jnp.zeros(2), jnp.ones(2))
    return network._replace(init=lambda key, arch, x: broken(network.init(key, arch, x))), data


def inherited():
    network, data = supernet()
    accuracy = path_accuracy(network, data, TASK, calibration_batches=1, batch_size=16)
    evaluator = inherited_accuracy(accuracy, network.init(KEY, None, jnp.zeros((1, 6, 6, 2))), chunk=2)
    return Case(evaluator, PATHS, BROKEN)


def alone():
    network, data = supernet()
    return Case(trained_alone(network, data, TASK, recipe=RECIPE), PATHS, BROKEN)


def scored():
    scores = np.array([[1.0, np.nan, 0.0], [0.5, 0.9, 0.0]], np.float32)
    return Case(indicator(PLAN.space, scores), PATHS, BROKEN, trains=False)


def weighed():
    case = scored()
    return case._replace(evaluator=with_costs(case.evaluator, counter(PLAN, "macs"), counter(PLAN, "params")))


CASES = {
    "child_exact": partial(child, "exact"),
    "child_vmap": partial(child, "vmap"),
    "table": looked_up,
    "supernet_accuracy": inherited,
    "paths_alone": alone,
    "indicator": scored,
    "with_costs": weighed,
}


class Subject(NamedTuple):
    case: Case
    whole: Evaluation  # of the three


@pytest.fixture(scope="module", params=CASES)
def subject(request):
    case = CASES[request.param]()
    return Subject(case, evaluate(case, IDS, case.archs))


def evaluate(case, ids, archs):
    proposal = Proposal(np.asarray(ids, np.int32), np.asarray(archs, np.int32), np.full(len(ids), -1, np.int32))
    evaluation, _ = case.evaluator.evaluate(KEY, proposal, None)
    return evaluation


def same(subject, evaluation, rows, of):
    """Whether `rows` of an evaluation are those of the three with the same ids."""
    found, expected = (np.asarray(e.fitness) for e in (evaluation, subject.whole))
    np.testing.assert_allclose(found[list(rows)], expected[list(of)], rtol=0, atol=subject.case.atol)
    assert [int(evaluation.status[n]) for n in rows] == [Status.OK] * len(rows)


def test_what_succeeds_has_a_finite_fitness(subject):
    fitness, cost, status, info = subject.whole
    assert np.shape(fitness)[0] == 3 and np.isfinite(fitness).all() and np.asarray(fitness).dtype == np.float32
    assert np.shape(cost) == (3,) and np.isfinite(cost).all() and (np.asarray(cost) >= 0).all()
    assert np.asarray(status).dtype == np.int8 and (np.asarray(status) == Status.OK).all()
    assert all(len(column) == 3 for column in info.values())


def test_the_order_of_proposals_is_irrelevant(subject):
    case = subject.case
    same(subject, evaluate(case, IDS[::-1], case.archs[::-1]), (0, 1, 2), (2, 1, 0))


def test_rows_that_are_not_asked_are_skipped(subject):
    """They change nobody else's result, whatever architecture stands in them."""
    case = subject.case
    evaluation = evaluate(case, [4, -1, 7], [case.archs[0], np.full_like(case.archs[1], -1), case.archs[2]])
    same(subject, evaluation, (0, 2), (0, 2))
    if case.trains:
        assert np.isnan(evaluation.fitness[1]) and evaluation.cost[1] == 0 and evaluation.status[1] == Status.OK


def test_one_that_fails_is_a_failed_row(subject):
    case = subject.case
    evaluation = evaluate(case, [4, 0, 7], [case.archs[0], case.failing, case.archs[2]])
    assert evaluation.status[1] == Status.FAILED and np.isnan(np.asarray(evaluation.fitness)[1]).any()
    assert np.isfinite(evaluation.cost).all()
    same(subject, evaluation, (0, 2), (0, 2))


def test_what_does_not_train_can_be_traced(subject):
    case = subject.case
    if case.trains:
        return
    run = jax.jit(lambda proposal: case.evaluator.evaluate(KEY, proposal, None)[0])
    evaluation = run(Proposal(jnp.asarray(IDS), jnp.asarray(case.archs), jnp.full(3, -1)))
    same(subject, evaluation, (0, 1, 2), (0, 1, 2))
