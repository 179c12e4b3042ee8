"""Trainings whose images stay in files have the bits of those whose images are in memory, wherever they begin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tools.toy_jobs import network

from nasjax.data.dataset import Dataset
from nasjax.data.sources import Split
from nasjax.data.stream import images
from nasjax.data.view import View
from nasjax.evaluators.supernet import path_accuracy
from nasjax.nets.supernet import Supernet
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.batches import paired, training
from nasjax.train.fit import fit, measured, resident
from nasjax.train.fit import training as trained
from nasjax.train.recipe import Recipe
from nasjax.train.streaming import steps

RECIPE = Recipe(epochs=2, batch_size=4, augment=Augment("pad", 1))
NETWORK = network(bn_eps=1e-5, dtype="float32")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The same samples in files and in memory: 10 to train and 6 to validate on."""
    folder, random = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    files = [str(folder / f"{n}.png") for n in range(16)]
    for file in files:
        Image.fromarray(random.integers(0, 256, (9, 7, 3)).astype(np.uint8)).save(file)
    x = images(files, folder, View(4, 4, 3), readers=1, skip=False)
    y = random.integers(0, 3, 16).astype(np.int32)
    third = np.full(3, 1 / 3, np.float32)

    def made(x):
        return Dataset("toy", 3, tuple("abc"), Split(x[:10], y[:10]), Split(x[10:], y[10:]), third, third, "")

    yield made(x), made(np.asarray(x))
    x.readers.close()


@pytest.mark.slow
def test_a_training_from_files_has_the_bits_of_one_in_memory(sets):
    found = []
    for one in sets:
        data = resident(one)
        variables, history = fit(jax.random.key(0), NETWORK, data, RECIPE, TASK)
        last = trained(NETWORK, RECIPE, data, TASK, variables, 1)
        test = measured(last, variables, None, *one.valid, data, TASK)
        found.append((jax.device_get(variables), history["train_loss"], float(test)))
        valid = history["valid_accuracy"]
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert valid[-1] == found[0][2]


@pytest.mark.slow
@pytest.mark.parametrize("made", [training, paired])
def test_batches_of_a_search_from_files_have_the_bits_of_those_in_memory(sets, made):
    key, batches = jax.random.key(3), [made(resident(one), TASK, batch_size=4, cfg=RECIPE.augment) for one in sets]
    order = [one.shuffle(key, 0) for one in batches]
    for t in (0, 1, 1, 0):  # any step can be made again
        jax.tree.map(np.testing.assert_array_equal, *(one.batch(key, order[0], t) for one in batches))
    sums = [sum((x * w[:, None, None, None]).sum() for x, _, w in one.valid(4)) for one in batches]
    np.testing.assert_allclose(*sums, rtol=1e-5)
    assert sum(float(w.sum()) for *_, w in batches[0].valid(4)) == 6


def test_a_step_has_its_own_cuts_wherever_its_training_begins(sets):
    data, cfg = resident(sets[0]), Augment("resized", flip=False)
    key, order = jax.random.key(1), np.arange(10, dtype=np.int32)
    through = [np.asarray(step(key, order, t).train_x) for step in [steps(data, cfg, 4, 2)] for t in range(4)]
    for t in (3, 2, 0, 1):
        np.testing.assert_array_equal(steps(data, cfg, 4, 2)(key, order, t).train_x, through[t])
    assert (through[0] != through[2]).any()  # the same files in the next epoch
    assert (steps(data, cfg, 4, 2)(jax.random.key(2), order, 0).train_x != through[0]).any()
    other = dataclasses.replace(cfg, crop_scale=(0.9, 1.0))
    assert (steps(data, other, 4, 2)(key, order, 0).train_x != through[0]).any()


@pytest.mark.slow
def test_paths_are_judged_alike_from_files(sets):
    plain = NETWORK

    def apply(variables, arch, x, **options):
        own = {**variables, "params": {**variables["params"], "beta": variables["params"]["beta"] * arch[0]}}
        outputs, after = plain.apply(own, None, x, **options)
        return (outputs[0] if isinstance(outputs, tuple) else outputs), {
            **variables,
            "batch_stats": after["batch_stats"],
        }

    supernet = Supernet(plain.init, apply, *[None] * (len(Supernet._fields) - 2))
    variables = plain.init(None, None, None)
    variables["params"]["beta"] = np.array([0.0, 1.0, -1.0], np.float32)
    variables["params"]["kernel"] = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    archs, found = jnp.arange(5)[:, None], []
    for one in sets:
        accuracy = path_accuracy(supernet, resident(one), TASK, calibration_batches=2, batch_size=4)
        found.append(np.asarray(accuracy(variables, archs)))
    np.testing.assert_array_equal(*found)
    assert len(set(found[0])) > 1
