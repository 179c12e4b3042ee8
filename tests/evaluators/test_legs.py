"""Trainings in several legs: what goes on is what stopped, and the two together are one training, bit for bit."""

import dataclasses

import jax
import numpy as np
import pytest
from tools.killing import KilledError, killed_after
from tools.networks import children

from nasjax.data.dataset import DataConfig
from nasjax.drive.work import shelf
from nasjax.evaluators import child
from nasjax.evaluators.children import ChildResult, Curves
from nasjax.evaluators.legs import Leg
from nasjax.problem.builders import tabular_cell
from nasjax.problem.data import load
from nasjax.problem.problem import builds
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.store import artifacts
from nasjax.tasks.classification import TASK
from nasjax.train import fit, underway
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.types import Built, Proposal, Status

RECIPE = Recipe(epochs=3, batch_size=32, schedule="cosine", rate_per_step=True, drop_path=0.1, augment=Augment("pad"))
DATASET = load(DataConfig(train_limit=100, valid_limit=40))
KEY, ARCH = jax.random.key(0), np.array([5])


def one(trial, arch, epochs, parent=-1):
    return Proposal(*(np.asarray([x], np.int32) for x in (trial, arch, parent, epochs)))


def stopping(monkeypatch, seen, **settings):
    """The evaluator with a training that notes its leg, and whose curve is the numbers of the epochs / 10."""

    def exact(*given, **options):
        def train(key, several, width):
            seen.extend(several)
            curve = np.arange(1, 5, dtype=np.float32) / 10
            return [ChildResult(1.0, Curves(curve, curve, 0), "weights", left={"of": one.id}) for one in several]

        return train

    monkeypatch.setattr(child, "exact", exact)
    build = lambda arch: Built({}, 1, 1, None, None)  # noqa: E731
    recipe = dataclasses.replace(RECIPE, epochs=4)
    return child.child(build, DATASET, TASK, recipe=recipe, last_epochs=2, **settings)


def test_a_child_is_given_its_epochs_and_what_its_parent_left(monkeypatch):
    seen = []
    evaluator = stopping(monkeypatch, seen, continued=True)
    evaluation, kept = evaluator.evaluate(KEY, one(7, ARCH, 3))
    assert seen[0].leg == Leg(3) and evaluation.fitness == np.float32(0.3)
    assert np.isnan(evaluation.info["valid_curve"][0, 3]) and evaluation.info["train_loss"] == np.float32(0.3)
    evaluator.evaluate(KEY, one(9, ARCH, 4, parent=7), kept)
    assert seen[1].leg == Leg(4, {"of": 7})


def test_what_cannot_go_on_says_so(monkeypatch):
    evaluator = stopping(monkeypatch, [], continued=True)
    evaluation, _ = evaluator.evaluate(KEY, one(9, ARCH, 4, parent=7), {})
    assert evaluation.status[0] == Status.FAILED and "training of trial 7" in evaluation.info["error"][0]
    with pytest.raises(ValueError, match="for 1 to 4 epochs"):
        evaluator.evaluate(KEY, one(9, ARCH, 5))
    with pytest.raises(ValueError, match="inherit=false"):
        stopping(monkeypatch, [], continued=True, inherit=lambda *args: None)


def of_chains():
    space = ConvChain(2, 2, filter_heights=(1, 3), filter_widths=(3,), filter_counts=(2, 4))
    arch = np.asarray(space.sample(jax.random.key(1)))
    return children(space, DATASET, "exact", recipe=RECIPE, continued=True), arch


def of_cells():
    """By the program that all cells share."""
    space, builder = TabularCell(edges=1), tabular_cell.BUILDER
    form = dataclasses.replace(builder.form, channels=2, cells=1)
    signature = TASK.signature(DATASET)
    masked, build = builder.masked(space, form, signature), builds(builder, space, form, signature)
    evaluator = child.child(build, DATASET, TASK, recipe=RECIPE, masked=masked, path=True, continued=True)
    return evaluator, np.array([3], np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("made", [of_chains, of_cells])
def test_a_training_in_two_legs_is_the_training_at_once(made, tmp_path):
    """Trial 3 begins it, trial 8 goes on from the file that was written: the random streams are those of trial 3."""
    evaluator, arch = made()
    first, left = evaluator.evaluate(KEY, one(3, arch, 1))
    stored = artifacts.load(tmp_path, artifacts.save(tmp_path, left[3]))
    second, end = evaluator.evaluate(KEY, one(8, arch, 3, parent=3), {3: stored})
    whole, at_once = evaluator.evaluate(KEY, one(3, arch, 3))
    assert second.info["error"] == whole.info["error"] == [""] and second.fitness == whole.fitness
    np.testing.assert_array_equal(second.info["valid_curve"], whole.info["valid_curve"])
    assert first.info["valid_curve"][0, 0] == whole.info["valid_curve"][0, 0]
    for a, b in zip(jax.tree.leaves(end[8]), jax.tree.leaves(at_once[3]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "training" not in end[8]  # nothing goes on from a whole training
    other, _ = evaluator.evaluate(KEY, one(8, arch, 3))
    assert other.info["train_loss"] != whole.info["train_loss"]


def one_by_one():
    """By the masked program of all chains."""
    space = ConvChain(1, 1, filter_heights=(1, 3), filter_widths=(3,), filter_counts=(2,))
    return children(space, DATASET, "vmap", recipe=RECIPE, chunk=1), np.asarray(space.sample(jax.random.key(1)))


@pytest.mark.slow
@pytest.mark.parametrize("made", [of_chains, of_cells, one_by_one])
def test_a_training_that_was_killed_goes_on_to_the_same_bits(made, tmp_path, monkeypatch):
    """Two children of a task: the first has ended when it is killed, the second is in its second epoch."""
    monkeypatch.setattr(fit, "DISPATCH_S", 0.0)  # a step at a time
    evaluator, arch = made()
    none = np.full(2, -1, np.int32)
    proposal = Proposal(np.int32([3, 4]), np.stack([arch, arch]), none)
    whole, at_once = evaluator.evaluate(KEY, proposal)
    kept = shelf(tmp_path, 0.0)
    with pytest.raises(KilledError), underway.keeping(killed_after(kept, 8 + 1 + 5)):  # the first's result among them
        evaluator.evaluate(KEY, proposal)
    assert sorted(file.name.split("-")[0] for file in (tmp_path / "unfinished").iterdir()) == ["3", "4"]
    saved = []
    with underway.keeping(kept._replace(save=lambda name, tree: saved.append(name))):
        again, end = evaluator.evaluate(KEY, proposal)
    assert len(saved) == 8 - 5  # only the last four of the nine steps were done, and none of the first child's
    np.testing.assert_array_equal(again.fitness, whole.fitness)
    for name in ("valid_curve", "train_loss"):
        np.testing.assert_array_equal(again.info[name], whole.info[name])
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_array_equal(a, b)
