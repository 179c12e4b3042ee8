"""Sums of scores in any form, and a metric that is no mean over samples: the same from every trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_tasks import MACRO_F1, macro_f1

from nasjax.tasks.classification import TASK
from nasjax.train.by_parts import by_parts
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished, nothing, summed, with_further, with_loss
from nasjax.train.step import Data, pieces_of, trainer
from nasjax.types import Network, Part

COUNTED = jnp.array([True, False, True])


def scored(score, counted=None):
    task = TASK._replace(score=lambda outputs, targets: score)
    return jax.jit(lambda: summed(task, None, None, counted))()


def test_sums_have_the_form_of_the_scores():
    """Counts, yes and no, and 16 bits are added in 32 bits; samples that are counted elsewhere add nothing, not NaN."""
    some = {
        "a": jnp.array([True, True, False]),
        "b": (jnp.array([[1, 2], [3, 4], [5, 6]]), jnp.array([0.5, jnp.nan, 2])),
    }
    found = scored(some, COUNTED)
    assert jax.tree.structure(found) == jax.tree.structure(some)
    assert (float(found["a"]), found["b"][0].tolist(), float(found["b"][1])) == (1, [6, 8], 2.5)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    assert float(scored(jnp.ones(1000, jnp.bfloat16))) == 1000  # in 16 bits it would stop at 256
    assert jax.tree.leaves(jax.tree.map(np.shape, nothing(jax.eval_shape(lambda: found)))) == [2]
    assert not any(leaf.any() for leaf in jax.tree.leaves(nothing(found)))


def test_finish_takes_a_tuple_one_by_one_and_any_other_form_whole():
    told = TASK._replace(finish=lambda *arguments: arguments)
    assert finished(told, (1, 2, 3)) == (1, 2, 3)
    assert finished(told, {"a": 1}) == ({"a": 1},) and finished(told, [1, 2]) == ([1, 2],)


CLASSES = 5


def network():
    """x [B, 4] -> logits, as a whole and as its only part."""

    def init(key, choice, x):
        return {"params": {"line": {"w": jax.random.normal(key, (4, CLASSES))}}}

    def of_part(variables, choice, inputs, **options):
        return (inputs[0] @ variables["params"]["w"],), {}

    def apply(variables, choice, x, **options):
        return x @ variables["params"]["line"]["w"], variables

    return Network(init, apply, (Part(("line",), of_part, ("x",), ("y",), lambda choice: choice),))


@pytest.fixture(scope="module")
def samples():
    """700 to validate on, two pieces of which the second repeats samples; the classes are of different sizes."""
    x = np.random.default_rng(0).normal(size=(1400, 4)).astype(np.float32)
    y = np.random.default_rng(1).choice(CLASSES, 1400, p=[0.5, 0.3, 0.1, 0.06, 0.04]).astype(np.int32)
    y[700:].sort()  # pieces do not stand for the whole
    return Data(*map(jnp.asarray, (x[:700], y[:700], x[700:], y[700:])), jnp.zeros(0), jnp.zeros(0))


@pytest.mark.slow
@pytest.mark.parametrize("which", [trainer, by_parts])
def test_a_metric_that_is_no_mean_over_samples(which, samples):
    task = MACRO_F1._replace(inputs=lambda x, mean, std: x, augment=lambda key, x, y, cfg: (x, y))
    net, recipe = network(), Recipe(epochs=1, batch_size=700, learning_rate=0.1)
    variables = net.init(jax.random.key(0), None, None)
    train = trainer(net, recipe, 700, variables, task) if which is trainer else by_parts(net, recipe, 700, task)
    logits = samples.valid_x @ variables["params"]["line"]["w"]
    found = train.measure(variables, None, samples.valid_x, samples.valid_y, samples.mean, samples.std)
    expected = macro_f1(logits, samples.valid_y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    few = train.measure(variables, None, samples.valid_x[:90], samples.valid_y[:90], samples.mean, samples.std)
    np.testing.assert_allclose(few, macro_f1(logits[:90], samples.valid_y[:90]), rtol=1e-5)  # a single piece
    if which is by_parts:  # as many at a time as it is told, the last piece not full
        told = train.measure(variables, None, samples.valid_x, samples.valid_y, samples.mean, samples.std, 300)
        np.testing.assert_allclose(told, expected, rtol=1e-5)
    pieces, size = pieces_of(samples.valid_y, task)
    parts = [macro_f1(logits[i : i + size], samples.valid_y[i : i + size]) for i in range(0, 700, size)]
    assert pieces == len(parts) == 2 and abs(np.mean(parts) - expected) > 1e-3
    broken = samples.valid_x.at[5, 0].set(jnp.nan)
    assert np.isnan(train.measure(variables, None, broken, samples.valid_y, samples.mean, samples.std))
    run = jax.jit(train.run) if which is trainer else train.run
    state = run(jax.random.key(1), train.start(variables), None, jnp.float32(0.1), samples, 0, train.steps)
    after = samples.valid_x @ train.variables(state)["params"]["line"]["w"]
    np.testing.assert_allclose(state.valid_metric, [macro_f1(after, samples.valid_y)], rtol=1e-4)


def test_the_loss_beside_the_metric_is_the_mean_over_samples():
    """Those that another batch counts are left out, whatever their values."""
    logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [jnp.nan, 0.0]])
    labels = jnp.array([0, 0, 1])
    task = with_loss(TASK)
    metric, loss = finished(task, summed(task, logits, labels, jnp.array([True, True, False])))
    assert float(metric) == 0.5
    assert float(loss) == pytest.approx(float(TASK.loss(logits[:2], labels[:2], Recipe())), rel=1e-6)


def test_the_best_five_are_told_beside_the_metric():
    logits = jnp.tile(jnp.arange(7.0)[None], (4, 1))
    sums = summed(task := with_further(TASK), logits, jnp.array([6, 2, 1, 0]), jnp.array([True, True, True, False]))
    found = finished(task, sums)
    assert {name: round(float(value), 4) for name, value in found.items()} == {
        "metric": 0.3333,
        "top5_accuracy": 0.6667,
    }
    assert TASK.further(logits[:, :5], jnp.array([0])) == {}  # of five classes all are among the best five
    assert np.isnan(TASK.further(logits.at[0, 0].set(jnp.nan), jnp.arange(4))["top5_accuracy"][0])
