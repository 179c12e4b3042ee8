"""The learner of supernets: what a step moves and what it leaves alone, strict fairness, batch norms only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.tiny_choice_chains import THREE, images, quick, shaken, tiny

from nasjax.learners import samplers
from nasjax.learners.one_shot import EarlyBird, kendall_tau, layer_tau, one_shot
from nasjax.learners.one_shot_update import Descent, one_shot_update
from nasjax.nets.choice_chain.supernet import choice_supernet, groups
from nasjax.nets.supernet import Supernet

PLAN = tiny()
SUPERNET = choice_supernet(PLAN)
BATCH = {"train": images(3, 6)}
DESCENT = Descent(learning_rate=0.5, weight_decay=0.1, label_smoothing=0.1)
LATIN = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]], np.int32)  # strictly fair: every operator of every layer once


def named(tree):
    return {tuple(part.key for part in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def on_path(names, layers_of, archs):
    """bool[n]: which slices of an array some path uses; None = all paths do."""
    if names[0] not in layers_of:
        return None
    operator = PLAN.space.operators.index(names[1])
    return np.array([operator in np.asarray(archs)[:, layer] for layer in layers_of[names[0]]])


LAYERS = {name: group.layers for name, group in groups(PLAN).items()}


@pytest.fixture(scope="module")
def start():
    return jax.tree.map(np.asarray, shaken(SUPERNET.init(jax.random.key(0), None, BATCH["train"][0])))


@pytest.fixture(scope="module")
def update():
    """The whole update, its paths as data."""
    update = one_shot_update(SUPERNET, descent=DESCENT)
    return update, quick(update.run)


@pytest.fixture(scope="module")
def gradient():
    """arch -> (gradients of the smoothed loss, running statistics), written without the learner."""

    @quick
    def of(variables, arch):
        def loss(params):
            logits, after = SUPERNET.apply({**variables, "params": params}, arch, BATCH["train"][0], train=True)
            target = 0.9 * jax.nn.one_hot(BATCH["train"][1], 3) + 0.1 / 3
            return -(target * jax.nn.log_softmax(logits)).sum(-1).mean(), after["batch_stats"]

        return jax.grad(loss, has_aux=True)(variables["params"])

    return of


@pytest.mark.slow
def test_a_step_leaves_unused_operators_alone_bit_by_bit(start, update):
    """Their weights, momentum (not 0 before) and running statistics, with weight decay, in a group of layers too."""
    update, run = update
    rng = np.random.default_rng(0)
    momentum = tuple(rng.normal(size=z.shape).astype(np.float32) for z in update.momentum(start["params"]))
    tree = jax.tree.structure(start["params"])
    for arch in ([[0, 1, 2]], [[2, 2, 0]], [[1, 0, 0]]):
        params, kept, stats, _ = run(
            start["params"], momentum, start["batch_stats"], np.array(arch, np.int32), jax.random.key(0), 0.5, BATCH
        )
        for old, new in (
            (start["params"], params),
            (start["batch_stats"], stats),
            (jax.tree.unflatten(tree, momentum), jax.tree.unflatten(tree, kept)),
        ):
            before, after = named(old), named(new)
            for names in before:
                used = on_path(names, LAYERS, arch)
                if used is None:
                    assert not np.array_equal(before[names], after[names]), names
                    continue
                for place, moves in enumerate(used):
                    assert np.array_equal(before[names][place], after[names][place]) != moves, (names, place)
    assert run._cache_size() == 1  # and the path was data


@pytest.mark.slow
def test_a_step_is_sgd_by_its_definition(start, update, gradient):
    """Buffer = 0.9 buffer + gradient + decay on kernels only; weights minus rate times buffer."""
    update, run = update
    arch = np.array([[1, 2, 0]], np.int32)
    momentum = tuple(np.full(z.shape, 0.01, np.float32) for z in update.momentum(start["params"]))
    params, kept, _, metrics = run(
        start["params"], momentum, start["batch_stats"], arch, jax.random.key(0), 0.25, BATCH
    )
    grads, before, after = named(gradient(start, arch[0])[0]), named(start["params"]), named(params)
    kept = named(jax.tree.unflatten(jax.tree.structure(params), kept))
    for names in before:
        decay = 0.1 if names[-1] in ("conv", "pointwise", "depthwise", "dense") else 0.0
        used = on_path(names, LAYERS, arch)
        used = np.ones(1, bool) if used is None else used
        used = used.reshape(-1, *(1,) * (before[names].ndim - 1)) if before[names].ndim > 1 else used
        buffer = np.where(used, 0.009 + grads[names] + decay * before[names], 0.01)
        np.testing.assert_allclose(kept[names], buffer, rtol=1e-3, atol=1e-5, err_msg=str(names))
        expected = np.where(used, before[names] - 0.25 * buffer, before[names])
        np.testing.assert_allclose(after[names], expected, rtol=1e-3, atol=1e-5, err_msg=str(names))
    assert 0 <= metrics["train_accuracy"] <= 1 and 0 < metrics["train_loss"] < 10


@pytest.mark.slow
def test_strict_fairness_adds_up_three_gradients(start, gradient):
    """Every operator gets one contribution, its own; stem and tail the sum of all three. Statistics: all passes."""
    update = one_shot_update(SUPERNET, descent=Descent(learning_rate=0.5, momentum=0.0, weight_decay=0.0))
    momentum = update.momentum(start["params"])
    params, kept, stats, _ = quick(update.run)(
        start["params"], momentum, start["batch_stats"], LATIN, jax.random.key(0), 0.5, BATCH
    )
    kept = named(jax.tree.unflatten(jax.tree.structure(params), kept))
    one_by_one = [jax.tree.map(np.asarray, gradient(start, arch)) for arch in LATIN]
    alone = [named(grads) for grads, _ in one_by_one]
    for names, total in kept.items():
        parts = np.array([grads[names] for grads in alone])
        np.testing.assert_allclose(total, parts.sum(0), rtol=1e-3, atol=2e-5, err_msg=str(names))
        if names[0] in LAYERS:  # of a layer's operator one path knows, the others' gradients are exactly 0
            contributions = (parts != 0).any(tuple(range(2, parts.ndim)))  # [path, layer of the group]
            operator = PLAN.space.operators.index(names[1])
            expected = np.array([[arch[layer] == operator for layer in LAYERS[names[0]]] for arch in LATIN])
            np.testing.assert_array_equal(contributions, expected, err_msg=str(names))
    stem, old = stats["stem"]["mean"], start["batch_stats"]["stem"]["mean"]
    batch_mean = (one_by_one[0][1]["stem"]["mean"] - 0.9 * old) / 0.1
    np.testing.assert_allclose(stem, 0.9**3 * old + (1 - 0.9**3) * batch_mean, rtol=1e-3, atol=1e-5)


def toy(same=True):
    """Two layers of three numbers and a stem: logits = x (stem + the chosen numbers), so all gradients are known."""

    def init(key, choice, x):
        params = {"stem": {"conv": jnp.array([0.5, -0.25])}, "layers": {"conv": jnp.zeros((2, 3, 2))}}
        return {"params": params, "batch_stats": {"passes": jnp.zeros(())}}

    def apply(variables, choice, x, *, key=None, train=False, bn_momentum=0.9, drop_rate=0.0):
        chosen = variables["params"]["layers"]["conv"][jnp.arange(2), choice].sum(0)
        stats = {"passes": variables["batch_stats"]["passes"] + 1}
        return x[:, None] * (variables["params"]["stem"]["conv"] + chosen)[None], {**variables, "batch_stats": stats}

    def select(archs, new, old):
        used = (archs[:, :, None] == jnp.arange(3)[None, None]).any(0)[..., None]
        layers = jnp.where(used, new["layers"]["conv"], old["layers"]["conv"])
        return {**new, "layers": {"conv": layers}}

    return Supernet(init, apply, select, lambda params: jnp.zeros((2, 4)), lambda path: False)


def toy_step(archs, batch, fresh=False, accumulate=1):
    descent = Descent(momentum=0.0, weight_decay=0.0)
    update = one_shot_update(toy(), descent=descent, fresh_batches=fresh, accumulate=accumulate)
    v = toy().init(None, None, None)
    arguments = (update.momentum(v["params"]), v["batch_stats"], np.array(archs, np.int32), jax.random.key(0), 0.1)
    params, _, stats, _ = jax.jit(update.run)(v["params"], *arguments, {"train": batch})
    return jax.tree.map(lambda a, b: np.asarray(a - b), params, v["params"]), float(stats["passes"])


def test_the_stem_moves_three_times_as_far():
    """Equal gradients of the paths: m = 3, L = 2, one step."""
    batch = (jnp.linspace(-1, 2, 6), jnp.array([0, 1, 1, 0, 1, 1]))
    strict, passes = toy_step([[0, 2], [1, 0], [2, 1]], batch)
    single, one = toy_step([[0, 2]], batch)
    assert (passes, one) == (3, 1) and np.abs(single["stem"]["conv"]).min() > 1e-3
    np.testing.assert_allclose(strict["stem"]["conv"], 3 * single["stem"]["conv"], rtol=1e-5)
    once = np.broadcast_to(single["stem"]["conv"], (2, 3, 2))  # each of the 6 operators: exactly one contribution
    np.testing.assert_allclose(strict["layers"]["conv"], once, rtol=1e-5)
    assert not np.any(single["layers"]["conv"][0, 1:])


def test_fresh_batches_are_thirds():
    """Each path sees its own third, every third image; the operators of layer 0 show which."""
    x, y = jnp.linspace(-1, 2, 6), jnp.array([0, 1, 1, 0, 1, 1])
    found, _ = toy_step([[0, 2], [1, 0], [2, 1]], (x, y), fresh=True)
    parts = [toy_step([[0, 0]], (x[i::3], y[i::3]))[0]["stem"]["conv"] for i in range(3)]
    np.testing.assert_allclose(found["layers"]["conv"][0], parts, rtol=1e-5)
    np.testing.assert_allclose(found["stem"]["conv"], sum(parts), rtol=1e-5)
    assert not np.allclose(parts[0], parts[1])


def test_a_batch_in_parts_makes_the_step_of_the_whole_batch():
    batch = (jnp.linspace(-1, 2, 6), jnp.array([0, 1, 1, 0, 1, 1]))
    (whole, one), (parts, three) = (toy_step([[0, 2]], batch, accumulate=n) for n in (1, 3))
    assert (one, three) == (1, 3)  # the statistics see every part
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), whole, parts)


@pytest.mark.slow
def test_gradients_are_clipped_by_element_or_by_norm():
    batch = (10 * jnp.linspace(-1, 2, 6), jnp.array([0, 1, 1, 0, 1, 1]))
    v = toy().init(None, None, None)

    def momentum(**clips):
        update = one_shot_update(toy(), descent=Descent(weight_decay=0.0, **clips))
        arguments = (update.momentum(v["params"]), v["batch_stats"], np.array([[0, 1]], np.int32), jax.random.key(0))
        return np.concatenate([m.ravel() for m in update.run(v["params"], *arguments, 0.1, {"train": batch})[1]])

    free = momentum()
    assert np.abs(free).max() > 0.5
    np.testing.assert_allclose(momentum(clip_value=0.5), np.clip(free, -0.5, 0.5), rtol=1e-5)
    np.testing.assert_allclose(momentum(clip=0.5), free * 0.5 / np.linalg.norm(free), rtol=1e-5)


@pytest.fixture(scope="module", params=["all_bn", "last_bn"])
def norms_only(request):
    """Three steps on two paths from gamma = 1: what was trained; before, after; momentum, running statistics."""
    update = one_shot_update(SUPERNET, descent=DESCENT, trainable=request.param)
    first = jax.tree.map(np.asarray, SUPERNET.init(jax.random.key(0), None, BATCH["train"][0]))
    run, params, stats = quick(update.run), first["params"], first["batch_stats"]
    momentum = update.momentum(params)
    for t, arch in enumerate(([[0, 1, 1]], [[0, 2, 1]], [[0, 1, 1]])):
        params, momentum, stats, _ = run(
            params, momentum, stats, np.array(arch, np.int32), jax.random.key(t), 0.5, BATCH
        )
    return request.param, first["params"], params, momentum, stats


@pytest.mark.slow
def test_norms_only_leaves_every_other_weight_bit_identical(norms_only):
    which, first, params, momentum, stats = norms_only
    before, after, buffers = named(first), named(params), 0
    for names in before:
        last = names[0] in LAYERS and names[2] == "main2"
        trained = names[-1] in ("gamma", "beta") and (which == "all_bn" or last)
        buffers += trained
        used = on_path(names, LAYERS, [[0, 1, 1], [0, 2, 1]])
        for place, moves in enumerate([True] if used is None else used):
            a, b = (before[names], after[names]) if used is None else (before[names][place], after[names][place])
            assert np.array_equal(a, b) != (moves and trained), (names, place)
    assert len(momentum) == buffers > 0
    assert np.abs(stats["stem"]["mean"]).max() > 0 and np.abs(stats["tail"]["mean"]).max() > 0  # these do move


@pytest.mark.slow
def test_an_operator_never_sampled_scores_exactly_one(norms_only):
    scores = np.asarray(SUPERNET.scores(norms_only[2]))
    sampled = np.zeros((3, 4), bool)
    sampled[0, 0] = sampled[1, 1] = sampled[1, 2] = sampled[2, 1] = True
    np.testing.assert_array_equal(scores[:, :3] == 1.0, ~sampled[:, :3])
    assert not np.any(scores[:, 3])


@pytest.mark.slow
def test_no_gradient_of_frozen_weights_is_computed():
    """Of forward, forward again, gradient by images, gradient by weights the compiled step lacks the last."""
    plan = tiny(stem=16, first=16, channels=(32,), tail=64, depths=(2,), operators=THREE[:2])
    supernet, arch = choice_supernet(plan), np.zeros((1, 2), np.int32)
    v, flops, kept = supernet.init(jax.random.key(0), None, BATCH["train"][0]), {}, {}
    for which in ("all", "all_bn", "last_bn"):
        update = one_shot_update(supernet, trainable=which)
        momentum = update.momentum(v["params"])
        arguments = (v["params"], momentum, v["batch_stats"], arch, jax.random.key(0), 0.5, BATCH)
        flops[which] = quick(update.run).lower(*arguments).compile().cost_analysis()["flops"]
        kept[which] = sum(m.size for m in momentum)
    assert flops["last_bn"] < 0.75 * flops["all_bn"] < 0.75 * 0.85 * flops["all"]
    assert 0 < kept["last_bn"] < kept["all_bn"] < 0.1 * kept["all"]


@pytest.mark.slow
def test_early_bird_stops_when_the_ranking_rests():
    """Twice in a row, and not before; a ranking that moves starts the count again."""
    learner = one_shot(
        SUPERNET, samplers.uniform(PLAN.space), epochs=9, epoch_steps=1, early_bird=EarlyBird(0.95, 2), devices=1
    )
    state = learner.init(jax.random.key(0), BATCH)
    assert not np.any(state.scores) and np.isnan(state.tau)
    ranked = shaken(state.params)
    turned = jax.tree.map(lambda a, b: 2 * np.asarray(a) - b, state.params, ranked)  # gamma = 1 - noise: reversed
    seen = []
    for params in (ranked, turned, turned, ranked, ranked, ranked):
        before = state.scores
        state, done = learner.epoch(jax.random.key(1), state._replace(params=params), ())
        seen.append((int(state.epoch), int(state.settled), done))
        np.testing.assert_allclose(state.scores, SUPERNET.scores(params), rtol=1e-6)
        assert np.isnan(state.tau) == (len(seen) == 1)
        assert len(seen) == 1 or state.tau == np.float32(layer_tau(before, state.scores))
    assert seen == [(1, 0, False), (2, 0, False), (3, 1, False), (4, 0, False), (5, 1, False), (6, 2, True)]
    # The first layer's scores move past the others': its operators keep their order, so that its rank does not matter.
    raised = jax.tree_util.tree_map_with_path(
        lambda path, x: x + 9.0 if path[0].key in LAYERS and 0 in LAYERS[path[0].key] else x, ranked
    )
    before = state.scores
    state, _ = learner.epoch(jax.random.key(1), state._replace(params=raised), ())
    assert state.tau == 1.0 > kendall_tau(before, state.scores)
    endless = one_shot(SUPERNET, samplers.uniform(PLAN.space), epochs=9, epoch_steps=1, devices=1)
    assert not endless.epoch(jax.random.key(1), state, ())[1]
    assert endless.epoch(jax.random.key(1), state._replace(epoch=np.int32(8)), ())[1]


def test_kendall_tau_counts_pairs():
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 3.0], [2.0, 4.0]])
    assert kendall_tau(a, b) == pytest.approx((5 - 1) / 6)
    assert kendall_tau(a, -a) == -1 and np.isnan(kendall_tau(a, np.ones((2, 2))))


def test_the_early_stop_ranks_within_layers():
    """Two layers far apart: over all pairs nearly nothing changes, within its layer every pair of the second turns."""
    a = np.array([[1.0, 2.0, 3.0, 4.0], [11.0, 12.0, 13.0, 14.0]])
    b = np.stack([a[0], a[1, ::-1]])
    assert layer_tau(a, b) == 0.0 and kendall_tau(a, b) == pytest.approx(1 - 2 * 6 / 28)
    assert layer_tau(a, a + np.array([[100.0], [0.0]])) == 1.0  # layers that change places
    assert layer_tau(a, np.stack([a[0], np.ones(4)])) == 1.0  # a layer that ranks nothing does not count
    assert np.isnan(layer_tau(a, np.ones((2, 4))))
    three = np.array([[0.0, 0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 2.0, 1.0, 0.0]])  # operators without batch norm
    assert layer_tau(three, three) == 1.0 and layer_tau(three, three[::-1]) == -1.0
    assert np.isnan(layer_tau(three, 0 * three)) and np.isnan(layer_tau(0 * three, 0 * three))


@pytest.mark.slow
def test_the_learner_compiles_once_for_all_paths():
    """Steps on different paths: state, schedule, and no compilation after the first two."""
    learner = one_shot(SUPERNET, samplers.uniform(PLAN.space), epochs=2, epoch_steps=4, descent=DESCENT, devices=1)
    state = learner.init(jax.random.key(0), BATCH)
    compiled, paths = [], set()
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **kwargs: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    for t in range(8):
        before = named(state.params)
        state, metrics = learner.step(jax.random.key(t), state, BATCH)
        after = named(state.params)
        moved = [
            (names[1], place)
            for names in before
            if names[-1] == "gamma" and names[0] in LAYERS and names[2] == "main2"
            for place in range(len(before[names]))
            if not np.array_equal(before[names][place], after[names][place])
        ]
        assert len(moved) == 3  # one operator of each layer
        paths.add(tuple(moved))
        if t == 1:
            assert compiled
            count = len(compiled)
    assert len(paths) > 3 and len(compiled) == count
    assert int(state.step) == 8 and np.isfinite(metrics["train_loss"])


def test_rates_of_the_papers():
    """Linear to 0 as SPOS, to 5e-4 as BN-NAS, cosine as FairNAS; warm-up by whole epochs."""
    rates = [one_shot_update(toy(), descent=Descent()).rate(t, 2, 5) for t in range(10)]
    np.testing.assert_allclose(rates, 0.5 * (1 - np.arange(10) / 10), rtol=1e-6)
    rate = one_shot_update(toy(), descent=Descent(learning_rate=0.25, final_rate=5e-4)).rate
    np.testing.assert_allclose([rate(0, 2, 5), rate(5, 2, 5)], [0.25, (0.25 + 5e-4) / 2], rtol=1e-6)
    rate = one_shot_update(toy(), descent=Descent(learning_rate=0.045, schedule="cosine", warmup_epochs=4)).rate
    expected = [0.045 / 4, 0.045 / 2 * (1 + np.cos(np.pi / 8)) / 2, 0.045 * (1 + np.cos(np.pi * 7 / 8)) / 2]
    np.testing.assert_allclose([rate(0, 8, 3), rate(3, 8, 3), rate(21, 8, 3)], expected, rtol=1e-5)


def test_wrong_use():
    with pytest.raises(ValueError, match="all, all_bn or last_bn"):
        one_shot_update(SUPERNET, trainable="bn")
    with pytest.raises(ValueError, match="set affine=true"):
        one_shot(SUPERNET, samplers.uniform(PLAN.space), epochs=1, epoch_steps=1, trainable="all_bn", affine=False)
    with pytest.raises(ValueError, match="at least 1"):
        one_shot(SUPERNET, samplers.uniform(PLAN.space), epochs=0, epoch_steps=1)
    for wrong in ({"learning_rate": 0.0}, {"final_rate": 1.0}, {"momentum": 1.0}, {"clip": -1.0}, {"schedule": "step"}):
        with pytest.raises(ValueError):
            Descent(**wrong)
