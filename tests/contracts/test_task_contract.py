"""What every task promises. A task of the catalog needs a line in CASES."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import catalog
from nasjax.data.dataset import Dataset
from nasjax.data.sources import Split
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.train.scoring import finished, nothing, summed
from nasjax.train.step import Data, trainer
from nasjax.types import Network, Task

N = 12  # samples of a case


class Case(NamedTuple):
    dataset: Dataset  # the training part has N samples
    outputs: Callable[..., Any]  # (key, targets) -> random outputs of a network
    perfect: Callable[..., Any]  # targets -> outputs that could not be better
    best: str  # the metric of these, as a person reads it
    belong: Callable[..., np.ndarray]  # (x, targets) -> bool[B], whether a sample's target still tells what is in it
    augment: Augment = Augment("pad", 2, flip=True, cutout=2)
    moves: bool = True  # whether augmentation changes samples


def classification():
    """Images of a bright pattern on channel 0, as bright as their class says; noise on channel 1."""
    y = np.arange(N, dtype=np.int32) % 3
    x = np.random.default_rng(0).normal(size=(N, 6, 6, 2)).astype(np.float32)
    x[..., 0] = 1 + y[:, None, None]
    split = Split(x, y)
    dataset = Dataset("tiny", 3, ("a", "b", "c"), split, split, np.zeros(2, np.float32), np.ones(2, np.float32), "")
    return Case(
        dataset,
        outputs=lambda key, y: jax.random.normal(key, (len(y), 3)),
        perfect=lambda y: 20 * jax.nn.one_hot(y, 3),
        best="100.00%",
        belong=lambda x, y: np.asarray(x)[..., 0].max((1, 2)) == 1 + np.asarray(y),
    )


def regression():
    """The images of classification with a value for a class: standardised, as a data set has them."""
    case = classification()
    y = (case.dataset.train.y - 1).astype(np.float32)
    split = Split(case.dataset.train.x, y)
    dataset = case.dataset._replace(
        classes=1, class_names=("value",), train=split, valid=split, scale=(1.0, float(case.dataset.train.y.std()))
    )
    return case._replace(
        dataset=dataset,
        outputs=lambda key, y: jax.random.normal(key, (len(y), 1)),
        perfect=lambda y: y[:, None],
        best="1.0000",
        belong=lambda x, y: np.asarray(x)[..., 0].max((1, 2)) == 2 + np.asarray(y),
    )


def segmentation():
    """Images that are bright where their mask is, each mask another block away from the centre."""
    y = np.zeros((N, 8, 8, 1), np.uint8)
    for i in range(N):
        y[i, i % 3 : i % 3 + 2, i // 3 : i // 3 + 3] = 1
    x = np.random.default_rng(0).normal(size=(N, 8, 8, 3)).astype(np.float32)
    x[..., 0] = 2.0 * y[..., 0] - 1
    split = Split(x, y)
    dataset = Dataset("tiny", 1, ("blob",), split, split, np.zeros(3, np.float32), np.ones(3, np.float32), "")
    return Case(
        dataset,
        outputs=lambda key, y: jax.random.normal(key, y.shape),
        perfect=lambda y: 40.0 * y - 20,
        best="100.00%",
        belong=lambda x, y: ((np.asarray(x)[..., :1] > 0) == (np.asarray(y) > 0)).all((1, 2, 3)),
        augment=Augment("none", flip=True, rotate=True),
    )


def language():
    """Windows in which every token is one more than the last."""
    words, window = 17, 5
    x = ((np.arange(N)[:, None] + np.arange(window)) % words).astype(np.int32)
    split, none = Split(x, (x + 1) % words), np.zeros(0, np.float32)
    dataset = Dataset("tiny", words, tuple(map(str, range(words))), split, split, none, none, "")
    return Case(
        dataset,
        outputs=lambda key, y: jax.random.normal(key, (*y.shape, words)),
        perfect=lambda y: 20 * jax.nn.one_hot(y, words),
        best="1.0000",
        belong=lambda x, y: ((np.asarray(x) + 1) % words == np.asarray(y)).all(1),
        moves=False,
    )


CASES: dict[str, Callable[[], Case]] = {
    "classification": classification,
    "regression": regression,
    "segmentation": segmentation,
    "language": language,
    "characters": lambda: language()._replace(best="0.0000"),
}


class Subject(NamedTuple):
    task: Task
    case: Case
    x: Any  # as the network reads it
    y: Any
    outputs: Any  # random ones


@pytest.fixture(scope="module", params=list(catalog.TASKS))
def subject(request):
    assert request.param in CASES, f"the task {request.param} needs a case here"
    task, case = catalog.task(request.param), CASES[request.param]()
    data = case.dataset
    assert len(data.train.y) == N
    x = jax.jit(task.inputs)(data.train.x, data.mean, data.std)
    return Subject(task, case, x, jnp.asarray(data.train.y), case.outputs(jax.random.key(0), data.train.y))


def rows(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def test_it_is_listed_under_its_name(subject):
    assert catalog.task(subject.task.name) is subject.task


def test_the_signature_tells_what_the_network_reads(subject):
    signature = subject.task.signature(subject.case.dataset)
    assert signature.outputs == subject.case.dataset.classes == len(subject.case.dataset.class_names)
    assert jax.tree.structure(signature.inputs) == jax.tree.structure(subject.x)
    for told, leaf in zip(jax.tree.leaves(signature.inputs), jax.tree.leaves(subject.x), strict=True):
        assert (told.shape, told.dtype) == (leaf.shape[1:], leaf.dtype)


def test_images_become_floats_and_tokens_stay_integers(subject):
    raw = subject.case.dataset.train.x
    if raw.ndim == 4:
        assert subject.x.dtype == jnp.float32
    else:
        assert np.issubdtype(raw.dtype, np.integer) and jnp.issubdtype(subject.x.dtype, jnp.integer)
        np.testing.assert_array_equal(subject.x, raw)


def test_the_metric_of_a_batch_is_that_of_its_pieces(subject):
    """Sums of scores add up, however the samples are divided; a sample does not see the others."""
    task, score = subject.task, jax.jit(subject.task.score)
    scores, sums = score(subject.outputs, subject.y), summed(subject.task, subject.outputs, subject.y)
    assert all(column.shape[0] == N and bool(jnp.isfinite(column).all()) for column in jax.tree.leaves(scores))
    whole = finished(task, sums)
    assert whole.shape == () and bool(jnp.isfinite(whole))
    added = nothing(sums)
    for index in (slice(0, 5), slice(5, 6), slice(6, N)):
        outputs, y = rows(subject.outputs, index), rows(subject.y, index)
        for part, column in zip(jax.tree.leaves(score(outputs, y)), jax.tree.leaves(scores), strict=True):
            np.testing.assert_allclose(part, column[index], rtol=1e-5, atol=1e-6)
        added = jax.tree.map(np.add, added, summed(task, outputs, y))
    np.testing.assert_allclose(finished(task, added), whole, rtol=1e-5)
    first = summed(task, subject.outputs, subject.y, jnp.arange(N) < 5)  # the others are counted elsewhere
    expected = summed(task, rows(subject.outputs, slice(0, 5)), rows(subject.y, slice(0, 5)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first, expected)


def test_outputs_that_are_not_finite_have_no_score(subject):
    task, scores = subject.task, jax.tree.leaves(subject.task.score(subject.outputs, subject.y))
    for bad in (np.nan, np.inf):
        broken = jax.tree.map(lambda leaf, bad=bad: leaf.at[3].set(bad), subject.outputs)
        found = jax.tree.leaves(task.score(broken, subject.y))
        assert any(np.isnan(column[3]).any() for column in found)
        assert np.isnan(finished(task, summed(task, broken, subject.y)))
        others = np.arange(N) != 3
        for column, before in zip(found, scores, strict=True):
            np.testing.assert_array_equal(column[others], before[others])


def test_the_loss_is_finite_and_differentiable(subject):
    task, y = subject.task, subject.y
    loss = jax.jit(lambda outputs: task.loss(outputs, y, Recipe()))
    value, slope = jax.value_and_grad(loss)(subject.outputs)
    assert value.shape == () and jnp.issubdtype(value.dtype, jnp.floating) and bool(jnp.isfinite(value))
    leaves = jax.tree.leaves(slope)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves) and any(bool((leaf != 0).any()) for leaf in leaves)
    downhill = jax.tree.map(lambda leaf, by: leaf - 0.1 * by, subject.outputs, slope)
    assert loss(downhill) < value
    assert loss(subject.case.perfect(y)) < value
    several = jax.vmap(loss)(jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), subject.outputs))
    np.testing.assert_allclose(several[0], value, rtol=1e-5)


def test_augmentation_changes_samples_and_targets_together(subject):
    augment, cfg = jax.jit(subject.task.augment, static_argnums=3), subject.case.augment
    assert subject.case.belong(subject.x, subject.y).all()
    wrong = jax.tree.map(lambda leaf: jnp.roll(leaf, 1, 0), subject.y)
    assert not subject.case.belong(subject.x, wrong).any()  # it can tell
    for seed in range(5):
        x, y = augment(jax.random.key(seed), subject.x, subject.y, cfg)
        assert subject.case.belong(x, y).all()
        for new, old in zip(jax.tree.leaves((x, y)), jax.tree.leaves((subject.x, subject.y)), strict=True):
            assert (new.shape, new.dtype) == (old.shape, old.dtype)
        assert np.array_equal(x, subject.x) != subject.case.moves


def test_augmentation_is_a_function_of_its_key(subject):
    augment, cfg = jax.jit(subject.task.augment, static_argnums=3), subject.case.augment
    first, again, other = (augment(jax.random.key(seed), subject.x, subject.y, cfg) for seed in (7, 7, 8))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert np.array_equal(first[0], other[0]) != subject.case.moves
    none = augment(jax.random.key(7), subject.x, subject.y, Augment("none", flip=False))
    assert jax.tree.all(jax.tree.map(np.array_equal, none, (subject.x, subject.y)))


def test_the_metric_is_told_in_its_unit(subject):
    task, case = subject.task, subject.case
    metric = task.metric
    assert metric.sign in (1, -1) and metric.unit in ("fraction", "plain") and metric.name
    best, some = (
        float(finished(task, summed(task, outputs, subject.y)))
        for outputs in (case.perfect(subject.y), subject.outputs)
    )
    assert metric.sign * best > metric.sign * some  # a fitness is the larger the better
    for value in (best, some):
        assert metric.value(metric.value(value)) == value
        assert metric.text(metric.sign * value).endswith("%") == (metric.unit == "fraction")
        shown = float(metric.text(metric.sign * value).removesuffix("%"))
        assert shown == pytest.approx(value * (100 if metric.unit == "fraction" else 1), abs=0.006)
    assert metric.text(metric.sign * best) == case.best
    assert metric.text(None) == metric.text(np.nan) == metric.text(-np.inf) == "none"


def test_the_trainer_hands_tokens_on_as_they_are():
    """Weights of 16 bits make images of 16 bits, but numbers of words stay what they are."""
    seen = []

    def init(key, choice, x):
        seen.append(x.dtype)
        return {"params": {"words": jax.random.normal(jax.random.key(0), (300, 3), jnp.bfloat16)}}

    def apply(variables, choice, x, **options):
        seen.append(x.dtype)
        return variables["params"]["words"][x].mean(1), variables

    network = Network(init, apply)
    task = TASK._replace(inputs=lambda x, mean, std: x, augment=lambda key, x, y, cfg: (x, y))
    x, y, none = jnp.arange(32).reshape(8, 4) + 260, jnp.arange(8) % 3, jnp.zeros(0)
    data = Data(x, y, x, y, none, none)
    variables = network.init(None, None, x)
    train = trainer(network, Recipe(epochs=1, batch_size=4), 8, variables, task)
    state = jax.jit(train.run)(jax.random.key(0), train.start(variables), None, jnp.bfloat16(0.1), data, 0, train.steps)
    assert int(state.step) == 2 and int(state.nan_epoch) == 0 and len(seen) > 2 and set(seen) == {jnp.dtype("int32")}
