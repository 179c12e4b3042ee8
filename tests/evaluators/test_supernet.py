"""Judging paths with a supernet's weights: re-calibrated statistics, inherited accuracy, the batch norm indicator."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.tiny_choice_chains import images, quick, shaken, tiniest, tiny

from nasjax.evaluators.supernet import indicator, inherited_accuracy, path_accuracy, score_sum, with_costs
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.searchers.additive import best_path
from nasjax.spaces.choice_chain.plan import counter
from nasjax.tasks.classification import TASK
from nasjax.train.step import Data
from nasjax.types import Proposal, Status

PLAN = tiniest()
SUPERNET = choice_supernet(PLAN)
A, B = np.array([0, 1], np.int32), np.array([1, 0], np.int32)
BATCH, BATCHES = 8, 4


def data(count=BATCH * BATCHES + 5, labels=None):
    """Random images; 5 training images are no whole batch, and 37 validation images are no whole batches either."""
    (train_x, train_y), (valid_x, valid_y) = images(1, count), images(2, 37)
    labels = valid_y if labels is None else labels
    return Data(train_x, train_y, valid_x, labels, jnp.array([0.1, -0.2]), jnp.array([1.5, 0.8]))


def white(x):
    return (np.asarray(x) - np.array([0.1, -0.2], np.float32)) / np.array([1.5, 0.8], np.float32)


@pytest.fixture(scope="module")
def variables():
    """A bias makes all classes about equally likely: else one would win, whatever the statistics."""
    variables = shaken(SUPERNET.init(jax.random.key(0), None, jnp.zeros((1, 6, 6, 2))))
    valid = white(images(2, 37)[0])
    logits = quick(lambda v, arch: SUPERNET.apply(v, arch, valid, train=True)[0])(variables, B)
    variables["params"]["head"]["bias"] = -np.asarray(logits).mean(0)
    return variables


@pytest.fixture(scope="module")
def predicted(variables):
    """(arch, running statistics) -> predictions; and arch -> statistics of every calibration batch."""
    x, valid = white(images(1, BATCH * BATCHES + 5)[0]), white(images(2, 37)[0])
    eval_mode = quick(lambda arch, stats: SUPERNET.apply({**variables, "batch_stats": stats}, arch, valid)[0])
    # A momentum of 0 leaves nothing of what was there before: these are the batch's own statistics.
    one = quick(lambda arch, x: SUPERNET.apply(variables, arch, x, train=True, bn_momentum=0.0)[1]["batch_stats"])

    def of_batches(arch):
        return [jax.tree.map(np.asarray, one(arch, x[i : i + BATCH])) for i in range(0, BATCH * BATCHES, BATCH)]

    return lambda arch, stats: np.asarray(eval_mode(arch, stats)).argmax(-1), of_batches


@pytest.fixture(scope="module")
def own(predicted):
    """Predictions of paths A and B with the plain mean of their own batch statistics."""
    predict, of_batches = predicted

    def averaged(arch):
        return jax.tree.map(lambda *s: np.mean(s, 0, dtype=np.float32), *of_batches(arch))

    return {name: (averaged(arch), predict(arch, averaged(arch))) for name, arch in (("a", A), ("b", B))}


def judge(labels, **settings):
    return path_accuracy(SUPERNET, data(labels=jnp.asarray(labels)), TASK, batch_size=BATCH, **settings)


ONE_IMAGE = 1.01 / 37  # rounding may turn an image


@pytest.mark.slow
def test_calibrated_statistics_are_the_mean_of_the_batches(variables, predicted, own):
    """The labels are what the path says with its own statistics, so its accuracy is 1; others' statistics say less."""
    stats, labels = own["b"]
    accuracy = judge(labels, calibration_batches=200)  # at most the four whole batches there are
    assert float(accuracy(variables, B[None])[0]) == pytest.approx(1, abs=ONE_IMAGE)
    # The first layer's mean, from the convolution itself.
    patches = jax.lax.conv_general_dilated(
        white(images(1, BATCH * BATCHES)[0]),
        variables["params"]["stem"]["conv"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(stats["stem"]["mean"], patches.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    # Stale statistics would have been seen: those of path a, and those that the supernet's training left.
    predict, _ = predicted
    for stale in (own["a"][0], variables["batch_stats"]):
        assert (predict(B, stale) == labels).mean() < 0.9


@pytest.mark.slow
def test_paths_do_not_see_each_other(variables, own):
    """Alone, after another path, in any order, the same accuracy to the bit; also as far as one image all at once."""
    accuracy = judge(own["b"][1], calibration_batches=BATCHES)
    orders = [np.asarray(accuracy(variables, np.array(archs))) for archs in ([A, B, A], [B, A, B])]
    assert orders[0][1] == orders[1][0] == orders[1][2] and orders[0][0] == orders[0][2] == orders[1][1]
    assert orders[0][1] > 1 - ONE_IMAGE > orders[0][0]
    assert float(accuracy(variables, B[None])[0]) == orders[0][1]
    at_once = judge(own["b"][1], calibration_batches=BATCHES, over="vmap")
    np.testing.assert_allclose(at_once(variables, np.array([A, B])), orders[0][:2], atol=ONE_IMAGE)


@pytest.mark.slow
def test_the_last_batch_of_validation_counts_once(variables, own):
    """37 images in batches of 8, padded by the last one, which is wrong: it counts once (else 36 / 40)."""
    wrong = np.array(own["b"][1])
    wrong[-1] = (wrong[-1] + 1) % 3
    accuracy = judge(wrong, calibration_batches=BATCHES)
    assert float(accuracy(variables, B[None])[0]) == pytest.approx(36 / 37, abs=ONE_IMAGE)


@pytest.mark.slow
def test_exponential_average_is_that_of_the_release(variables, predicted):
    """Momentum 0.9 from (0, 1), over 100 batches of 2 images that grow: not what the plain mean would give."""
    predict, whole = predicted[0], data(200)
    whole = whole._replace(train_x=whole.train_x * jnp.linspace(0.1, 4, 200)[:, None, None, None])
    one = quick(lambda x: SUPERNET.apply(variables, A, x, train=True, bn_momentum=0.0)[1]["batch_stats"])
    stats = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, float(path[-1].key == "var"), np.float32), variables["batch_stats"]
    )
    seen = []
    for x in np.split(white(whole.train_x), 100):
        seen.append(jax.tree.map(np.asarray, one(x)))
        stats = jax.tree.map(lambda old, new: np.float32(0.9) * old + np.float32(0.1) * new, stats, seen[-1])
    labels = predict(A, stats)
    settings = {"calibration_batches": 100, "batch_size": 2, "average": "ema"}
    accuracy = path_accuracy(SUPERNET, whole._replace(valid_y=jnp.asarray(labels)), TASK, **settings)
    assert float(accuracy(variables, A[None])[0]) == pytest.approx(1, abs=ONE_IMAGE)
    assert (predict(A, jax.tree.map(lambda *s: np.mean(s, 0), *seen)) == labels).mean() < 0.9


def proposals(ids, archs):
    return Proposal(np.array(ids), np.array(archs, np.int32), np.full(len(ids), -1))


def test_inherited_accuracy_goes_in_chunks():
    """Of one shape, padded; what was not asked is NaN; a NaN is a failed trial; variables are handed through."""
    calls = []

    def accuracy(variables, archs):
        calls.append(archs.shape)
        return jnp.where(archs[:, 0] == 9, jnp.nan, variables * archs[:, 0] / 10)

    evaluator = inherited_accuracy(accuracy, 0.5, chunk=2)
    evaluation, artifacts = evaluator.evaluate(
        jax.random.key(0), proposals([3, -1, 7, 5], [[4, 0], [1, 1], [9, 0], [2, 0]])
    )
    np.testing.assert_allclose(evaluation.fitness, [0.2, np.nan, np.nan, 0.1], rtol=1e-6)
    assert evaluation.status.tolist() == [Status.OK, Status.OK, Status.FAILED, Status.OK]
    assert evaluation.cost[1] == 0 and artifacts is None and calls == [(2, 2), (2, 2)]


@pytest.mark.slow
def test_one_program_judges_all_paths(variables, own):
    """Through the evaluator, whatever the paths, their number and their order."""
    accuracy, compiled = judge(own["b"][1], calibration_batches=1), []
    evaluator = inherited_accuracy(accuracy, variables, chunk=2)
    evaluator.evaluate(jax.random.key(0), proposals([0, 1], [A, A]))
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **kwargs: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    fitness = [
        evaluator.evaluate(jax.random.key(1), proposals(range(len(archs)), archs))[0].fitness
        for archs in ([A, B, np.array([1, 1])], [np.array([1, 1]), B, A, A], [B])
    ]
    assert not compiled
    np.testing.assert_array_equal(fitness[0], fitness[1][[2, 1, 0]])
    assert fitness[2][0] == fitness[0][1] and len(set(fitness[0].tolist())) > 1


SMALL = np.array([[1.0, 0.2, 0.0], [0.5, 0.9, 0.0]], np.float32)


def test_scores_add_up():
    """S((0, 1)) = 1.9 is the best; without operator 0 in layer 0 it is S((1, 1)) = 1.1."""
    score = score_sum(PLAN.space, SMALL)
    paths = np.array(list(itertools.product(range(2), repeat=2)))
    found = np.asarray(score(paths))
    np.testing.assert_allclose(found, [1.5, 1.9, 0.7, 1.1], rtol=1e-6)
    assert paths[found.argmax()].tolist() == [0, 1] and float(score(paths[1])) == pytest.approx(1.9)
    best, total, _ = best_path(SMALL[:, :2], np.array([[3, 1], [1, 1]]), limit=3)
    assert best.tolist() == [1, 1] and total == pytest.approx(1.1)


def test_a_constant_added_to_a_layer_changes_no_ranking():
    paths = PLAN.space.enumerate()
    before = np.asarray(score_sum(PLAN.space, SMALL)(paths))
    after = np.asarray(score_sum(PLAN.space, SMALL + np.array([[5.0], [0.0]], np.float32))(paths))
    assert np.argsort(before).tolist() == np.argsort(after).tolist() and not np.allclose(before, after)


def test_identity_contributes_nothing():
    """Chosen or fixed; and a table without its column is refused, for entry -1 would read the last operator."""
    space = tiny(first=0, stem=6, depths=(4,), strides=(1,), choose_identity=True, removed=(1,)).space
    table = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    with pytest.raises(ValueError, match=r"must be \[4, 4\], the last column that of identity; got \[4, 3\]"):
        score_sum(space, table)
    with pytest.raises(ValueError, match=r"\[4, 4\]"):
        indicator(space, table)
    whole = np.concatenate([table, np.zeros((4, 1), np.float32)], 1)
    found = score_sum(space, whole)(np.array([[0, -1, 3, 2], [3, -1, 3, 3], [3, -1, 0, 3]]))
    np.testing.assert_array_equal(found, [1 + 12, 0, 7])


def test_the_indicator_is_traceable_and_knows_nan():
    evaluator = indicator(PLAN.space, np.where(np.arange(6).reshape(2, 3) == 1, np.nan, SMALL))
    run = jax.jit(lambda archs: evaluator.evaluate(jax.random.key(0), proposals_of(archs))[0])
    evaluation = run(PLAN.space.enumerate())
    np.testing.assert_allclose(evaluation.fitness, [1.5, 1.9, np.nan, np.nan], rtol=1e-6)
    assert evaluation.status.tolist() == [Status.OK, Status.OK, Status.FAILED, Status.FAILED]
    assert not np.any(evaluation.cost)


def proposals_of(archs):
    return Proposal(jnp.arange(len(archs)), archs, jnp.full(len(archs), -1))


def test_costs_are_further_objectives():
    macs, params = counter(PLAN, "macs"), counter(PLAN, "params")
    evaluator = with_costs(indicator(PLAN.space, SMALL), macs, params)
    evaluation, _ = evaluator.evaluate(jax.random.key(0), proposals_of(PLAN.space.enumerate()))
    assert evaluation.fitness.shape == (4, 3)
    np.testing.assert_allclose(evaluation.fitness[:, 0], [1.5, 1.9, 0.7, 1.1], rtol=1e-6)
    for row, arch in zip(np.asarray(evaluation.fitness), PLAN.space.enumerate(), strict=True):
        assert tuple(-row[:0:-1]) == PLAN.count(arch)


def test_wrong_use():
    for settings, message in (
        ({"average": "ema"}, "needs 100 calibration batches or more, there are 4"),
        ({"average": "mean"}, "cumulative or ema"),
        ({"over": "pmap"}, "map or vmap"),
        ({"calibration_batches": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            path_accuracy(SUPERNET, data(), TASK, **{"batch_size": BATCH, **settings})
