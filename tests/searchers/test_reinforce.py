"""REINFORCE's bookkeeping (buffer, baseline, failures, staleness) and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.searchers import depth_schedule, metrics, reinforce
from nasjax.searchers.independent_policy import independent_policy
from nasjax.searchers.lstm_policy import lstm_policy
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.store import checkpoint
from nasjax.types import Evaluation, Proposal, Status

CELL = TabularCell(edges=4, ops=("none", "skip", "conv"))
M = 4


def evaluation(fitness, status=None):
    fitness = jnp.asarray(fitness, jnp.float32)
    status = jnp.zeros(fitness.shape, jnp.int8) if status is None else jnp.asarray(status, jnp.int8)
    return Evaluation(fitness, jnp.zeros_like(fitness), status, {})


def take(tree, rows):
    return jax.tree.map(lambda x: x[jnp.array(rows)], tree)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def asked():
    """A searcher (identity reward, m = 4), its jitted tell, a state with 8 trials in flight, and the 8."""
    searcher = reinforce(
        CELL, policy="independent", learning_rate=0.1, samples_per_update=M, reward=lambda fitness: fitness
    )
    state, proposal = jax.jit(searcher.ask, static_argnums=2)(
        jax.random.key(1), searcher.init(jax.random.key(0)), 2 * M
    )
    return searcher, jax.jit(searcher.tell), state, proposal


FITNESS = np.array([0.1, 0.9, 0.3, 0.5, 0.2, 0.8, 0.4, 0.7], np.float32)


@pytest.mark.slow
def test_it_runs_in_float64():
    with jax.enable_x64(True):
        searcher = reinforce(CELL, policy="lstm", samples_per_update=2, hidden=4, embedding=4)
        state, proposal = searcher.ask(jax.random.key(1), searcher.init(jax.random.key(0)), 4)
        state = jax.jit(searcher.tell)(state, proposal, evaluation(FITNESS[:4]))
    assert int(state.updates) == 2 and state.entropy.dtype == state.grad_norm.dtype == jnp.float32


@pytest.mark.slow
def test_an_update_waits_for_m_results_and_starts_the_baseline_at_their_mean(asked):
    _, tell, state, proposal = asked
    early = tell(state, take(proposal, range(3)), evaluation(FITNESS[:3]))
    assert same(early.params, state.params) and int(early.updates) == 0
    after = tell(early, take(proposal, [3]), evaluation(FITNESS[3:4]))
    assert int(after.updates) == 1 and float(after.baseline) == pytest.approx(0.45)
    assert (np.array(after.buffer.id) == -1).all()
    # The direction is sum_k (R_k - mean R) grad log P, whose logits are one-hot minus 1/3 at uniform.
    one_hot = np.eye(3)[np.array(proposal.arch[:M])]
    direction = ((FITNESS[:M] - 0.45)[:, None, None] * (one_hot - 1 / 3)).mean(0)
    assert float(after.grad_norm) == pytest.approx(np.linalg.norm(direction), rel=1e-5)
    moved = np.array(after.params["logits"])
    clear = np.abs(direction) > 1e-6
    assert np.array_equal(np.sign(moved[clear]), np.sign(direction[clear]))
    assert float(after.entropy) == pytest.approx(4 * np.log(3), rel=1e-6)  # of the policy before the update


@pytest.mark.slow
def test_the_second_update_uses_the_baseline_from_before_its_batch(asked):
    _, tell, state, proposal = asked
    state = tell(state, take(proposal, range(4)), evaluation(FITNESS[:4]))
    before = np.array(independent_policy(CELL).log_prob(state.params, proposal.arch[4])[0])
    after = tell(state, take(proposal, [4, 4, 4, 4]), evaluation([0.45] * 4))  # advantage 0 against b = 0.45
    assert float(after.grad_norm) == pytest.approx(0.0, abs=1e-6)
    better = tell(state, take(proposal, [4, 4, 4, 4]), evaluation([0.9] * 4))
    assert float(independent_policy(CELL).log_prob(better.params, proposal.arch[4])[0]) > before
    score = np.eye(3)[np.array(proposal.arch[4])] - jax.nn.softmax(state.params["logits"])
    assert float(better.grad_norm) == pytest.approx((0.9 - 0.45) * np.linalg.norm(score), rel=1e-5)
    assert float(better.baseline) == pytest.approx(0.95 * 0.45 + 0.05 * 0.9)


@pytest.mark.slow
def test_results_of_one_tell_may_come_in_any_order_and_number(asked):
    _, tell, state, proposal = asked
    at_once = tell(state, proposal, evaluation(FITNESS))
    assert int(at_once.updates) == 2
    mixed = [5, 0, 7, 3, 1, 6, 2, 4]
    assert same(at_once, tell(state, take(proposal, mixed), evaluation(FITNESS[np.array(mixed)])))
    in_two = state
    for rows in (range(4), range(4, 8)):
        in_two = tell(in_two, take(proposal, rows), evaluation(FITNESS[np.array(rows)]))
    for x, y in zip(jax.tree.leaves(at_once), jax.tree.leaves(in_two), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    one_by_one = state
    for i in (3, 1, 0, 2):
        one_by_one = tell(one_by_one, take(proposal, [i]), evaluation(FITNESS[[i]]))
    assert int(one_by_one.updates) == 1 and float(one_by_one.reward) == pytest.approx(0.45)


def test_a_failed_child_has_reward_zero(asked):
    _, tell, state, proposal = asked
    status = [Status.OK, Status.FAILED, Status.TIMEOUT, Status.OK]
    after = tell(state, take(proposal, range(4)), evaluation([0.8, np.nan, 0.9, np.nan], status))
    assert float(after.reward) == pytest.approx(0.2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def test_a_rejected_candidate_does_not_count(asked):
    _, tell, state, proposal = asked
    status = [Status.OK, Status.REJECTED, Status.OK, Status.OK]
    waiting = tell(state, take(proposal, range(4)), evaluation([0.8, np.nan, 0.6, 0.4], status))
    assert int(waiting.updates) == 0
    after = tell(waiting, take(proposal, [4]), evaluation([0.2]))
    assert int(after.updates) == 1 and float(after.reward) == pytest.approx(0.5)


def test_staleness_counts_the_updates_between_ask_and_use(asked):
    searcher, tell, state, proposal = asked  # all 8 asked before any update
    state = tell(state, take(proposal, range(4)), evaluation(FITNESS[:4]))
    assert float(metrics(state)["staleness"]) == 0
    state, fresh = jax.jit(searcher.ask, static_argnums=2)(jax.random.key(1), state, 2)
    assert list(np.array(fresh.id)) == [8, 9]
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[4:6], b]), proposal, fresh)
    state = tell(state, mixed, evaluation(FITNESS[:4]))
    assert float(metrics(state)["staleness"]) == 0.5  # two samples late by one update, two by none
    assert set(metrics(state)) == {"baseline", "reward", "entropy", "grad_norm", "updates", "staleness"}


@pytest.mark.slow
def test_the_options_act(asked):
    *_, proposal = asked

    def once(**options):
        searcher = reinforce(CELL, policy="independent", samples_per_update=8, **options)
        state = searcher.init(jax.random.key(0))
        state = state._replace(params={"logits": jnp.array([[1.0, 0.0, 0.0]] * 4)})
        return jax.jit(searcher.tell)(state, proposal, evaluation(FITNESS)), state

    plain, before = once()
    np.testing.assert_allclose(np.abs(plain.params["logits"] - before.params["logits"]).max(), 6e-4, rtol=1e-3)
    entropy = jax.nn.softmax(jnp.array([1.0, 0.0, 0.0]))
    assert float(plain.entropy) == pytest.approx(-4 * float((entropy * jnp.log(entropy)).sum()), rel=1e-5)
    bonus, _ = once(entropy_weight=100.0)  # drives the preferred operation down, whatever the rewards
    assert (bonus.params["logits"][:, 0] < before.params["logits"][:, 0]).all()
    clipped, _ = once(clip_norm=1e-9)  # about Adam's eps, so the step is visibly smaller
    assert np.abs(clipped.params["logits"] - before.params["logits"]).max() < 1e-4
    assert float(clipped.grad_norm) == pytest.approx(float(plain.grad_norm))  # reported before clipping


@pytest.mark.slow
def test_the_depth_follows_the_schedule_and_the_space():
    space = ConvChain(1, 3, filter_heights=(1,), filter_widths=(1, 3), filter_counts=(4,), skips=False)
    schedule = depth_schedule(first=1, step=1, every=2)
    searcher = reinforce(space, depth_schedule=schedule, hidden=4, embedding=4)
    proposal = jax.jit(lambda key: searcher.ask(key, searcher.init(key), 8)[1])(jax.random.key(0))
    assert list(np.array(proposal.arch)[:, 0] + 1) == [1, 1, 2, 2, 3, 3, 3, 3]
    for arch in np.array(proposal.arch):
        space.validate(arch)


def test_a_state_survives_orbax_bit_for_bit(tmp_path):
    searcher = reinforce(CELL)
    start = jax.jit(lambda key: searcher.ask(key, searcher.init(key), 3)[0])
    state = start(jax.random.key(0))
    checkpoint.save(tmp_path, "0", state)
    restored = checkpoint.restore(tmp_path, "0", start(jax.random.key(9)))
    assert same(state, restored)
    assert jax.tree.structure(state) == jax.tree.structure(restored)


@pytest.mark.slow
def test_200_seeds_that_learn_a_planted_cell_are_one_vmap():
    """Reward = fraction of edges with operation e mod 3; uniform sampling has 1/3."""
    searcher = reinforce(CELL, policy="independent", learning_rate=0.1)
    target = jnp.arange(4) % 3

    def search(key):
        def one_round(state, _):
            state, proposal = searcher.ask(key, state, 8)
            fitness = (proposal.arch == target[None, :]).mean(1)
            return searcher.tell(state, proposal, evaluation(fitness)), fitness.mean()

        return jax.lax.scan(one_round, searcher.init(key), length=100)[1]

    mean = np.array(jax.jit(jax.vmap(search))(jax.random.split(jax.random.key(0), 200)))
    assert abs(mean[:, 0].mean() - 1 / 3) < 0.05
    assert (mean[:, -10:].mean(1) > 0.9).mean() > 0.95


def test_wrong_use_says_what_to_write():
    with pytest.raises(ValueError, match='choose "lstm", "independent"'):
        reinforce(CELL, policy="gru")
    with pytest.raises(ValueError, match="samples_per_update"):
        reinforce(CELL, samples_per_update=0)
    with pytest.raises(ValueError, match="baseline_decay"):
        reinforce(CELL, baseline_decay=1.5)
    with pytest.raises(ValueError, match='"first_batch" or a number'):
        reinforce(CELL, baseline_init="zero")
    searcher = reinforce(CELL, policy="independent")
    state = searcher.init(jax.random.key(0))
    proposal = Proposal(jnp.arange(2), jnp.zeros((2, 4), jnp.int32), jnp.full(2, -1))
    with pytest.raises(ValueError, match="one fitness per trial"):
        searcher.tell(state, proposal, evaluation(np.zeros((2, 2)), np.zeros(2)))


@pytest.mark.slow
def test_the_lstm_learns_tokens_and_anchors():
    """The paper's controller on chains of 4 layers: reward = the share of heights that are the larger, plus the share
    of skips that are there. Both begin at a half; a control whose attention is frozen learns the heights only."""
    space = ConvChain(4, 4, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4,))
    groups = np.array([site.group for site in space.sites])
    own = lstm_policy(space, hidden=16, embedding=16)

    def frozen(params, arch):
        return own.log_prob(params | {"attention": jax.lax.stop_gradient(params["attention"])}, arch)

    means = {}
    for name, policy in (("whole", own), ("blind", own._replace(log_prob=frozen))):
        searcher = reinforce(space, policy=policy, learning_rate=0.02, reward=lambda fitness: fitness)

        def one_round(state, _, searcher=searcher):
            state, proposal = searcher.ask(jax.random.key(0), state, 8)
            right = proposal.arch == 1
            shares = [right[:, groups == group].mean(1) for group in ("filter_height", "anchor")]
            state = searcher.tell(state, proposal, evaluation(shares[0] + shares[1]))
            return state, jnp.array([share.mean() for share in shares])

        means[name] = np.array(
            jax.jit(lambda state, f=one_round: jax.lax.scan(f, state, length=60)[1])(searcher.init(jax.random.key(1)))
        )
    for shares in means.values():
        assert np.abs(shares[:3].mean(0) - 0.5).max() < 0.15
    last = {name: shares[-10:].mean(0) for name, shares in means.items()}
    assert last["whole"].min() > 0.9 and last["blind"][0] > 0.9 and last["blind"][1] < 0.75
