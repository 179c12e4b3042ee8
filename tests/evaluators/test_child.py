"""The population trainer: strategies agree, children do not see each other, failures are results."""

import dataclasses

import jax
import numpy as np
import pytest
from tools.networks import children

from nasjax import commands
from nasjax.data.dataset import DataConfig
from nasjax.evaluators import child, child_exact, child_vmap
from nasjax.evaluators.children import ChildResult, Curves
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.problem.data import load
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.fit import resident
from nasjax.train.recipe import Recipe
from nasjax.train.step import trainer
from nasjax.types import Built, Proposal, Status

SPACE = ConvChain(
    2, 2, filter_heights=(1, 3), filter_widths=(3,), filter_counts=(2, 4), learning_rates=(0.1, 0.02, 1e38)
)
RECIPE = Recipe(epochs=3, batch_size=32, augment=Augment(flip=False))
DATASET = load(DataConfig(train_limit=100, valid_limit=40))
KEY = jax.random.key(0)
RATE = SPACE.columns["learning_rate"]


def proposal(ids, archs):
    return Proposal(np.asarray(ids, np.int32), np.asarray(archs, np.int32), np.full(len(ids), -1, np.int32))


def archs(*rates):
    drawn = np.array(jax.vmap(SPACE.sample)(jax.random.split(jax.random.key(1), len(rates))))
    drawn[:, RATE] = rates
    return drawn


@pytest.fixture(scope="module", params=["exact", "vmap"])
def evaluator(request):
    return children(SPACE, DATASET, request.param, recipe=RECIPE, last_epochs=2, keep_weights=True)


@pytest.fixture(scope="module")
def results(evaluator):
    return evaluator.evaluate(KEY, proposal([4, 5, 6], archs(0, 1, 0)))


@pytest.mark.slow
def test_what_a_child_reports(results):
    evaluation, _ = results
    curves = evaluation.info["valid_curve"]
    assert curves.shape == (3, 3) and (curves > 0).any(1).all() and (curves <= 1).all()
    np.testing.assert_array_equal(evaluation.fitness, curves[:, -2:].max(1))
    np.testing.assert_allclose(curves * 40, np.rint(curves * 40), atol=1e-4)  # parts of 40 images
    assert (evaluation.status == Status.OK).all() and evaluation.info["error"] == ["", "", ""]
    assert (evaluation.cost > 0).all() and (evaluation.info["train_loss"] < 2.6).all()
    for i, arch in enumerate(archs(0, 1, 0)):
        planned = plan(SPACE, arch, (8, 8, 1), 10)
        assert (evaluation.info["params"][i], evaluation.info["macs"][i]) == (planned.params, planned.macs)


@pytest.fixture(scope="module")
def references():
    """The same children by the definition: `Trainer.run`, each jitted for itself."""
    data = resident(DATASET)
    found = []
    for number, arch in zip((4, 5, 6), archs(0, 1, 0), strict=True):
        planned = plan(SPACE, arch, (8, 8, 1), 10)
        network = conv_chain(planned)
        key_init, key_train = jax.random.split(jax.random.fold_in(KEY, number))
        variables = network.init(key_init, None, np.zeros(1, np.float32))
        train = trainer(network, RECIPE, 100, variables, TASK)
        rate = np.float32(planned.learning_rate)
        state = jax.jit(train.run)(key_train, train.start(variables), None, rate, data, 0, train.steps)
        found.append((number, state.train_loss, state.valid_metric, train.variables(state)))
    return found


@pytest.mark.slow
def test_strategies_agree(results, references):
    evaluation, artifacts = results
    for i, (number, loss, accuracy, variables) in enumerate(references):
        np.testing.assert_allclose(evaluation.info["train_loss"][i], loss[-1], rtol=1e-3)
        np.testing.assert_allclose(evaluation.info["valid_curve"][i], accuracy, atol=1.01 / 40)  # one image of 40
        for kept, expected in zip(
            jax.tree.leaves(artifacts[number]["variables"]), jax.tree.leaves(variables), strict=True
        ):
            np.testing.assert_allclose(kept, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("sign", "last", "fitness"), [(1, 2, 0.5), (1, 4, 0.9), (-1, 2, -0.3), (-1, 4, -0.1)])
def test_fitness_is_the_best_of_the_last_epochs(monkeypatch, sign, last, fitness):
    """Of a metric of which less is better, the smallest."""
    curve = np.array([0.1, 0.9, 0.5, 0.3], np.float32)

    def exact(*given, **settings):
        return lambda key, children, width: [ChildResult(1.0, Curves(curve, curve, 0)) for _ in children]

    monkeypatch.setattr(child, "exact", exact)
    task = TASK._replace(metric=TASK.metric._replace(sign=sign))
    recipe = dataclasses.replace(RECIPE, epochs=4)
    build = lambda arch: Built({}, 1, 1, None, None)  # noqa: E731
    evaluator = child.child(build, DATASET, task, recipe=recipe, last_epochs=last)
    evaluation, _ = evaluator.evaluate(KEY, proposal([0], archs(0)))
    assert evaluation.fitness.tolist() == [pytest.approx(fitness)]


def test_a_child_begins_with_what_its_parent_left(monkeypatch):
    """Of three, one has a parent whose weights there are, one a parent without, one none."""
    began = []

    def exact(*given, **settings):
        return lambda key, children, width: [
            began.append(one.inherit and one.inherit("fresh")) or ChildResult(1.0, inherited=0.25 * len(began))
            for one in children
        ]

    monkeypatch.setattr(child, "exact", exact)
    build = lambda arch: Built({}, int(arch[0]), 1, None, None)  # noqa: E731
    inherit = lambda own, parent, fresh, left: (own.params, parent.params, fresh, left)  # noqa: E731
    evaluator = child.child(build, DATASET, TASK, recipe=RECIPE, inherit=inherit, keep_weights=True)
    three = Proposal(np.arange(5, 8), np.array([[5], [6], [7]]), np.array([2, 3, -1]))
    evaluation, _ = evaluator.evaluate(KEY, three, {2: {"arch": np.array([2]), "variables": "weights"}})
    assert began == [(5, 2, "fresh", "weights"), None, None]
    assert evaluation.info["inherited"].tolist() == [0.25, 0.5, 0.75]


@pytest.mark.slow
def test_the_order_of_proposals_and_padding_do_not_matter(evaluator, results):
    evaluation, artifacts = evaluator.evaluate(KEY, proposal([6, -1, 4], archs(0, 1, 0)[[2, 1, 0]]))
    assert set(artifacts) == {4, 6}
    assert np.isnan(evaluation.fitness[1]) and evaluation.status[1] == Status.OK and evaluation.cost[1] == 0
    np.testing.assert_allclose(evaluation.fitness[[2, 0]], results[0].fitness[[0, 2]], atol=1.01 / 40)
    np.testing.assert_allclose(evaluation.info["train_loss"][[2, 0]], results[0].info["train_loss"][[0, 2]], rtol=1e-3)


@pytest.mark.slow
def test_a_diverging_child_fails_alone(evaluator, results):
    evaluation, artifacts = evaluator.evaluate(KEY, proposal([4, 5, 6], archs(0, 2, 0)))
    assert list(evaluation.status) == [Status.OK, Status.FAILED, Status.OK]
    assert np.isnan(evaluation.fitness[1]) and evaluation.info["error"][1] == "loss became NaN in epoch 1"
    assert set(artifacts) == {4, 6}
    np.testing.assert_array_equal(evaluation.fitness[[0, 2]], results[0].fitness[[0, 2]])
    np.testing.assert_array_equal(evaluation.info["train_loss"][[0, 2]], results[0].info["train_loss"][[0, 2]])


@pytest.mark.slow
def test_a_second_call_compiles_nothing(evaluator, results):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **kwargs: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    evaluator.evaluate(jax.random.key(1), proposal([7, 8, 9], archs(0, 1, 0)))
    evaluator.evaluate(jax.random.key(1), proposal([7, -1, 9], archs(0, 1, 0)))  # nor does a short round
    assert not compiled
    jax.jit(lambda x: x * 2 + 7)(np.float32(1))  # the listener does hear
    assert compiled


@pytest.mark.slow
def test_same_call_same_bits(evaluator, results):
    again, _ = evaluator.evaluate(KEY, proposal([4, 5, 6], archs(0, 1, 0)))
    np.testing.assert_array_equal(again.info["train_loss"], results[0].info["train_loss"])
    np.testing.assert_array_equal(again.info["valid_curve"], results[0].info["valid_curve"])


@pytest.mark.slow
def test_what_cannot_be_built_or_trained_is_a_failed_trial(monkeypatch):
    tiny = ConvChain(3, 3, filter_heights=(1,), filter_widths=(1,), filter_counts=(2,), pool_after=(0, 1), skips=False)
    small = DATASET._replace(
        train=DATASET.train._replace(x=DATASET.train.x[:, :3, :3]),
        valid=DATASET.valid._replace(x=DATASET.valid.x[:, :3, :3]),
    )
    row = np.asarray(tiny.sample(KEY))[None]
    evaluation, _ = children(tiny, small, "exact", recipe=RECIPE).evaluate(KEY, proposal([0], row))
    assert evaluation.status[0] == Status.FAILED and "too small" in evaluation.info["error"][0]

    real, bad = child_exact.stepwise, archs(0, 0)[1]
    monkeypatch.setattr(child_exact, "stepwise", lambda train, *rest: oom(real, train, *rest))

    def oom(real, train, recipe, state, *rest):
        if state.params.size == plan(SPACE, bad, (8, 8, 1), 10).params:
            raise RuntimeError("RESOURCE_EXHAUSTED: out\nof memory")
        return real(train, recipe, state, *rest)

    rows = archs(0, 0)
    assert plan(SPACE, rows[0], (8, 8, 1), 10).params != plan(SPACE, bad, (8, 8, 1), 10).params
    one = Recipe(epochs=1, batch_size=50)
    evaluation, _ = children(SPACE, DATASET, "exact", recipe=one).evaluate(KEY, proposal([1, 0], rows[::-1]))
    assert list(evaluation.status) == [Status.FAILED, Status.OK]
    assert evaluation.info["error"] == ["RuntimeError: RESOURCE_EXHAUSTED: out of memory", ""]


@pytest.mark.slow
def test_a_chunk_that_does_not_fit_is_halved(monkeypatch):
    sizes = []

    def advance(run, key, state, *rest):
        sizes.append(len(state.params))
        if len(state.params) > 1:
            raise RuntimeError("RESOURCE_EXHAUSTED")
        return state

    monkeypatch.setattr(child_vmap, "advance", advance)
    evaluator = children(SPACE, DATASET, "vmap", recipe=RECIPE, chunk=2)
    evaluation, _ = evaluator.evaluate(KEY, proposal([1, 2, 3], archs(0, 0, 0)))
    assert sizes == [2, 1, 1, 1] and (evaluation.status == Status.OK).all()


def test_wrong_use():
    with pytest.raises(ValueError, match="choose auto, vmap, exact"):
        dataclasses.replace(commands.configure("random"), strategy="pmap")
    with pytest.raises(ValueError, match="at least 1"):
        children(SPACE, DATASET, "exact", recipe=RECIPE, last_epochs=0)
