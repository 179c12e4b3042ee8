"""Numbers of the controller, the reward and the update (Zoph & Le 2017), worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.evaluators.child import _evaluation
from nasjax.evaluators.children import ChildResult, Curves
from nasjax.searchers.independent_policy import independent_policy
from nasjax.searchers.lstm_policy import anchor_logits, lstm_policy
from nasjax.searchers.policy import depth_schedule
from nasjax.searchers.reinforce import cube, inverse_square_perplexity, metrics, reinforce, score_loss
from nasjax.spaces.conv_chain.space import ConvChain, variant
from nasjax.tasks.classification import TASK
from nasjax.types import Evaluation

ONE_BIT = ConvChain(1, 1, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4,))


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def test_controller_parameter_counts():
    params = jax.eval_shape(lstm_policy(variant("v2")).init, jax.random.key(0))
    assert count([params["lstm0"], params["lstm1"]]) == 19_880
    assert count(params["attention"]) == 2_485
    assert {group: count(head) for group, head in params["heads"].items()} == {
        "filter_height": 144,
        "filter_width": 144,
        "num_filters": 144,
        "stride_height": 108,
        "stride_width": 108,
    }
    assert {group: table.shape for group, table in params["embeddings"].items()}["num_filters"] == (4, 35)
    assert params["start"].shape == (35,)


def test_all_weights_are_drawn_from_the_papers_interval():
    params = lstm_policy(variant("v1")).init(jax.random.key(0))
    weights = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    assert weights.min() >= -0.08 and weights.max() < 0.08
    assert weights.std() == pytest.approx(0.16 / np.sqrt(12), rel=0.02)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(params))


@pytest.mark.parametrize(("h_j", "probability"), [(0.2, 0.631126), (-0.1, 0.603938)])
def test_anchor_probability(h_j, probability):
    weights = {"previous": jnp.array([[0.5]]), "current": jnp.array([[1.0]]), "v": jnp.array([1.0])}
    logits = anchor_logits(weights, jnp.array([[h_j]]), jnp.array([0.5]))
    assert float(jax.nn.sigmoid(logits[0])) == pytest.approx(probability, abs=5e-7)


@pytest.mark.slow
def test_ascent_direction_of_one_binary_token():
    policy = independent_policy(ONE_BIT)
    params = policy.init(jax.random.key(0))
    column = ONE_BIT.columns["layer0/filter_height"]
    arch = np.zeros((2, len(ONE_BIT.sites)), np.int32)
    arch[0, column] = 1  # (a=1, R=0.8), (a=0, R=0.2), b = 0.5
    gradient = jax.grad(lambda p: score_loss(policy, p, arch, jnp.array([0.8, 0.2]) - 0.5)[0])(params)["logits"]
    np.testing.assert_allclose(-gradient[column, :2], [-0.15, 0.15], atol=1e-7)
    assert np.abs(np.delete(gradient, column, 0)).max() == 0


def test_depth_schedule():
    depth = depth_schedule()
    assert [int(depth(n)) for n in (0, 1599, 1600, 12_799, 10**6)] == [6, 6, 8, 20, 20]
    assert int(jax.jit(depth)(jnp.int32(1600))) == 8


def test_rewards():
    """The fitness is the best of the last five epochs, not of all; the reward is its cube."""
    curve = np.array([0.99, 0.90, 0.91, 0.93, 0.92, 0.91], np.float32)
    outcome = ChildResult(1.0, Curves(np.zeros(6), curve, np.int32(0)))
    told = _evaluation(np.array([7]), {}, {0: outcome}, epochs=6, last_epochs=5, task=TASK)
    assert float(told.fitness[0]) == pytest.approx(0.93)
    assert float(cube(told.fitness[0])) == pytest.approx(0.804357)
    assert inverse_square_perplexity()(-80.0) == inverse_square_perplexity(c=80)(80.0) == pytest.approx(1 / 80)


@pytest.mark.slow
def test_baseline_average():
    """d = 0.95, b = 0.5, batch mean 0.7 -> 0.51; the update itself used b = 0.5."""
    searcher = reinforce(
        ONE_BIT, policy="independent", baseline_init=0.5, samples_per_update=2, reward=lambda fitness: fitness
    )
    state, proposal = searcher.ask(jax.random.key(1), searcher.init(jax.random.key(0)), 2)
    told = Evaluation(jnp.array([0.6, 0.8]), jnp.zeros(2), jnp.zeros(2, jnp.int8), {})
    after = metrics(searcher.tell(state, proposal, told))
    assert float(after["baseline"]) == pytest.approx(0.51)
    assert float(after["reward"]) == pytest.approx(0.7)
