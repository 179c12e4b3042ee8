"""The loop of searches by gradients on a toy network: resuming anywhere gives the uninterrupted search, bit for bit."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.full_disk import full_disk
from tools.toy_search_network import toy_network

from nasjax.drive import learn as learning
from nasjax.experiments.families import gradients_run
from nasjax.learners.darts import darts
from nasjax.store.checkpoint import RunError
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.batches import paired
from nasjax.train.objective import CLASSIFICATION
from nasjax.train.passes import validation
from nasjax.train.sgd import Sgd
from nasjax.train.step import Data
from nasjax.types import Learner, Stages

KEY = jax.random.key(1)
METRICS = ("train_loss", "val_loss", "absent")


class Stopped(Exception):
    pass


def data(nan=False):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 4, 4, 4)).astype(np.float32), rng.integers(3, size=64).astype(np.int32)
    if nan:
        x[7] = np.nan
    parts = (x[:40], y[:40], x[40:], y[40:], np.zeros(4, np.float32), np.ones(4, np.float32))
    return Data(*map(jnp.asarray, parts))


@pytest.fixture(scope="module")
def batches():
    return paired(data(), TASK, batch_size=8, cfg=Augment("none", flip=False))


@pytest.fixture(scope="module")
def stages():
    """Two stages of two epochs; the second one's facts come from the first one's state, and its alpha, 1 larger."""
    learners = [darts(toy_network(), epochs=2, sgd=Sgd(learning_rate=rate), devices=1) for rate in (0.05, 0.1)]

    def facts(i, previous, state):
        if i == 2:
            return None
        return {"seen": 0.0 if i == 0 else round(float(state.alpha["normal"][0, 0]), 6)}

    def carry(i, facts, previous, state):
        return state._replace(alpha=jax.tree.map(lambda alpha: alpha + 1, previous.alpha))

    return Stages(facts, lambda i, facts: learners[i], carry)


def first(batches):
    return batches.batch(KEY, batches.shuffle(KEY, 0), 0)


def search(path, stages, batches, stop=None):
    """All of it, or until the step (epoch, steps done) `stop` has been made."""
    path.mkdir(exist_ok=True)
    epochs = len((path / "metrics.jsonl").read_text().splitlines()) if (path / "metrics.jsonl").exists() else 0

    def count(progress):
        nonlocal epochs
        epochs = progress.epoch
        if stop == (epochs, 0):
            raise Stopped

    def step(done, steps):
        if stop == (epochs, done):
            raise Stopped

    def history(stage, facts, state):
        return {"first": float(state.alpha["normal"][0, 0]), "seen": facts["seen"]}

    key = jax.random.key(3)
    return learning.learn(
        key, stages, batches, workdir=path, metrics=METRICS, history=history, on_epoch=count, on_step=step
    )


def lines(path):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "wall_s"} for row in rows]


@pytest.fixture(scope="module")
def whole(stages, batches, tmp_path_factory):
    path = tmp_path_factory.mktemp("learn") / "whole"
    return path, search(path, stages, batches)


@pytest.mark.slow
def test_a_search_writes_one_line_an_epoch(whole):
    path, end = whole
    rows = lines(path)
    assert [(row["epoch"], row["stage"], row["done"]) for row in rows] == [
        (1, 0, False),
        (2, 0, True),
        (3, 1, False),
        (4, 1, True),
    ]
    assert rows[0]["absent"] is None and rows[1]["train_loss"] < rows[0]["train_loss"]
    assert rows[2]["seen"] == round(rows[1]["first"], 6) != 0.0
    assert rows[2]["first"] == pytest.approx(rows[1]["first"] + 1, abs=0.01)
    assert (end.stage, end.epoch) == (1, 4)


@pytest.mark.parametrize("stop", [(0, 3), (1, 0), (1, 4), (2, 0), (2, 2), (3, 0), (4, 0)])
def test_resumed_equals_uninterrupted(whole, stages, batches, tmp_path, stop, monkeypatch):
    monkeypatch.setattr(learning, "SAVE_S", 0.0)  # saves inside epochs, too
    path = tmp_path / "killed"
    with pytest.raises(Stopped):
        search(path, stages, batches, stop)
    end = search(path, stages, batches)
    assert lines(path) == lines(whole[0])
    for a, b in zip(jax.tree.leaves(end.state), jax.tree.leaves(whole[1].state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("write", [2, 4, 7])
def test_a_search_goes_on_once_a_full_disk_has_room(whole, stages, batches, tmp_path, write, monkeypatch):
    monkeypatch.setattr(learning, "SAVE_S", 0.0)
    with full_disk(write), pytest.raises(RunError, match="No space left on device"):
        search(tmp_path / "full", stages, batches)
    search(tmp_path / "full", stages, batches)
    assert lines(tmp_path / "full") == lines(whole[0])


def test_no_key_comes_twice_and_means_are_of_their_epoch(tmp_path, batches):
    """A learner that does nothing but tell: keys of starts, steps and epochs; its loss is the number of the step."""
    keys, steps = [], iter(range(1, 100))

    def saw(key):
        keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))

    def init(key, batch):
        saw(key)
        return {"epoch": np.int32(0)}

    def step(key, state, batch):
        saw(key)
        return state, {"train_loss": np.float32(next(steps))}

    def epoch(key, state, valid):
        saw(key)
        done = int(state["epoch"]) + 1
        return {"epoch": np.int32(done)}, done == 2

    stages = Stages(lambda i, facts, state: {} if i < 2 else None, lambda i, facts: Learner(init, step, epoch))
    history = lambda stage, facts, state: {}  # noqa: E731
    learning.learn(jax.random.key(3), stages, batches, workdir=tmp_path, metrics=("train_loss",), history=history)
    assert len(keys) == len(set(keys)) == 2 * (1 + 2 * (5 + 1))
    assert [row["train_loss"] for row in lines(tmp_path)] == [3.0, 8.0, 13.0, 18.0]  # of 1..5, 6..10, ...


def test_a_finished_search_is_only_read(whole, stages, batches):
    before = (whole[0] / "metrics.jsonl").read_bytes()
    end = search(whole[0], stages, batches)
    assert (end.resumed, end.epoch) == (4, 4)
    assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_nan_ends_the_search_with_its_reason(stages, tmp_path):
    with pytest.raises(RunError, match="NaN in epoch 1"):
        search(tmp_path / "nan", stages, paired(data(nan=True), TASK, batch_size=8, cfg=Augment("none", flip=False)))


def test_damaged_stages_are_refused(whole, stages, batches, tmp_path):
    path = tmp_path / "damaged"
    path.mkdir()
    (path / "stages.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        search(path, stages, batches)


def test_batches_cover_an_epoch_once_and_validate_everything(batches):
    key = jax.random.key(0)
    order = batches.shuffle(key, 0)
    seen = [np.asarray(batches.batch(key, order, t)["train"][0]) for t in range(batches.epoch_steps)]
    assert len(np.unique(np.concatenate(seen)[:, 0, 0, 0])) == 40
    assert not np.array_equal(order, batches.shuffle(key, 1))
    valid = list(batches.valid())
    assert sum(float(weight.sum()) for *_, weight in valid) == 24
    first, second = (np.asarray(batches.batch(key, order, t)["val"][0]) for t in (0, 1))
    assert len(np.unique(first[:, 0, 0, 0])) == 8 and not np.array_equal(first, second)


@pytest.mark.slow
def test_every_validation_sample_counts_once_whatever_the_batch(batches):
    """24 samples: sizes that divide them, that do not, that exceed them, and that several devices must share."""
    network = toy_network()
    choice = jax.tree.map(jnp.ones_like, darts(network, epochs=1).init(KEY, first(batches)).alpha)
    variables = network.init(KEY, choice, first(batches)["train"][0])
    validate = validation(network, CLASSIFICATION, 1)
    found = []
    for given, size, count in ((batches, None, 3), (batches, 16, 2), (batches, 99, 1)):
        parts = list(given.valid(size))
        assert len(parts) == count and len({x.shape for x, *_ in parts}) == 1
        assert sum(float(weight.sum()) for *_, weight in parts) == 24
        found.append(validate(variables["params"], variables["batch_stats"], choice, parts))
    np.testing.assert_allclose(found, [found[0]] * 3, rtol=1e-5)
    shared = paired(data(), TASK, batch_size=20, cfg=Augment("none"), devices=5)
    for size, shape, weights in ((None, 20, [20, 4]), (24, 25, [24])):
        parts = list(shared.valid(size))
        assert [(len(x), len(y), float(weight.sum())) for x, y, weight in parts] == [(shape, shape, w) for w in weights]


@pytest.mark.slow
def test_a_derived_cells_figure_does_not_depend_on_the_searchs_batch(batches):
    """20 of 24 samples once were all that counted with a batch of 20."""
    network = toy_network()
    state = darts(network, epochs=1, devices=1).init(KEY, first(batches))
    found = []
    for size in (8, 20):
        parts = types.SimpleNamespace(
            problem=types.SimpleNamespace(task=TASK),
            batches=paired(data(), TASK, batch_size=size, cfg=Augment("none")),
            networks=lambda stage, facts: network,
            inherit=lambda state: state.params,
            choice=lambda state: state.alpha,
            discrete=lambda tree, facts, mixed: mixed,
        )
        end = types.SimpleNamespace(stage=0, facts=None, state=state)
        found += gradients_run.accuracies(parts, end, [{}])
        assert gradients_run.accuracies(parts, end, [{}], most=3) == found[-1:]  # no batch is smaller
    assert found[0] == found[1]
    assert (found[0] * 24) % 1 == pytest.approx(0, abs=1e-5)


def test_a_batch_larger_than_a_part_is_refused():
    with pytest.raises(ValueError, match="24 validation"):
        paired(data(), TASK, batch_size=32, cfg=Augment())
