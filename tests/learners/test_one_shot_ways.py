"""A supernet's update by programs that the host runs in turn: what the one program computes."""

import dataclasses

import jax
import numpy as np
import pytest
from tools.tiny_choice_chains import THREE, images, shaken, tiny

from nasjax.learners.one_shot_update import Descent, one_shot_update
from nasjax.learners.one_shot_ways import by_ways
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.tasks.classification import TASK

RATE = np.float32(0.3)
DESCENT = Descent(learning_rate=0.3, weight_decay=0.1, clip=1.0)


def both(plan, archs, smoothing=0.1, entangled=False, dropout=0.0, **settings):
    """(params, momentum, batch_stats, metrics) after two steps, of the one program and of the host's."""
    descent = dataclasses.replace(DESCENT, label_smoothing=smoothing)
    supernet = choice_supernet(plan, entangled=entangled, dropout=dropout)
    batch = {"train": images(3, 8)}
    variables = jax.tree.map(np.asarray, shaken(supernet.init(jax.random.key(0), None, batch["train"][0])))
    update = one_shot_update(supernet, descent=descent, **settings)
    ways = {name: value for name, value in settings.items() if name != "trainable"}
    found = []
    for run in (jax.jit(update.run), by_ways(supernet, update, TASK, smoothing, **ways)):
        params, stats = variables["params"], variables["batch_stats"]
        momentum = update.momentum(params)
        for step in range(2):
            key = jax.random.key(step)
            params, momentum, stats, metrics = run(params, momentum, stats, np.roll(archs, step, 0), key, RATE, batch)
        found.append((params, momentum, stats, metrics))
    return found


def assert_same(found):
    one, other = (jax.tree.leaves_with_path(result) for result in found)
    assert [path for path, _ in one] == [path for path, _ in other]
    for (path, a), (_, b) in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5, err_msg=str(path))


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["all", "all_bn", "last_bn"])
def test_a_path_of_own_operators_moves_the_same(trainable):
    assert_same(both(tiny(), np.array([[2, 0, 0]], np.int32), trainable=trainable))


@pytest.mark.slow
def test_a_sandwich_of_entangled_operators_with_layers_left_out_moves_the_same():
    """Distillation, dropout and decay on the first path only, two paths that share every array."""
    plan = tiny(choose_identity=True)
    archs = np.array([[2, 2, 2], [0, 3, 3], [1, 0, 3], [0, 1, 0]], np.int32)
    assert_same(both(plan, archs, entangled=True, dropout=0.5, smoothing=0.0, distill=True, regularised="first"))


@pytest.mark.slow
def test_strictly_fair_paths_with_a_piece_of_the_batch_each_move_the_same():
    archs = np.array([[0, 1], [1, 0]], np.int32)
    assert_same(both(tiny(stem=6, first=0, depths=(2,), strides=(1,), operators=THREE[:2]), archs, fresh_batches=True))


@pytest.mark.slow
def test_widths_that_are_searched_move_the_same():
    plan = tiny(depths=(2,), operators=THREE[:2], channel_factors=(0.5, 1.0))
    assert_same(both(plan, np.array([[1, 0, 0, 1]], np.int32), trainable="all"))


def test_a_supernet_that_is_one_program_is_refused():
    supernet = choice_supernet(tiny())._replace(ways=None)
    with pytest.raises(ValueError, match="one program; use one_shot_update"):
        by_ways(supernet, one_shot_update(supernet), TASK, 0.0)


@pytest.mark.slow
def test_paths_that_do_not_divide_the_operators_move_the_same():
    """Two paths a step, three operators: the last of the paths that are compiled ahead stand beside others again."""
    plan = tiny(stem=6, first=0, depths=(2,), strides=(1,))
    assert_same(both(plan, np.array([[0, 1], [2, 2]], np.int32), fresh_batches=True))
