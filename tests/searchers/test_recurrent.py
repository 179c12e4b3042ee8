"""The controller on recurrent cells: its token sequence, and gradients that wait for each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax.searchers import inverse_square_perplexity, reinforce
from nasjax.searchers.lstm_policy import lstm_policy, step_table
from nasjax.spaces.cell_tree.space import CellTree
from nasjax.types import Evaluation

SPACE = CellTree(2)


def test_the_sequence_is_that_of_the_paper():
    """Per node a combination and an activation, then the cell inject, then the cell indices, each a step of its own."""
    heads = {site.group: len(site.choices) for site in CellTree().sites}
    assert heads == {"combination": 2, "activation": 4, "index_new": 15, "index_inject": 15}
    table = step_table(CellTree(), heads)
    names = [list(heads)[head] for head in table.head]
    assert names == ["combination", "activation"] * 16 + ["index_new", "index_inject"]
    assert not table.anchor.any() and (table.columns[:, 0] == np.arange(34)).all()
    # 2 layers of 35 units, a start vector, and per group a head and a table of embeddings.
    params = jax.eval_shape(lstm_policy(CellTree()).init, jax.random.key(0))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count == 2 * (4 * 35 * 70 + 4 * 35) + 35 + 36 * (35 + 36)


@pytest.mark.slow
def test_the_probabilities_of_all_cells_add_up_to_one():
    space = CellTree(2, ("add",), ("tanh", "relu"))
    policy = lstm_policy(space, hidden=5, embedding=5, init_scale=1.0)
    params = policy.init(jax.random.key(0))
    logp, _ = jax.jit(jax.vmap(policy.log_prob, (None, 0)))(params, space.enumerate())
    assert len(logp) == 2**4 * 9 and float(jnp.exp(logp).sum()) == pytest.approx(1, abs=1e-5)
    assert float(jnp.ptp(logp)) > 1  # an order that is not uniform


def evaluated(fitness):
    fitness = jnp.asarray(fitness, jnp.float32)
    return Evaluation(fitness, jnp.zeros_like(fitness), jnp.zeros(fitness.shape, jnp.int8), {})


@pytest.mark.slow
def test_gradients_of_several_batches_make_one_step():
    """m = 1, 3 gradients: the first two leave the policy as it is, the third moves it by the mean of all."""
    fitness = np.array([-100.0, -80.0, -200.0, -90.0], np.float32)
    options = {"policy": "independent", "samples_per_update": 1, "learning_rate": 0.1, "baseline_init": 0.0}
    searcher = reinforce(SPACE, accumulate=3, reward=inverse_square_perplexity(), **options)
    tell = jax.jit(searcher.tell)
    start, proposal = searcher.ask(jax.random.key(1), searcher.init(jax.random.key(0)), 4)

    def told(state, rows):
        rows = np.array(rows)
        return tell(state, jax.tree.map(lambda leaf: leaf[rows], proposal), evaluated(fitness[rows]))

    waiting = told(start, [0, 1])
    np.testing.assert_array_equal(waiting.params["logits"], start.params["logits"])
    assert int(waiting.updates) == 2
    rewards = 80 / fitness**2
    baselines = list(itertools.accumulate(rewards[:3], lambda b, r: 0.95 * b + 0.05 * r, initial=0.0))
    assert float(waiting.baseline) == pytest.approx(baselines[2], rel=1e-5)  # moves with every batch
    moved = told(waiting, [2])
    one_hot = np.zeros((3, 10, 4))
    arity = np.array([len(site.choices) for site in SPACE.sites])
    uniform = np.arange(4)[None] < arity[:, None]
    for n, s in np.ndindex(3, 10):
        one_hot[n, s, int(proposal.arch[n, s])] = 1
    score = one_hot - uniform / arity[:, None]
    mean = ((rewards[:3] - baselines[:3])[:, None, None] * score).mean(0)
    width = start.params["logits"].shape[1]
    gradient = jnp.asarray(-mean[:, :width], jnp.float32)
    adam = optax.adam(0.1)
    steps, _ = adam.update(gradient, adam.init(gradient))
    np.testing.assert_allclose(moved.params["logits"], start.params["logits"] + steps, atol=1e-5)
    again = told(moved, [3])
    np.testing.assert_array_equal(again.params["logits"], moved.params["logits"])
    at_once = told(start, [3, 0, 2, 1])  # in any order
    np.testing.assert_array_equal(at_once.params["logits"], moved.params["logits"])


def test_wrong_use_says_what_to_write():
    with pytest.raises(ValueError, match="accumulate and capacity must be at least 1"):
        reinforce(SPACE, accumulate=0)
