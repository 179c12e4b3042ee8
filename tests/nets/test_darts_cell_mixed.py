"""The search network: counts, agreement with the evaluation network where one operator is chosen, and its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.four_devices import on_four_devices

from nasjax.nets.darts_cell.mixed import darts_search, operator_edges, shuffle_channels
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.spaces.darts_cell.derivation import discrete_choice
from nasjax.spaces.darts_cell.plan import DartsPlan, SearchPlan, stride_of
from nasjax.spaces.darts_cell.space import CELLS, EDGES, OPERATORS, DartsCell, Genotype
from nasjax.train import losses
from nasjax.train.objective import CLASSIFICATION
from nasjax.train.passes import gradient_pass

CONVS = OPERATORS[3:]  # skip and the four convolutions: what both networks compute alike
PAIRS = {
    "normal": (
        ("sep_conv_3x3", 0),
        ("skip_connect", 1),
        ("dil_conv_5x5", 2),
        ("sep_conv_5x5", 0),
        ("dil_conv_3x3", 1),
        ("skip_connect", 3),
        ("sep_conv_3x3", 4),
        ("dil_conv_5x5", 0),
    ),
    "reduce": (
        ("skip_connect", 0),
        ("dil_conv_3x3", 1),
        ("sep_conv_5x5", 1),
        ("skip_connect", 2),
        ("sep_conv_3x3", 3),
        ("dil_conv_5x5", 0),
        ("skip_connect", 1),
        ("dil_conv_3x3", 4),
    ),
}


def mixing(operators=8, edges=False):
    choice = {cell: jnp.full((14, operators), 0.1) for cell in CELLS}
    return choice | ({f"{cell}_edges": jnp.full(14, 0.5) for cell in CELLS} if edges else {})


def chosen(pairs, operators):
    """1 for the pairs' operators, 0 elsewhere; and the edge of each pair."""
    edges = [EDGES.index((source, 2 + i // 2)) for i, (_, source) in enumerate(pairs)]
    weights = np.zeros((14, len(operators)))
    for edge, (operator, _) in zip(edges, pairs, strict=True):
        weights[edge, operators.index(operator)] = 1
    return jnp.asarray(weights), edges


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "count"),
    [
        ({}, 1_930_618),
        ({"partial": 4}, 299_578),
        ({"operators": OPERATORS[4:]}, 1_889_658),
        ({"layers": 5}, 1_275_834),
    ],
)
def test_published_sizes(form, count):
    network = darts_search(**form)
    choice = mixing(len(form.get("operators", OPERATORS)))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), choice, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count == SearchPlan(**form).params


def test_edges_of_an_operator_follow_their_order():
    names = tuple(CONVS if e % 2 else ("none", "skip_connect") for e in range(14))
    assert operator_edges(names, 0, "sep_conv_3x3") == [e for e in range(14) if EDGES[e][0] == 0 and e % 2]


@pytest.mark.slow
def test_a_single_choice_is_the_evaluation_network():
    """With one operator on two edges per node, both networks compute the same from the same kernels; also backwards."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 1)))
        search = darts_search(channels=4, layers=3, classes=5, operators=CONVS)
        picked = {cell: chosen(PAIRS[cell], CONVS) for cell in CELLS}
        choice = {cell: weights for cell, (weights, _) in picked.items()}
        variables = search.init(jax.random.key(1), choice, x)
        plan = DartsPlan(Genotype(**PAIRS), channels=4, layers=3, classes=5, image=(8, 8, 1))
        network = darts_eval(plan)
        blank = network.init(jax.random.key(2), None, x)

        def kernels(params):
            """The evaluation network's parameters from the search network's."""
            out = jax.tree.map(lambda leaf: leaf, blank["params"])
            out["head"], out["stem"] = params["head"]["dense"], params["stem"]["conv"]
            for k, cell in enumerate(plan.cells):
                of, to = params[f"cell{k}"], out[f"cell{k}"]
                for name in ("input0", "input1"):
                    to[name]["kernel"] = of[name]["kernel"]
                names = (CONVS,) * 14
                for i, (operator, source) in enumerate(PAIRS[cell.kind]):
                    if operator == "skip_connect" and stride_of(cell.kind, source) == 1:
                        continue
                    row = operator_edges(names, source, operator).index(picked[cell.kind][1][i])
                    pair, stack = to[f"pair{i}"], of[f"source{source}"][operator]
                    if operator == "skip_connect":
                        pair["reduce"]["kernel"] = stack["pointwise1"][row][None, None]
                    for name, stage in (("first", 1), ("second", 2), ("dilated", 1)):
                        if name in pair:
                            pair[name]["kernel"] = stack[f"depthwise{stage}"][row]
                            pair[name]["pointwise"]["kernel"] = stack[f"pointwise{stage}"][row][None, None]
            return out

        def by_search(params):
            logits, _ = search.apply({**variables, "params": params}, choice, x, train=True)
            return jnp.square(logits).sum(), logits

        def by_evaluation(params):
            logits, _ = network.apply({**blank, "params": kernels(params)}, None, x, train=True)
            return jnp.square(logits).sum(), logits

        pairs = [jax.jit(jax.grad(f, has_aux=True))(variables["params"]) for f in (by_search, by_evaluation)]
        for a, b in zip(*(jax.tree.leaves(pair) for pair in pairs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.fixture(scope="module")
def small():
    """DARTS's eight operators with partial channels and edge weights: every path of the network in one program."""
    network = darts_search(channels=4, layers=3, classes=5, partial=2)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 1)), jnp.float32)
    choice = mixing(edges=True)
    return network, network.init(jax.random.key(0), choice, x), choice, x


@pytest.fixture(scope="module")
def one_cell():
    """A reduction cell of three operators, with partial channels and edge weights."""
    operators = ("max_pool_3x3", "skip_connect", "sep_conv_3x3")
    network = darts_search(channels=4, layers=1, classes=5, operators=operators, partial=2)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 1)), jnp.float32)
    choice = mixing(3, edges=True)
    variables = network.init(jax.random.key(0), choice, x)
    return network, variables, choice, x, jax.jit(lambda x: network.apply(variables, choice, x, train=True))


@pytest.mark.slow
def test_every_mixing_weight_counts_but_that_of_none(small):
    network, variables, choice, x = small
    train = jax.jit(lambda choice, x: network.apply(variables, choice, x, train=True))
    base, _ = train(choice, x)
    for cell in CELLS:
        for operator in range(8):
            moved = {**choice, cell: choice[cell].at[0, operator].add(0.7)}
            same = np.allclose(train(moved, x)[0], base, atol=1e-6)
            assert same == (OPERATORS[operator] == "none")
    edges = {**choice, "normal_edges": choice["normal_edges"].at[3].set(0.9)}
    assert not np.allclose(train(edges, x)[0], base, atol=1e-6)


@pytest.mark.slow
def test_evaluation_uses_the_running_statistics(one_cell):
    network, variables, choice, x, train = one_cell
    evaluate = jax.jit(lambda variables, x: network.apply(variables, choice, x)[0])
    _, after = train(x)
    whole = evaluate(after, x)
    np.testing.assert_allclose(evaluate(after, x[:2]), whole[:2], atol=1e-5)  # samples do not mix
    assert not np.allclose(evaluate(variables, x), whole, atol=1e-3)


@pytest.mark.slow
def test_dropout_behind_skips_needs_a_key(one_cell):
    network, variables, choice, x, train = one_cell
    with pytest.raises(ValueError, match="key"):
        network.apply(variables, choice, x, train=True, drop_rate=0.5)
    dropped, _ = jax.jit(
        lambda: network.apply(variables, choice, x, key=jax.random.key(0), train=True, drop_rate=0.5)
    )()
    assert not np.allclose(dropped, train(x)[0], atol=1e-4)


@pytest.mark.slow
def test_noise_stands_in_place_of_the_image_and_is_new_in_every_step_of_training():
    """Zela et al. 2020, S4: the operator gives N(0, 1), whatever it reads."""
    network = darts_search(channels=4, layers=1, classes=5, operators=("noise", "sep_conv_3x3"))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 8, 8, 1)), jnp.float32)
    noise = {cell: jnp.tile(jnp.array([[1.0, 0.0]]), (14, 1)) for cell in CELLS}
    variables = network.init(jax.random.key(0), noise, x[0])

    @jax.jit
    def train(choice, x, key):
        return network.apply(variables, choice, x, key=key, train=True)[0]

    first, second = jax.random.split(jax.random.key(1))
    logits = train(noise, x[0], first)
    np.testing.assert_allclose(train(noise, x[1], first), logits, atol=1e-6)
    assert np.ptp(logits, axis=0).min() > 1e-4  # every sample has its own
    assert not np.allclose(train(noise, x[0], second), logits, atol=1e-3)
    mixed = jax.tree.map(lambda w: w.at[:, 1].set(1.0), noise)
    assert not np.allclose(train(mixed, x[1], first), train(mixed, x[0], first), atol=1e-3)
    evaluate = jax.jit(lambda x: network.apply(variables, noise, x)[0])
    np.testing.assert_array_equal(evaluate(x[0]), evaluate(x[1]))
    with pytest.raises(ValueError, match="give key"):
        network.apply(variables, noise, x[0], train=True)


def test_channel_shuffle():
    assert shuffle_channels(jnp.arange(8), 4).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert shuffle_channels(jnp.arange(12), 4).tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


@pytest.mark.parametrize(
    ("operators", "match"),
    [(("sep_conv_7x7",), "unknown operator"), ({"normal": [["none"]] * 14, "reduce": [["none"]] * 13}, "14 edges")],
)
def test_wrong_operators_are_refused(operators, match):
    with pytest.raises(ValueError, match=match):
        darts_search(operators=operators)


@pytest.mark.slow
def test_part_by_part_is_the_network_itself():
    """Gradients by the host's chain against autodiff of `apply`; with dropout, edge weights and partial channels."""
    names = ("none", "max_pool_3x3", "skip_connect", "dil_conv_3x3")
    with jax.enable_x64(True):
        network = darts_search(channels=4, layers=1, classes=5, operators=names, partial=2)
        x = jnp.asarray(
            np.random.default_rng(0).standard_normal((4, 7, 7, 1))
        )  # odd: the passed channels keep the rest
        y, choice, key = np.arange(4), mixing(4, edges=True), jax.random.key(1)
        variables = network.init(jax.random.key(0), choice, x)

        def loss_of(params, choice):
            logits, after = network.apply(
                {**variables, "params": params}, choice, x, key=key, train=True, drop_rate=0.3
            )
            return losses.cross_entropy(logits, y), after["batch_stats"]

        (loss, stats), expected = jax.jit(jax.value_and_grad(loss_of, (0, 1), has_aux=True))(
            variables["params"], choice
        )
        found = gradient_pass(network, CLASSIFICATION, 1)(*variables_of(variables), choice, key, 0.3, (x, y))
        for a, b in zip(
            jax.tree.leaves((loss, expected, stats)),
            jax.tree.leaves((found.loss, (found.params, found.choice), found.batch_stats)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


def variables_of(variables):
    return variables["params"], variables["batch_stats"]


@pytest.mark.slow
def test_a_choice_of_another_width_is_refused(small):
    network, variables, _, x = small
    with pytest.raises(ValueError, match="14 edges with 8 operators"):
        network.apply(variables, mixing(4, edges=True), x, train=True)


def test_an_edge_that_was_not_kept_passes_nothing():
    """Partial channels pass by the operators, so the derived cell's choice closes the other edges."""
    like, space = mixing(edges=True), DartsCell()
    tree = space.encode(np.asarray(space.sample(jax.random.key(0))))
    names = dict.fromkeys(CELLS, [OPERATORS] * 14)
    choice = discrete_choice(tree, names, like)
    for cell in CELLS:
        assert choice[f"{cell}_edges"].sum() == 8 == choice[cell].sum()
        np.testing.assert_array_equal(choice[f"{cell}_edges"], choice[cell].sum(1))
    assert set(discrete_choice(tree, names, {cell: like[cell] for cell in CELLS})) == set(CELLS)


@pytest.mark.slow
def test_four_devices_equal_one():
    """Gradients of weights and mixing weights, loss and running statistics, with dropout; a cell with both strides."""
    assert on_four_devices(__file__, float64=True) == ["equal"]


def compare_devices():
    assert jax.local_device_count() == 4
    x, y = np.random.default_rng(0).standard_normal((8, 8, 8, 1)), np.arange(8, dtype=np.int32) % 5
    names = tuple(name for name in OPERATORS if "conv_5x5" not in name)  # which differ from 3x3 in no norm
    network = darts_search(channels=2, layers=1, classes=5, operators=names)
    choice = {cell: np.full((14, len(names)), 0.1) for cell in CELLS}
    variables = network.init(jax.random.key(0), choice, x)
    fixed = (*variables_of(variables), choice, jax.random.key(1), 0.3, (x, y))
    one, four = (gradient_pass(network, CLASSIFICATION, devices)(*fixed) for devices in (1, 4))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    print("equal")


if __name__ == "__main__":
    compare_devices()
