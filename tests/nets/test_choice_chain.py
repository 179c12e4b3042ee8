"""The supernet against the stand-alone network of a path, blocks against the papers, and the tables of a supernet."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.tiny_choice_chains import images, quick, shaken, tiny, tiny_shuffle

from nasjax.catalog import named
from nasjax.nets.cell_parts import Mode
from nasjax.nets.choice_chain.blocks import apply_block, block, named_steps, step_shapes
from nasjax.nets.choice_chain.frame import initialise
from nasjax.nets.choice_chain.network import choice_chain
from nasjax.nets.choice_chain.supernet import choice_supernet, groups
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import LayerShape, variant

WIDE = ("shuffle_k5", "shuffle_xception")
CASES = {
    "shuffle": (tiny_shuffle(operators=("shuffle_k3", *WIDE)), [(0, 2, 1), (2, 1, 0)]),
    "mobile": (tiny(channels=(4, 6), depths=(2, 1), strides=(1, 2)), [(0, 1, 2), (2, 2, 0)]),
    "identity": (tiny(first=0, stem=6, depths=(4,), strides=(1,), choose_identity=True, removed=(1,)), [(3, -1, 1, 3)]),
    "channels": (
        tiny_shuffle(depths=(2,), operators=WIDE, channel_factors=(0.5, 1.0, 1.5)),
        [(0, 1, 0, 2), (1, 0, 1, 0)],
    ),
}


def narrowed(tree, shapes, name, layer=None):
    """The corner of every array of `tree` that the network of a path has."""

    def cut(shape, leaf):
        leaf = leaf if layer is None else leaf[layer]
        return leaf[tuple(slice(0, n) for n in shape.shape)]

    return jax.tree.map(cut, shapes[name], tree)


def copied(plan, arch, variables, shapes):
    """The supernet's variables as those of the stand-alone network, whose arrays have these shapes."""
    path, parts = np.asarray(plan.space.path(np.array(arch))), groups(plan)
    where = {f"layer{layer}": (g, i) for g, part in parts.items() for i, layer in enumerate(part.layers)}
    out = {}
    for kind, of in shapes.items():
        out[kind] = {}
        for name in of:
            if name in where:
                (group, place), operator = where[name], plan.space.operators[path[int(name[5:])]]
                out[kind][name] = narrowed(variables[kind][group][operator], of, name, place)
            else:
                out[kind][name] = narrowed(variables[kind][name], of, name)
    return out


@pytest.fixture(scope="module", params=CASES)
def compared(request):
    """Outputs, gradients and statistics of paths, in the supernet and alone: float64, all that is normalised shaken."""
    plan, archs = CASES[request.param]
    with jax.enable_x64(True):
        x, _ = images(0, 5, jnp.float64)
        supernet = choice_supernet(plan)
        variables = shaken(supernet.init(jax.random.key(1), jnp.array(archs[0]), x))
        target = jax.random.normal(jax.random.key(2), (5, 3), jnp.float64)

        def run(network, variables, arch):
            def loss(params):
                logits, after = network.apply({**variables, "params": params}, arch, x, train=True)
                return (logits * target).sum(), (logits, after["batch_stats"])

            gradient, (logits, stats) = jax.grad(loss, has_aux=True)(variables["params"])
            out = {"params": gradient, "batch_stats": stats, "train": logits}
            if request.param == "identity":  # once is enough, and the case compiles fastest
                out["eval"], _ = network.apply(variables, arch, x)
            return out

        whole, found = quick(lambda arch: run(supernet, variables, arch)), []
        for arch in archs:
            alone = choice_chain(plan, np.array(arch))
            shapes = alone.init(jax.random.key(1), None, x)
            inside, outside = (
                whole(jnp.array(arch, jnp.int32)),
                quick(lambda v, net=alone: run(net, v, None))(copied(plan, arch, variables, shapes)),
            )
            found.append((arch, shapes, *jax.tree.map(np.asarray, (inside, outside))))
    return plan, variables, found


@pytest.mark.slow
def test_a_path_is_the_stand_alone_network(compared):
    plan, _, found = compared
    for arch, shapes, inside, outside in found:
        for mode in outside.keys() - {"params", "batch_stats"}:
            np.testing.assert_allclose(inside[mode], outside[mode], rtol=1e-9, atol=1e-11)
        mine = copied(plan, arch, inside, shapes)
        for kind in ("params", "batch_stats"):
            assert jax.tree.structure(mine[kind]) == jax.tree.structure(outside[kind])
            for a, b in zip(jax.tree.leaves(mine[kind]), jax.tree.leaves(outside[kind]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
        moved = [np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(outside["params"])]
        assert np.mean(moved) > 0.9  # a narrow layer may have died behind its relu


@pytest.mark.slow
def test_all_else_has_no_gradient_and_keeps_its_statistics(compared):
    """What remains of the supernet when the network of the path is taken away: 0, and bits."""
    plan, variables, found = compared
    for arch, shapes, inside, _ in found:
        for kind, rest in (("params", 0), ("batch_stats", 1)):
            before, after = dict(variables[kind]), dict(inside[kind])
            for name, part in groups(plan).items():
                for place, layer in enumerate(part.layers):
                    for i, operator in enumerate(part.blocks):
                        used = i == int(plan.space.path(np.array(arch))[layer])
                        for step, leaves in after[name][operator].items():
                            for leaf, value in leaves.items():
                                value = np.array(value[place])
                                old = np.asarray(before[name][operator][step][leaf][place]) * rest
                                if used:  # with channel search, what the factor leaves out is not used either
                                    mine = shapes[kind][f"layer{layer}"][step][leaf].shape
                                    corner = tuple(slice(0, n) for n in mine)
                                    assert not np.array_equal(value[corner], old[corner])
                                    value[corner] = old[corner]
                                assert np.array_equal(value, old), (arch, name, operator, step, leaf)


def test_select_tells_what_a_path_uses():
    """select(a and b) = new for operators of a or b, by layer of a group; old, bit by bit, for the others."""
    plan = tiny(choose_identity=True)
    supernet = choice_supernet(plan)
    old = jax.tree.map(np.asarray, supernet.init(jax.random.key(0), None, images(0, 1)[0])["params"])
    new = jax.tree.map(lambda leaf: leaf + 1, old)
    archs = np.array([[0, 3, 1], [2, 3, 2]])
    mixed = jax.tree.map(np.asarray, quick(supernet.select)(jnp.array(archs), new, old))
    for name, part in groups(plan).items():
        for place, layer in enumerate(part.layers):
            for i, operator in enumerate(part.blocks):
                source = new if i in archs[:, layer] else old
                for a, b in zip(*(jax.tree.leaves(t[name][operator]) for t in (mixed, source)), strict=True):
                    np.testing.assert_array_equal(a[place], b[place])
    for name in ("stem", "first0", "tail", "head"):
        jax.tree.map(np.testing.assert_array_equal, mixed[name], new[name])


def deltas(steps, dtype):
    """Kernels that pass channels on as they are; batch norms that do nothing."""
    variables = step_shapes(named_steps(steps), True)
    for kind in variables:
        for name, step in named_steps(steps).items():
            for leaf, shape in variables[kind][name].items():
                value = np.full(shape, float(leaf in ("gamma", "var")), dtype)
                if leaf == "pointwise":
                    value = np.eye(*shape, dtype=dtype)
                elif leaf == "depthwise":
                    value[step.size // 2, step.size // 2] = 1
                variables[kind][name][leaf] = value
    return variables


def through(steps, variables, x, mode):
    return quick(lambda v, x: apply_block(steps, v["params"], v["batch_stats"], x, mode))(variables, x)


def test_channels_are_split_into_even_and_odd():
    """0..7 through a block that changes nothing: the even ones pass by, the odd ones come behind them."""
    for operator in variant("spos").operators:
        steps = block("shuffle", operator, LayerShape(8, 8, 1))
        v = deltas(steps, np.float32)
        x = jnp.broadcast_to(jnp.arange(8.0), (2, 3, 3, 8))
        y, _ = through(steps, v, x, Mode(False, 0.9, 0.0, "float32"))
        np.testing.assert_allclose(y, np.broadcast_to([0, 2, 4, 6, 1, 3, 5, 7], y.shape), rtol=1e-6)


WRITTEN = [  # operator, shape, main path, branch: kernel (0 = 1x1, else depthwise), stride, activation; from the papers
    ("shuffle_k5", (8, 8, 1), [(0, 1, "relu"), (5, 1, ""), (0, 1, "relu")], None),
    ("shuffle_k7", (4, 10, 2), [(0, 1, "relu"), (7, 2, ""), (0, 1, "relu")], [(7, 2, ""), (0, 1, "relu")]),
    (
        "shuffle_xception",
        (4, 10, 2),
        [(3, 2, ""), (0, 1, "relu"), (3, 1, ""), (0, 1, "relu"), (3, 1, ""), (0, 1, "relu")],
        [(3, 2, ""), (0, 1, "relu")],
    ),
    (
        "shuffle_xception",
        (8, 8, 1),
        [(3, 1, ""), (0, 1, "relu"), (3, 1, ""), (0, 1, "relu"), (3, 1, ""), (0, 1, "relu")],
        None,
    ),
    ("mbconv_k5_e6", (4, 4, 1), [(0, 1, "relu6"), (5, 1, "relu6"), (0, 1, "")], None),
    ("mbconv_k3_e3", (4, 4, 2), [(0, 1, "relu6"), (3, 2, "relu6"), (0, 1, "")], None),
    ("mbconv_k7_e3", (4, 6, 1), [(0, 1, "relu6"), (7, 1, "relu6"), (0, 1, "")], None),
]


def written_out(x, params, steps, name):
    """Convolution by its definition, batch norm in training, activation."""
    for i, (size, stride, activation) in enumerate(steps):
        weights = params[f"{name}{i}"]
        if size:
            pad, height = size // 2, (x.shape[1] - 1) // stride + 1
            padded, y = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))), 0
            for r in range(size):
                for c in range(size):
                    patch = padded[:, r : r + stride * height : stride, c : c + stride * height : stride][
                        :, :height, :height
                    ]
                    y = y + patch * weights["depthwise"][r, c]
        else:
            y = x @ weights["pointwise"]
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5) * weights["gamma"] + weights["beta"]
        x = {"": y, "relu": np.maximum(y, 0), "relu6": np.clip(y, 0, 6)}[activation]
    return x


@pytest.mark.parametrize(("operator", "shape", "main", "branch"), WRITTEN, ids=lambda v: v if type(v) is str else "")
def test_blocks_are_those_of_the_papers(operator, shape, main, branch):
    family, (c_in, c_out, stride) = operator.split("_")[0], shape
    with jax.enable_x64(True):
        steps = block({"mbconv": "mobile"}.get(family, family), operator, LayerShape(*shape))
        shapes = step_shapes(named_steps(steps), True)
        v = shaken(initialise(jax.random.key(0), variant("fairnas_digits"), shapes, jnp.float64), spread=0.9)
        x = jax.random.normal(jax.random.key(1), (3, 5, 5, c_in), jnp.float64)
        y, _ = through(steps, v, x, Mode(True, 0.9, 1e-5, "float32"))
    x, params = np.asarray(x), jax.tree.map(np.asarray, v["params"])
    if family == "mbconv":
        assert params["main0"]["pointwise"].shape == (c_in, c_in * int(operator[-1]))
        expected = written_out(x, params, main, "main") + (x if stride == 1 and c_in == c_out else 0)
    else:
        assert params[f"main{len(main) - 1}"]["pointwise"].shape[0] == c_out // 2
        beside = x[..., ::2] if branch is None else written_out(x, params, branch, "branch")
        own = x[..., 1::2] if branch is None else x
        expected = np.concatenate([beside, written_out(own, params, main, "main")], -1)
    assert expected.shape[-1] == c_out
    np.testing.assert_allclose(y, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "arch", "params"),
    [
        ("spos", "SPOS_RELEASED", 3_558_464),
        ("fairnas", "FAIRNAS_A", 4_651_352),
        ("bn_nas", "BN_NAS_RELEASED", 5_228_536),
    ],
)
def test_published_networks_have_their_parameters(space, arch, params):
    """Not the table of counts: the arrays themselves."""
    plan = ChoicePlan(variant(space))
    network = choice_chain(plan, plan.space.decode(named(arch)))
    variables = network.init(jax.random.key(0), None, jnp.zeros((1, 224, 224, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == params


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_supernets_have_the_parameters_of_their_plan(name, affine):
    plan, _ = CASES[name]
    variables = choice_supernet(plan, affine=affine).init(jax.random.key(0), None, images(0, 1)[0])
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == plan.supernet_params(affine)
    names = {path[-1].key for path, _ in jax.tree.leaves_with_path(variables["params"])}
    assert ({"gamma", "beta"} <= names) == affine


@pytest.mark.slow
def test_weights_start_as_released():
    """Normal kernels of the papers' deviations; the stand-alone network of SPOS and the supernet of FairNAS."""
    shuffle = choice_chain(ChoicePlan(variant("spos")), np.zeros(20, int))
    params = shuffle.init(jax.random.key(0), None, jnp.zeros((1, 8, 8, 3)))["params"]
    for leaf, deviation in (
        (params["tail"]["pointwise"], 1 / 640),
        (params["layer19"]["main0"]["pointwise"], 1 / 320),
        (params["layer19"]["main1"]["depthwise"], 1.0),
        (params["head"]["dense"], 0.01),
    ):
        assert np.std(leaf) == pytest.approx(deviation, rel=0.05) and abs(np.mean(leaf)) < 0.1 * deviation
    assert "bias" not in params["head"]
    mobile = choice_supernet(ChoicePlan(variant("fairnas_cifar"), (32, 32, 3), 10))
    params = mobile.init(jax.random.key(0), None, jnp.zeros((1, 32, 32, 3)))["params"]
    last = params["group5"]["mbconv_k5_e6"]
    assert last["main2"]["pointwise"].shape == (2, 384, 64)
    assert np.std(last["main2"]["pointwise"]) == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert np.std(last["main1"]["depthwise"]) == pytest.approx((2 / (25 * 384)) ** 0.5, rel=0.05)
    assert 0.99 * 256**-0.5 < np.abs(params["head"]["dense"]).max() <= 256**-0.5  # by the classifier's inputs
    assert (variant("fairnas").classifier, variant("bn_nas").classifier) == ("classes", "inputs")
    released = dataclasses.replace(variant("fairnas_cifar"), classifier="classes")
    head = choice_supernet(ChoicePlan(released, (32, 32, 3), 10)).init(
        jax.random.key(0), None, jnp.zeros((1, 32, 32, 3))
    )
    assert 0.99 * 10**-0.5 < np.abs(head["params"]["head"]["dense"]).max() <= 10**-0.5
    assert np.all(last["main2"]["gamma"] == 1) and not np.any(last["main2"]["beta"])


def test_scores_are_mean_sizes_of_the_last_scales():
    """gamma = (0.5, -1.5, 1.0) scores 1.0, where the plain mean would say 0; identity and removed layers score 0."""
    plan = tiny(channels=(3,), depths=(4,), choose_identity=True, removed=(2,))
    supernet = choice_supernet(plan)
    params = supernet.init(jax.random.key(0), None, images(0, 1)[0])["params"]
    table = np.asarray(supernet.scores(params))
    np.testing.assert_array_equal(table, [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]])
    last = params["group1"]["mbconv_k5_e3"]["main2"]  # layers 1 and 3
    assert last["gamma"].shape == (2, 3)
    last["gamma"] = jnp.array([[0.5, -1.5, 1.0], [3.0, 0.0, 0.0]])
    params["group1"]["mbconv_k5_e3"]["main1"]["gamma"] *= 9  # not the last
    table = np.asarray(supernet.scores(params))
    assert table[1, 1] == table[3, 1] == 1.0
    last["gamma"] = jnp.array([[0.5, -1.5, 1.6], [3.0, 0.0, 0.0]])
    table = np.asarray(supernet.scores(params))
    assert table[1, 1] == pytest.approx(1.2) and table[3, 1] == 1.0 and table[0, 1] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "last_norms"), [(tiny(), "main"), (tiny_shuffle(), "main"), (tiny_shuffle(), "both"), (tiny(), "both")]
)
def test_the_last_norms_are_those_of_the_scores(plan, last_norms):
    """Gradient of all scores: not 0 exactly where last_norm says gamma. Xception has its last norm elsewhere."""
    supernet = choice_supernet(plan, last_norms=last_norms)
    params = supernet.init(jax.random.key(0), None, images(0, 1)[0])["params"]
    gradient = quick(jax.grad(lambda p: supernet.scores(p).sum()))(params)
    found = 0
    for path, leaf in jax.tree.leaves_with_path(gradient):
        names = tuple(part.key for part in path)
        assert supernet.last_norm(names) == bool(np.any(leaf)) or names[-1] == "beta"
        assert supernet.last_norm((*names[:-1], "beta")) == supernet.last_norm((*names[:-1], "gamma"))
        if supernet.last_norm(names):
            assert names[2] == "branch1" or names[2] == ("main5" if "xception" in names[1] else "main2")
            found += 1
    projections = plan.space.family == "shuffle" and last_norms == "both"  # of the group of stride 2
    assert found == (2 * 2 + 2 * projections) * len(plan.space.operators)  # gamma and beta, in two groups


def test_a_projection_counts_by_its_channels():
    """Stride 2: 4 channels through the projection, 4 through the main branch; |gamma| 1 and 0.5 on average."""
    plan, table = tiny_shuffle(operators=("shuffle_k3",), depths=(1,)), {}
    for last_norms in ("main", "both"):
        supernet = choice_supernet(plan, last_norms=last_norms)
        params = supernet.init(jax.random.key(0), None, images(0, 1)[0])["params"]
        operator = params["group0"]["shuffle_k3"]
        assert operator["branch1"]["gamma"].shape == operator["main2"]["gamma"].shape == (1, 4)
        operator["main2"]["gamma"] = jnp.array([[0.5, -1.5, 0.0, 0.0]])
        table[last_norms] = np.asarray(supernet.scores(params)).tolist()
    assert table == {"main": [[0.5, 0.0]], "both": [[0.75, 0.0]]}
    with pytest.raises(ValueError, match="choose main or both"):
        choice_supernet(plan, last_norms="projection")


@pytest.mark.slow
def test_one_program_for_all_paths():
    plan = tiny(choose_identity=True)
    supernet, traces = choice_supernet(plan), []
    x = images(0, 2)[0]
    variables = supernet.init(jax.random.key(0), None, x)

    @quick
    def logits(arch):
        traces.append(arch)
        return supernet.apply(variables, arch, x)[0]

    seen = {np.asarray(logits(jnp.array(arch))).tobytes() for arch in ([0, 1, 2], [2, 3, 0], [1, 0, 3], [1, 3, 3])}
    assert len(seen) == 4 and len(traces) == 1


@pytest.mark.slow
def test_dropout_needs_training_and_a_key():
    plan = tiny()
    supernet = choice_supernet(plan, dropout=0.5)
    x, arch = images(0, 4)[0], jnp.zeros(3, jnp.int32)
    variables = supernet.init(jax.random.key(0), None, x)
    variables["params"]["head"]["bias"] = jnp.zeros(3)
    run = quick(lambda key: supernet.apply(variables, arch, x, key=key, train=True)[0])
    a, b = (run(jax.random.key(k)) for k in (1, 2))
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(a, run(jax.random.key(1)))


def test_wrong_use():
    with pytest.raises(ValueError, match="float8"):
        choice_supernet(tiny(), dtype="float8")
    with pytest.raises(ValueError, match=r"choose 0\.\.2"):
        choice_chain(tiny(), np.array([0, 1, 3]))
