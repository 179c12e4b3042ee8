"""Transformers of `vit_chain`: the network against one written out, the supernet against its paths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from tools.networks import built
from tools.tiny_choice_chains import quick

from nasjax import catalog
from nasjax.nets.vit_chain import blocks as vit_blocks
from nasjax.nets.vit_chain.network import inherit, shapes_of, vit_chain
from nasjax.nets.vit_chain.supernet import vit_supernet
from nasjax.spaces.vit_chain.plan import VitPlan
from nasjax.spaces.vit_chain.space import VitChain, variant

TINY = VitChain((1, 2), (4, 6), (1, 2), (1.0, 2.0), patch=2, head_width=3, distance=1)
PLAN = VitPlan(TINY, (4, 6, 2), 3)
ARCHS = {"largest": (1, 1, 1, 1, 1, 1), "short": (0, 0, 1, 0, -1, -1), "mixed": (1, 0, 0, 1, 1, 0)}


def shaken(variables, seed=7):
    """Every parameter moved, scales and biases too."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [leaf + 0.5 * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, moved)


def images(count=3, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(3), (count, *PLAN.image), dtype)


def own(params, arch):
    """The corner of a supernet's parameters that the network of an Arch has."""

    def cut(shape, leaf):
        return leaf[tuple(slice(n) for n in shape.shape)]

    found = {}
    for name, shapes in shapes_of(PLAN, np.array(arch)).items():
        of, place = params.get(name), name.removeprefix("layer")
        if of is None:
            of = jax.tree.map(lambda leaf, i=int(place): leaf[i], params["layers"])
        found[name] = jax.tree.map(cut, shapes, of)
    return found


def put_back(whole, part):
    """The supernet's arrays `whole` with a network's in their place: the inverse of `own`."""

    def filled(corner, leaf, *place):
        leaf = np.array(leaf)
        leaf[(*place, *(slice(n) for n in np.shape(corner)))] = corner
        return leaf

    out = dict(whole)
    for name, corner in part.items():
        if name in out:
            out[name] = jax.tree.map(filled, corner, out[name])
        else:
            place = int(name.removeprefix("layer"))
            out["layers"] = jax.tree.map(lambda c, leaf, i=place: filled(c, leaf, i), corner, out["layers"])
    return out


# -- the network -----------------------------------------------------------------------------------------------------


def written_out(params, arch, x):
    """The network token by token and head by head, float64."""
    sizes = TINY.chosen(np.array(arch))

    def norm(p, t):
        return (t - t.mean()) / np.sqrt(t.var() + 1e-5) * p["gamma"] + p["beta"]

    def lin(p, t):
        return t @ p["pointwise"] + p["bias"]

    def row(one, other):
        if 0 in (one, other):
            return 0, 0
        apart = [b - a for a, b in zip(divmod(one - 1, 3), divmod(other - 1, 3), strict=True)]
        return tuple(min(max(d, -1), 1) + 2 for d in apart)

    patches = [x[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(-1) for r in range(2) for c in range(3)]
    tokens = [params["token"]["bias"], *(lin(params["patch"], patch) for patch in patches)]
    tokens = [t + p for t, p in zip(tokens, params["position"]["bias"], strict=True)]
    for i in range(TINY.depths[sizes.depth]):
        p, count = params[f"layer{i}"], TINY.heads[sizes.heads[i]]
        tables = p["relative"]
        normed = [norm(p["norm0"], t) for t in tokens]
        q, k, v = ([lin(p[name], t).reshape(count, 3) for t in normed] for name in ("query", "key", "value"))
        mixed = []
        for a in range(len(tokens)):
            whole = []
            for h in range(count):
                places = [row(a, b) for b in range(len(tokens))]
                keys = [k[b][h] + tables["key_rows"][r] + tables["key_columns"][c] for b, (r, c) in enumerate(places)]
                values = [
                    v[b][h] + tables["value_rows"][r] + tables["value_columns"][c] for b, (r, c) in enumerate(places)
                ]
                weights = np.exp([q[a][h] @ key / np.sqrt(3) for key in keys])
                whole.append(sum(w * value for w, value in zip(weights / weights.sum(), values, strict=True)))
            mixed.append(lin(p["out"], np.concatenate(whole)))
        tokens = [t + m for t, m in zip(tokens, mixed, strict=True)]
        for a, t in enumerate(tokens):
            y = lin(p["expand"], norm(p["norm1"], t))
            tokens[a] = t + lin(p["contract"], y * (1 + erf(y / np.sqrt(2))) / 2)
    mean = np.mean([norm(params["norm"], t) for t in tokens[1:]], 0)
    return mean @ params["head"]["dense"] + params["head"]["bias"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short", pytest.param("mixed", marks=pytest.mark.slow)])
def test_the_network_is_the_papers(name):
    arch = ARCHS[name]
    with jax.enable_x64(True):
        x, network = images(2, jnp.float64), vit_chain(PLAN, np.array(arch))
        variables = shaken(network.init(jax.random.key(0), None, x))
        logits = np.asarray(quick(lambda v, x: network.apply(v, None, x)[0])(variables, x))
    params = jax.tree.map(np.asarray, variables["params"])
    expected = [written_out(params, arch, image) for image in np.asarray(x)]
    np.testing.assert_allclose(logits, expected, rtol=1e-9)


def test_relative_positions_are_those_of_rows_and_columns():
    """A grid of 2x3 and the class token: 0 with the class token, 2 in the same place; beyond 1 counts as 1."""
    vertical, horizontal = vit_blocks.distances(PLAN)
    assert vertical[0].tolist() == [0] * 7 and horizontal[:, 0].tolist() == [0] * 7
    assert vertical[1].tolist() == [0, 2, 2, 2, 3, 3, 3] and vertical[6].tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert horizontal[1].tolist() == [0, 2, 3, 3, 2, 3, 3] and horizontal[6].tolist() == [0, 1, 1, 2, 1, 1, 2]


def test_without_relative_positions_there_are_no_tables():
    plan = dataclasses.replace(PLAN, space=dataclasses.replace(TINY, distance=0))
    arch = np.array(ARCHS["largest"])
    params = vit_chain(plan, arch).init(jax.random.key(0), None, images(1))["params"]
    assert "relative" not in params["layer0"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == plan.count(arch)[0]
    assert PLAN.count(arch)[0] - plan.count(arch)[0] == 2 * 4 * 4 * 3


@pytest.mark.slow
def test_initial_weights_are_those_of_the_release():
    """Deviation 0.02 for matrices, tables, positions and class token; the patches' as of a convolution."""
    plan = VitPlan(variant("tiny"), classes=1000)
    arch = plan.space.decode({"space": "vit_chain", "embed_dim": 192, "num_heads": [3] * 12, "mlp_ratio": [3.5] * 12})
    params = vit_chain(plan, arch).init(jax.random.key(0), None, np.zeros((1, 8, 8, 3), np.float32))["params"]
    layer = params["layer3"]
    for leaf in (layer["query"]["pointwise"], layer["relative"]["key_rows"], params["position"]["bias"]):
        assert np.std(leaf) == pytest.approx(0.02, rel=0.05)
    assert np.std(params["token"]["bias"]) == pytest.approx(0.02, rel=0.2)
    assert np.std(params["patch"]["pointwise"]) == pytest.approx((3 * 768) ** -0.5, rel=0.05)
    assert not np.any(layer["query"]["bias"]) and not np.any(params["patch"]["bias"])
    assert np.all(layer["norm0"]["gamma"] == 1) and not np.any(layer["norm0"]["beta"])


def test_initial_values_depend_on_the_key_and_the_form_alone():
    tree = TINY.encode(np.array(ARCHS["mixed"]))
    form = catalog.builder("vit_chain").form
    one, other = (
        built(TINY, tree, PLAN.image, 3, dataclasses.replace(form, deviation=d)).network(bn_eps=1e-5, dtype="float32")
        for d in (0.1, 0.2)
    )
    first, again, twice = (
        network.init(jax.random.key(k), None, images(1))["params"]["layer0"]["out"]["pointwise"]
        for network, k in ((one, 0), (one, 0), (other, 0))
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(2 * first, twice, rtol=1e-6)
    with pytest.raises(ValueError, match="deviation must be positive"):
        dataclasses.replace(form, deviation=0.0)


@pytest.mark.slow
def test_stochastic_depth_drops_more_in_later_layers():
    """Rate 0 in the first layer, near 1 in the last one: there the two additions vanish, or grow by 1 / (1 - rate)."""
    network = vit_chain(PLAN, np.array(ARCHS["largest"]))
    x = jnp.broadcast_to(images(1), (64, *PLAN.image))
    variables = shaken(network.init(jax.random.key(0), None, x))
    run = quick(lambda key, rate: network.apply(variables, None, x, key=key, train=True, drop_rate=rate)[0])
    still = {k: v for k, v in variables["params"].items() if k != "layer1"}
    silent = jax.tree.map(jnp.zeros_like, variables["params"]["layer1"])
    without = network.apply({"params": still | {"layer1": silent}}, None, x[:1])[0]
    logits = np.asarray(run(jax.random.key(1), 0.5))
    alone = np.isclose(logits, without, rtol=1e-4).all(1)
    assert 4 <= alone.sum() <= 28  # a quarter of 64 samples loses both
    assert len(np.unique(logits.round(3), axis=0)) == 4
    np.testing.assert_allclose(run(jax.random.key(1), 0.0), network.apply(variables, None, x)[0], rtol=1e-4)
    with pytest.raises(ValueError, match="give key, or drop_rate=0"):
        network.apply(variables, None, x, train=True, drop_rate=0.5)


def test_wrong_use():
    arch = np.array(ARCHS["mixed"])
    with pytest.raises(ValueError, match="float8"):
        vit_chain(PLAN, arch, dtype="float8")
    with pytest.raises(ValueError, match="float8"):
        vit_supernet(PLAN, dtype="float8")
    with pytest.raises(ValueError, match=r"choose 0\.\.1"):
        vit_chain(PLAN, np.array([0, 0, 2, 0, -1, -1]))
    network = vit_chain(PLAN, arch)
    with pytest.raises(ValueError, match=r"set VitPlan\(image=\.\.\.\)"):
        network.apply(network.init(jax.random.key(0), None, images(1)), None, jnp.zeros((1, 4, 4, 2)))


@pytest.mark.slow
def test_bfloat16_is_close_and_not_equal():
    network = {dtype: vit_chain(PLAN, np.array(ARCHS["mixed"]), dtype=dtype) for dtype in ("float32", "bfloat16")}
    variables = shaken(network["float32"].init(jax.random.key(0), None, images(1)))
    full, half = (quick(lambda v, n=n: n.apply(v, None, images())[0])(variables) for n in network.values())
    assert half.dtype == jnp.float32 and 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()


# -- inheriting by slices --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_child_begins_with_the_common_slice_of_its_parents_weights():
    parent, child = ((shaken(vit_chain(PLAN, np.array(ARCHS[name])).init(jax.random.key(k), None, images(1)), k))
                     for k, name in enumerate(("short", "mixed")))  # fmt: skip
    variables, part = inherit(child, parent)
    own_layer, theirs = variables["params"]["layer0"], parent["params"]["layer0"]  # one head of two, ratio 2 of 1
    fresh = child["params"]
    np.testing.assert_array_equal(own_layer["query"]["pointwise"], theirs["query"]["pointwise"][:, :3])
    np.testing.assert_array_equal(own_layer["expand"]["pointwise"][:, :4], theirs["expand"]["pointwise"])
    np.testing.assert_array_equal(
        own_layer["expand"]["pointwise"][:, 4:], fresh["layer0"]["expand"]["pointwise"][:, 4:]
    )
    np.testing.assert_array_equal(own_layer["contract"]["pointwise"][4:], fresh["layer0"]["contract"]["pointwise"][4:])
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["layer1"], fresh["layer1"])  # beyond its depth
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["head"], parent["params"]["head"])
    same = [np.sum(a == b) for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(child), strict=True)]
    assert part == pytest.approx(1 - sum(same) / PLAN.count(np.array(ARCHS["mixed"]))[0])
    again, whole = inherit(child, child)
    assert whole == 1.0
    jax.tree.map(np.testing.assert_array_equal, again, child)


# -- the supernet ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supernet():
    """Float64, everything moved; logits and the gradient of a path, one program for all."""
    with jax.enable_x64(True):
        x = images(3, jnp.float64)
        net = vit_supernet(PLAN)
        variables = shaken(net.init(jax.random.key(1), None, x))
        target = jax.random.normal(jax.random.key(2), (3, 3), jnp.float64)
        traces = []

        @quick
        def run(params, arch):
            traces.append(arch)

            def loss(params):
                logits, after = net.apply({**variables, "params": params}, arch, x, train=True)
                assert after["batch_stats"] == {}
                return (logits * target).sum(), logits

            return jax.grad(loss, has_aux=True)(params)

        yield net, variables, x, target, run, traces


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed", *(pytest.param(n, marks=pytest.mark.slow) for n in ("largest", "short"))])
def test_a_path_is_the_network_with_the_leading_slices(supernet, name):
    """Logits and gradients; what the path leaves out has a gradient of exactly 0."""
    _, variables, x, target, run, _ = supernet
    arch = np.array(ARCHS[name], np.int32)
    with jax.enable_x64(True):
        alone = vit_chain(PLAN, arch)

        def loss(params):
            logits, _ = alone.apply({"params": params}, None, x)
            return (logits * target).sum(), logits

        expected, logits = quick(jax.grad(loss, has_aux=True))(own(variables["params"], arch))
        gradient, found = run(variables["params"], jnp.asarray(arch))
    np.testing.assert_allclose(found, logits, rtol=1e-9)
    zeros, inner = jax.tree.map(np.zeros_like, gradient), own(variables["params"], arch)
    whole, used = put_back(zeros, expected), put_back(zeros, jax.tree.map(np.ones_like, inner))
    for a, b, inside in zip(*map(jax.tree.leaves, (gradient, whole, used)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)
        assert np.all(np.asarray(a)[inside == 0] == 0)
    assert np.mean([np.any(leaf) for leaf in jax.tree.leaves(expected)]) > 0.95


@pytest.mark.slow
def test_one_program_serves_all_paths(supernet):
    _, variables, _, _, run, traces = supernet
    with jax.enable_x64(True):
        seen = {
            np.asarray(run(variables["params"], jnp.array(arch, jnp.int32))[1]).tobytes() for arch in ARCHS.values()
        }
    assert len(seen) == len(ARCHS) and len(traces) == 1


@pytest.mark.slow
def test_paths_under_vmap_are_those_one_by_one(supernet):
    net, variables, x, _, _, _ = supernet
    archs = jnp.array(list(ARCHS.values()))
    with jax.enable_x64(True):
        together = quick(jax.vmap(lambda arch: net.apply(variables, arch, x)[0]))(archs)
        for arch, logits in zip(archs, together, strict=True):
            np.testing.assert_allclose(logits, net.apply(variables, arch, x)[0], rtol=1e-9)


@pytest.mark.slow
def test_select_keeps_what_no_path_uses_bit_by_bit(supernet):
    net, variables, *_ = supernet
    old = jax.tree.map(np.asarray, variables["params"])
    new = jax.tree.map(lambda leaf: leaf + 1, old)
    archs = [ARCHS["short"], ARCHS["mixed"]]
    mixed = quick(net.select)(jnp.array(archs), new, old)
    expected = old
    for arch in archs:
        expected = put_back(expected, own(new, arch))
    for a, b, untouched in zip(*map(jax.tree.leaves, (mixed, expected, old)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(np.asarray(a) != untouched)
    assert any(np.any(np.asarray(a) == b) for a, b in zip(*map(jax.tree.leaves, (mixed, old)), strict=True))


def test_the_supernet_has_the_arrays_of_the_largest_choice():
    variables = vit_supernet(PLAN).init(jax.random.key(0), None, images(1))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == PLAN.largest[0]
    net = vit_supernet(PLAN)
    assert net.scores is None and net.last_norm is None


@pytest.mark.slow
def test_dropout_needs_training_and_a_key():
    net = vit_supernet(PLAN, dropout=0.5)
    variables, arch, x = shaken(net.init(jax.random.key(0), None, images())), jnp.array(ARCHS["mixed"]), images()
    run = quick(lambda key, train: net.apply(variables, arch, x, key=key, train=train)[0], static_argnums=1)
    first, second = (run(jax.random.key(k), True) for k in (1, 2))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(run(jax.random.key(1), False), run(jax.random.key(2), False))
