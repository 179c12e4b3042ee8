"""The bilevel learner on a toy network: the order of its updates, freezing, clipping, dropout, options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_search_network import toy_batch, toy_network

from nasjax.learners.architecture_gradient import first_order, second_order_exact
from nasjax.learners.bilevel import bilevel
from nasjax.learners.darts import softmax_relaxation
from nasjax.learners.descent import Adam, clip, transformation
from nasjax.train.losses import cross_entropy
from nasjax.train.objective import Objective
from nasjax.train.sgd import Sgd
from nasjax.types import Metric, Network

BATCH = toy_batch(0)
NETWORK = toy_network()
RELAXATION = softmax_relaxation(8)
SGD, ADAM = Sgd(learning_rate=0.1, weight_decay=0.01, clip=0.2), Adam(learning_rate=0.01, weight_decay=0.1)


def close(a, b, **kwargs):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **kwargs)


def gradient(state, alpha, batch):
    """Of the loss by (params, alpha), without the learner's programs."""

    def loss(params, alpha):
        variables = {"params": params, "batch_stats": state.batch_stats}
        choice = {cell: jax.nn.softmax(alpha[cell]) for cell in alpha}
        return cross_entropy(NETWORK.apply(variables, choice, batch[0], train=True)[0], batch[1])

    return jax.grad(loss, (0, 1))(state.params, alpha)


@pytest.fixture(scope="module")
def stepped():
    learner = bilevel(NETWORK, RELAXATION, sgd=SGD, adam=ADAM, devices=1)
    state = learner.init(jax.random.key(0), BATCH)
    return state, learner.step(jax.random.key(1), state, BATCH)[0]


@pytest.mark.slow
def test_alpha_moves_first_by_adam_with_decay_in_the_gradient(stepped):
    """Adam's first step is rate * g / (|g| + 1e-8), and g includes the decay."""
    before, after = stepped
    _, grads = gradient(before, before.alpha, BATCH["val"])
    g = jax.tree.map(lambda g, a: g + 0.1 * a, grads, before.alpha)
    expected = jax.tree.map(lambda a, g: a - 0.01 * g / (jnp.abs(g) + 1e-8), before.alpha, g)
    close(after.alpha, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_weights_move_at_the_new_alpha_clipped_then_decayed(stepped):
    before, after = stepped
    grads, _ = gradient(before, after.alpha, BATCH["train"])
    norm = np.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(grads)))
    assert norm > 0.2  # the clip acts
    buffer = jax.tree.map(lambda g, p: g * 0.2 / norm + 0.01 * p, grads, before.params)
    close(after.momentum, buffer, rtol=1e-4, atol=1e-6)
    close(after.params, jax.tree.map(lambda p, m: p - 0.1 * m, before.params, buffer), rtol=1e-5, atol=1e-6)
    old, _ = gradient(before, before.alpha, BATCH["train"])  # the order matters in these digits
    assert max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(grads), strict=True)) > 1e-4


@pytest.mark.slow
def test_statistics_move_once_per_step(stepped):
    before, after = stepped
    choice = {cell: jax.nn.softmax(after.alpha[cell]) for cell in after.alpha}
    variables = {"params": before.params, "batch_stats": before.batch_stats}
    _, expected = NETWORK.apply(variables, choice, BATCH["train"][0], train=True)
    close(after.batch_stats, expected["batch_stats"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_frozen_epochs():
    calls = []

    def counted(problem):
        calls.append(problem.rate)
        return first_order(problem)

    learner = bilevel(NETWORK, RELAXATION, epochs=3, frozen_epochs=2, architecture_gradient=counted, devices=1)
    state = start = learner.init(jax.random.key(0), BATCH)
    for epoch in range(3):
        state, metrics = learner.step(jax.random.key(epoch), state, BATCH)
        assert ("val_loss" in metrics) == (len(calls) > 0) == (epoch == 2)
        if epoch < 2:
            close((state.alpha, state.adam), (start.alpha, start.adam), rtol=0)
        state, done = learner.epoch(jax.random.key(9), state, ())
    assert done and np.abs(state.alpha["normal"] - start.alpha["normal"]).max() > 1e-4
    np.testing.assert_allclose(calls, [0.001 + 0.012 * (1 + np.cos(2 * np.pi / 3))], rtol=1e-5)


@pytest.mark.slow
def test_drop_rate_follows_the_epoch():
    """Rate 0 in epoch 0 equals no dropout; in epoch 1 the key matters."""
    plain = bilevel(NETWORK, RELAXATION, devices=1)
    dropping = bilevel(NETWORK, RELAXATION, drop_rate=lambda epoch: 0.5 * epoch, devices=1)
    state = plain.init(jax.random.key(0), BATCH)
    close(plain.step(jax.random.key(1), state, BATCH), dropping.step(jax.random.key(1), state, BATCH), atol=1e-5)
    state, _ = plain.epoch(jax.random.key(2), state, ())
    one, other = (dropping.step(jax.random.key(k), state, BATCH)[1]["train_loss"] for k in (1, 2))
    assert one != other


@pytest.mark.slow
def test_a_relaxation_draws_for_alpha_and_again_for_the_weights_and_is_judged_without():
    """The network gives its mixing weights out, and the metric is their mean."""

    def choice(alpha, key, epoch):
        drawn = jnp.float32(-1) if key is None else jax.random.uniform(key) + epoch
        return {cell: 0 * values + drawn for cell, values in alpha.items()}

    def apply(variables, choice, x, **options):
        return variables["params"]["w"] * choice["normal"][0, 0] + x[:, 0, 0, :1], variables

    network = Network(lambda key, choice, x: {"params": {"w": jnp.ones((1, 1))}, "batch_stats": {}}, apply)
    told = Objective(
        lambda outputs, y: 0 * outputs.sum(),
        lambda outputs, y: (outputs[:, 0], jnp.ones(len(outputs))),
        lambda sums: sums[0] / sums[1],
        Metric("mean"),
    )
    still = {side: (jnp.zeros_like(BATCH[side][0]), BATCH[side][1]) for side in BATCH}
    learner = bilevel(network, RELAXATION._replace(choice=choice), epochs=2, sgd=SGD, objective=told, devices=1)
    start = learner.init(jax.random.key(0), still)
    seen = [learner.step(jax.random.key(key), start, still)[1] for key in (1, 1, 2)]
    values = [[float(of[name]) for name in ("val_mean", "train_mean")] for of in seen]
    assert values[0] == values[1] and len({value for pair in values for value in pair}) == 4
    assert all(0 <= value < 1 for pair in values for value in pair)
    later, _ = learner.epoch(jax.random.key(3), start, [still["val"]])
    assert later.valid_accuracy == -1
    assert 1 <= float(learner.step(jax.random.key(1), later, still)[1]["train_mean"]) < 2


def test_clip():
    tree = {"a": jnp.array([3.0]), "b": jnp.array([0.0, 4.0])}
    close(clip(tree, 1.0), jax.tree.map(lambda leaf: leaf / 5, tree), rtol=1e-6)
    close(clip(tree, 10.0), tree, rtol=0)
    close(clip({"a": jnp.zeros(2)}, 1.0), {"a": jnp.zeros(2)}, rtol=0)
    close(clip(tree, Sgd(clip=0.0).clip), tree, rtol=0)  # 0 = not clipped, for every optimiser


def test_alpha_gradients_are_clipped_before_the_decay():
    params, grads = jnp.array([1.0, 0.0]), jnp.array([0.0, 40.0])
    optimiser = transformation(Adam(learning_rate=1.0, b1=0.0, b2=0.0, weight_decay=0.5, clip=2.0))
    _, (*_, adam) = optimiser.update(grads, optimiser.init(params), params)
    np.testing.assert_allclose(adam[0].mu, [0.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bilevel(NETWORK, RELAXATION, epochs=2, frozen_epochs=3), "frozen_epochs 0..epochs"),
        (lambda: bilevel(NETWORK, RELAXATION, devices=99), "use 1 to"),
        (lambda: Sgd(learning_rate=0.1, final_rate=0.2), "at least final_rate"),
        (lambda: Sgd(momentum=1.0), "momentum must be"),
        (lambda: Adam(clip=0.0), "None for no clipping"),
        (lambda: Adam(b1=1.0), "b1 and b2"),
    ],
)
def test_wrong_use(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("clip", [0.2, 50.0])
def test_second_order_looks_ahead_by_sgd_s_next_step(clip):
    """w' = w - xi (0.9 buffer + grad L_train(w) + decay w), unclipped as in the release, xi the epoch's rate; and the
    gradient is that of L_val(w'(alpha), alpha), by differentiating through w' in one piece."""
    seen = []

    def exact(problem):
        at, gradient = second_order_exact(problem)
        slopes = problem.gradients(problem.params, problem.train).params
        seen.append((problem.look_ahead(slopes), gradient))
        return at, gradient

    sgd = Sgd(learning_rate=0.1, final_rate=0.01, momentum=0.9, weight_decay=0.3, clip=clip)
    with jax.enable_x64(True):
        batch = toy_batch(0, dtype=np.float64)
        learner = bilevel(NETWORK, RELAXATION, epochs=3, sgd=sgd, adam=ADAM, architecture_gradient=exact, devices=1)
        state = learner.init(jax.random.key(0), batch)
        rng = np.random.default_rng(0)
        buffer = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), state.params)
        state = state._replace(momentum=buffer, epoch=np.int32(1))
        learner.step(jax.random.key(1), state, batch)
        xi = 0.01 + 0.09 * (1 + np.cos(np.pi / 3)) / 2

        def loss(params, choice, x, y):
            variables = {"params": params, "batch_stats": state.batch_stats}
            return cross_entropy(NETWORK.apply(variables, choice, x, train=True)[0], y)

        def after(params, choice):
            slopes = jax.grad(loss)(params, choice, *batch["train"])
            return jax.tree.map(lambda p, m, g: p - xi * (0.9 * m + g + 0.3 * p), params, buffer, slopes)

        ((ahead, gradient),) = seen
        choice = RELAXATION.choice(state.alpha, None, 0)
        close(ahead, after(state.params, choice), rtol=1e-6, atol=1e-8)  # the rate is float32
        whole = jax.jit(jax.grad(lambda choice: loss(after(state.params, choice), choice, *batch["val"])))(choice)
        close(gradient, whole, rtol=1e-5, atol=1e-9)
        direct = jax.jit(jax.grad(lambda choice, params: loss(params, choice, *batch["val"])))
        for other in (direct(choice, after(state.params, choice)), direct(choice, state.params)):
            assert not np.allclose(other["normal"], gradient["normal"], rtol=1e-3)  # both terms count
