"""What every learner promises. To add one, add a line to tools/learner_cases.py."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from tools.four_devices import on_four_devices
from tools.learner_cases import CASES, EPOCHS, one_step
from tools.toy_search_network import toy_batch

BATCH = toy_batch(0)


# Two variants of an implementation that the default selection has.
LONGER = ("darts_by_parts", "darts_exact")


@pytest.fixture(
    scope="module", params=[pytest.param(case, marks=[pytest.mark.slow] * (case in LONGER)) for case in CASES]
)
def trained(request):
    """A learner, and its states and metrics over 30 steps; what was compiled in the second and later ones."""
    learner = CASES[request.param](1)
    states, metrics, compiled = [learner.init(jax.random.key(0), BATCH)], [], []

    def listen(name, seconds, **kwargs):
        if name.endswith("backend_compile_duration") and metrics:
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    for t in range(30):
        state, values = learner.step(jax.random.fold_in(jax.random.key(1), t), states[-1], toy_batch(t % 3))
        states.append(state)
        metrics.append(values)
    seen = list(compiled)
    jax.jit(lambda x: x * 2 + 7)(np.float32(1))  # the listener does hear
    assert len(compiled) > len(seen)
    return request.param, learner, states, metrics, seen


def test_loss_falls(trained):
    *_, metrics, _ = trained
    losses = [float(m["train_loss"]) for m in metrics]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:3])


def test_second_step_compiles_nothing(trained):
    assert not trained[-1]


def test_state_is_arrays_that_keep_their_shapes(trained):
    _, learner, states, _, _ = trained
    after, _ = learner.epoch(jax.random.key(2), states[-1], [BATCH["val"]])
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), s) for s in (states[0], states[-1], after)]
    assert all(a == b for a, b in pairwise(shapes))
    assert all(isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in jax.tree.leaves(after))


def test_same_key_same_bits(trained):
    _, learner, states, metrics, _ = trained
    start = learner.init(jax.random.key(0), BATCH)
    state, values = learner.step(jax.random.fold_in(jax.random.key(1), 0), start, BATCH)
    for a, b in zip(jax.tree.leaves((state, values)), jax.tree.leaves((states[1], metrics[0])), strict=True):
        np.testing.assert_array_equal(a, b)
    other = learner.init(jax.random.key(5), BATCH)
    assert not np.array_equal(jax.tree.leaves(other.params)[0], jax.tree.leaves(states[0].params)[0])


def test_epochs_are_counted_and_validated(trained):
    _, learner, states, _, _ = trained
    state, done = learner.epoch(jax.random.key(2), states[-1], ())
    assert state.epoch == 1 and not done and np.isnan(state.valid_loss)
    halves = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 4], BATCH["val"]) for i in (0, 4)]
    whole, _ = learner.epoch(jax.random.key(2), states[-1], [BATCH["val"]])
    parts, _ = learner.epoch(jax.random.key(2), states[-1], halves)
    np.testing.assert_allclose(whole.valid_loss, parts.valid_loss, rtol=1e-5)
    assert whole.valid_accuracy == parts.valid_accuracy and 0 <= whole.valid_accuracy <= 1
    for _ in range(EPOCHS - 1):
        assert not done
        state, done = learner.epoch(jax.random.key(2), state, ())
    assert done and state.epoch == EPOCHS


@pytest.mark.slow
def test_one_device_equals_four():
    """In float64, so that only rounding is left: state and metrics after a step, every learner, in one subprocess."""
    assert on_four_devices(__file__, float64=True) == list(CASES)


def compare_devices():
    assert jax.local_device_count() == 4
    for name, make in CASES.items():
        results = [one_step(make, toy_batch(0, dtype=np.float64), devices) for devices in (1, 4)]
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9, err_msg=name)
        print(name)


if __name__ == "__main__":
    compare_devices()
