"""The distributed scheme of the controller: equal to the plain searcher where it must be, and its accounts add up."""

import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax.drive.scan import scan
from nasjax.searchers import reinforce
from nasjax.searchers.distributed import distributed_reinforce
from nasjax.searchers.independent_policy import independent_policy
from nasjax.searchers.lstm_policy import lstm_policy
from nasjax.searchers.reinforce import score_loss
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Evaluator, Status

CELL = TabularCell(edges=4, ops=("none", "skip", "conv"))
KEY = jax.random.key(3)


def judge(key, proposal, inherited=None):
    """The more of the last operation the better; seconds that differ from cell to cell."""
    good = (proposal.arch == 2).mean(1)
    cost = 10 + proposal.arch @ jnp.array([1.0, 3.3, 0.7, 2.1])
    return Evaluation(0.2 + 0.6 * good, cost, jnp.zeros(len(good), jnp.int8), {"result": good}), None


def equal_times(key, proposal, evaluation):
    return jnp.full(len(proposal.id), 5.0)


def random_times(key, proposal, evaluation):
    return jax.vmap(lambda i: jnp.exp(jax.random.normal(jax.random.fold_in(key, i))))(proposal.id)


def distributed(**settings):
    settings = {"policy": "independent", "learning_rate": 0.1, "children": 2, "shards": 1} | settings
    return distributed_reinforce(CELL, Evaluator(judge), **settings)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), a, b)


LSTM = lstm_policy(CELL, hidden=4, embedding=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy, shards, accumulate, delay",
    [("independent", 1, 1, 0.0), ("independent", 3, 1, 0.4), ("independent", 2, 3, 0.0), (LSTM, 3, 1, 0.0)],
    ids=["plain", "delay", "accumulate", "lstm"],
)
def test_one_replica_is_the_plain_searcher(policy, shards, accumulate, delay):
    settings = {"policy": policy, "learning_rate": 0.1, "accumulate": accumulate}
    run = distributed(replicas=1, children=4, shards=shards, delay=delay, **settings)(KEY, 48)
    searcher = reinforce(CELL, samples_per_update=4, **settings)
    history = jax.jit(lambda key: scan(key, searcher, Evaluator(judge), trials=48, width=4))(KEY)
    assert np.array_equal(run.children.arch, history.arch)
    assert np.array_equal(run.children.fitness, history.fitness)
    close(run.params, history.state.params)
    start = searcher.init(jax.random.split(KEY, 3)[0]).params
    assert not np.allclose(jax.tree.leaves(start)[0], jax.tree.leaves(run.params)[0], atol=1e-2)  # they did move
    assert (run.gradients.staleness == 0).all() and (run.updates == 12 // accumulate).all()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_equal_durations_make_every_gradient_late_by_all_the_others(accumulate):
    k = 5
    run = distributed(replicas=k, accumulate=accumulate, shards=3, seconds=equal_times)(KEY, 2 * k * 4)
    # Gradient n is sent by the replica of gradient n - k and was sampled just after that one: k - 1 came in between.
    n = np.arange(4 * k)
    expected = n // accumulate - np.maximum(n - k + 1, 0) // accumulate
    assert (run.gradients.staleness == expected[:, None]).all()
    if accumulate == 1:
        assert (run.gradients.staleness[k:] == k - 1).all()
    assert run.gradients.sent.tolist() == sorted([5.0, 10.0, 15.0, 20.0] * k) and run.seconds == 20


@pytest.mark.parametrize("shards, accumulate, delay", [(1, 1, 0.0), (4, 1, 0.3), (4, 3, 0.3)])
def test_the_accounts_add_up(shards, accumulate, delay):
    k, m, trials = 6, 2, 100
    settings = {"shards": shards, "accumulate": accumulate, "delay": delay, "seconds": random_times}
    run = distributed(replicas=k, children=m, **settings)(KEY, trials)
    gradients, children = run.gradients, run.children
    assert sorted(gradients.first) == list(range(0, trials, m))  # each child counts once
    assert (run.updates == trials // m // accumulate).all()
    ends = (children.start + children.seconds).reshape(-1, m).max(1)
    np.testing.assert_allclose(gradients.sent, ends[gradients.first // m], rtol=1e-6)
    assert (np.diff(gradients.sent) >= 0).all() and (np.diff(children.start) >= 0).all()
    assert (gradients.applied >= gradients.sent[:, None]).all() and run.seconds == gradients.applied.max()
    if not delay:
        assert (gradients.applied == gradients.sent[:, None]).all()
    for replica in range(k):
        mine = np.flatnonzero(gradients.replica == replica)
        # A replica samples again when the last shard has answered.
        began = children.start[gradients.first[mine]]
        assert np.array_equal(began, [0, *gradients.applied[mine[:-1]].max(1)])
        for shard in range(shards):  # versions and staleness anew, from the times at which messages arrived
            place = np.argsort(np.argsort(gradients.applied[:, shard], kind="stable"))[mine]
            fetched = np.array([0, *(place[:-1] + 1)]) // accumulate
            assert np.array_equal(gradients.fetched[mine, shard], fetched)
            assert np.array_equal(gradients.staleness[mine, shard], place // accumulate - fetched)
    mixed = (gradients.fetched != gradients.fetched[:, :1]).any()
    assert mixed == (delay > 0)


@pytest.mark.slow
@pytest.mark.parametrize("shards, delay", [(1, 0.0), (5, 0.5)])
def test_gradients_are_of_the_parameters_that_were_sampled_with(shards, delay):
    """The whole search again, by hand: a list of all versions of each shard instead of replicas and a clock."""
    k, m, trials, rate, pi = 4, 2, 64, 0.1, independent_policy(CELL)
    run = distributed(replicas=k, children=m, shards=shards, delay=delay, learning_rate=rate, seconds=random_times)(
        KEY, trials
    )
    key_init, key_ask, _ = jax.random.split(KEY, 3)
    adam, (start, unravel) = optax.adam(rate), jax.flatten_util.ravel_pytree(pi.init(key_init))
    part = -(-start.size // shards)

    def cut(vector):
        return list(np.pad(vector, (0, shards * part - start.size)).reshape(shards, part))

    every, moments, sent = [[values] for values in cut(start)], [adam.init(values) for values in cut(start)], []
    arrivals = np.argsort(run.gradients.applied, axis=0, kind="stable")

    def parameters(versions):
        for shard, version in enumerate(versions):
            while len(every[shard]) <= version:
                n = arrivals[len(every[shard]) - 1, shard]
                steps, moments[shard] = adam.update(sent[n][shard], moments[shard])
                every[shard].append(every[shard][-1] + steps)
        found = [np.asarray(every[shard][version]) for shard, version in enumerate(versions)]
        return unravel(jnp.asarray(np.concatenate(found)[: start.size]))

    gradient = jax.jit(jax.grad(lambda params, arch, advantage: score_loss(pi, params, arch, advantage)[0]))
    draw, b = jax.jit(pi.sample), None
    for n, first in enumerate(run.gradients.first):
        params = parameters(run.gradients.fetched[n])
        arch = jnp.stack([draw(jax.random.fold_in(key_ask, i), params, 6) for i in range(first, first + m)])
        assert np.array_equal(arch, run.children.arch[first : first + m])
        reward = (0.2 + 0.6 * (np.asarray(arch) == 2).mean(1)) ** 3
        b = reward.mean() if b is None else b
        np.testing.assert_allclose([run.gradients.reward[n], run.gradients.baseline[n]], [reward.mean(), b], rtol=1e-5)
        sent.append(cut(jax.flatten_util.ravel_pytree(gradient(params, arch, jnp.asarray(reward - b)))[0]))
        b = 0.95 * b + 0.05 * reward.mean()
    assert run.gradients.staleness.max() >= k  # or the versions would not have mattered
    assert (np.ptp(run.gradients.fetched, axis=1) > 0).any() == (delay > 0)
    close(run.params, parameters(run.updates))


def test_a_baseline_per_replica_follows_its_own_rewards():
    run = distributed(replicas=3, baseline="replica", baseline_decay=0.5, seconds=random_times)(KEY, 40)
    for replica in range(3):
        mine = run.gradients.replica == replica
        rewards, found = run.gradients.reward[mine], run.gradients.baseline[mine]
        expected = [*itertools.accumulate(rewards, lambda b, reward: 0.5 * b + 0.5 * reward)]
        np.testing.assert_allclose(found, [rewards[0], *expected[:-1]], rtol=1e-5)


@pytest.mark.slow
def test_a_failed_child_has_reward_0_and_a_rejected_one_does_not_count():
    def strict(key, proposal, inherited=None):
        found, _ = judge(key, proposal)
        status = jnp.where(proposal.id % 4 == 1, Status.FAILED, jnp.where(proposal.id % 4 == 3, Status.REJECTED, 0))
        fitness = jnp.where(status == Status.OK, found.fitness, jnp.nan)
        return found._replace(status=status.astype(jnp.int8), fitness=fitness), None

    run = distributed_reinforce(CELL, Evaluator(strict), replicas=1, children=4, shards=1, policy="independent")(KEY, 8)
    reward = run.children.reward.reshape(2, 4)
    assert (reward[:, 1] == 0).all() and (reward[:, [0, 2]] > 0).all()
    np.testing.assert_allclose(run.gradients.reward, reward[:, :3].mean(1), rtol=1e-6)
    searcher = reinforce(CELL, policy="independent", samples_per_update=4)
    history = scan(KEY, searcher, Evaluator(judge), trials=4, width=4)
    assert np.array_equal(run.children.arch[:4], history.arch)  # the same children, other rewards
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))


@pytest.mark.slow
def test_it_learns_and_the_same_key_gives_the_same_search():
    simulate = distributed(replicas=4, shards=2, delay=0.2)
    run, again, other = simulate(KEY, 600), simulate(KEY, 600), simulate(jax.random.key(4), 600)
    assert jax.tree.all(jax.tree.map(np.array_equal, run, again))
    assert not np.array_equal(run.children.arch, other.children.arch)
    for fitness in (run.children.fitness, other.children.fitness):
        assert fitness[:16].mean() < 0.55 and fitness[-100:].mean() > 0.75  # 0.4 at random, 0.8 at best


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"shards": 0}, "write 1 or more instead of shards=0"),
        ({"delay": -1.0}, "delay"),
        ({"baseline": "none"}, "shared"),
        ({"policy": "mlp"}, "unknown policy"),
        ({"baseline_decay": 2.0}, "baseline_decay"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        distributed(**settings)


def test_trials_fill_the_replicas():
    with pytest.raises(ValueError, match="multiple of 2"):
        distributed(replicas=1)(KEY, 5)
