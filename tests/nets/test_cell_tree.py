"""Recurrent networks: the cell as data and as a program, the window's backward pass, dropout, wrong use."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.nets.cell_tree.cell import masked_step, step
from nasjax.nets.cell_tree.model import recurrent_model
from nasjax.nets.cell_tree.recurrent import layer
from nasjax.spaces.cell_tree.named import NAMED, program
from nasjax.spaces.cell_tree.plan import RecurrentForm, plan
from nasjax.spaces.cell_tree.space import ACTIVATIONS, COMBINATIONS, CellTree

FULL = CellTree(4, COMBINATIONS, ACTIVATIONS)
FORM = RecurrentForm(hidden=5, embedding=4, bias=True, softmax_bias=True, init_scale=0.5)
ONE = dataclasses.replace(FORM, layers=1)
V, T, B = 11, 6, 3


def double(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


# -- the cell as data ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch():
    tokens = jax.random.randint(jax.random.key(0), (B, T), 0, V)
    targets = jax.random.randint(jax.random.key(1), (B, T), 0, V)
    return tokens, targets


def loss_of(network, drop_rate=0.0):
    def loss(variables, choice, tokens, targets, state, key=None):
        train = key is not None
        (logits, after), _ = network.apply(
            variables, choice, (tokens, state), key=key, train=train, drop_rate=drop_rate
        )
        taken = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
        return -taken.mean(), (logits, after)

    return loss


def members(space, count, form=FORM):
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(5), count))
    network = recurrent_model(plan(space.base, form, V), space)
    variables = jax.vmap(lambda key: network.init(key, None, None))(jax.random.split(jax.random.key(9), count))
    return network, archs, variables


@pytest.mark.slow
def test_a_population_of_cells_equals_each_cell_alone(batch):
    """Outputs, states and gradients, in float64, masked and vmapped against the program of each cell."""
    with jax.enable_x64(True):
        network, archs, variables = members(FULL, 4, ONE)
        archs = archs.at[0, -2:].set(6).at[1, -1].set(6)  # injected into the root; read from it, too
        variables = double(variables)
        state = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(jax.random.key(5), leaf.shape), network.carry(B))
        state = double(state)
        together = jax.jit(jax.vmap(jax.value_and_grad(loss_of(network), has_aux=True), (0, 0, None, None, None)))
        found = together(variables, archs, *batch, state)
        for n in range(4):
            own = recurrent_model(plan(FULL.cell(np.asarray(archs[n])), ONE, V))
            alone = jax.jit(jax.value_and_grad(loss_of(own), has_aux=True))
            expected = alone(jax.tree.map(lambda leaf, n=n: leaf[n], variables), None, *batch, state)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                assert a.dtype == jnp.float64
                np.testing.assert_allclose(a[n], b, rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def population():
    """Three cells in one program, their weights, and the program: outputs and gradients."""
    network, archs, variables = members(FULL, 3)
    run = jax.jit(jax.vmap(jax.grad(loss_of(network), has_aux=True), (0, 0, None, None, None)))
    return network, archs, variables, run


@pytest.mark.slow
def test_changing_one_member_leaves_the_others_bit_equal(batch, population):
    network, archs, variables, run = population
    before = run(variables, archs, *batch, network.carry(B))
    after = run(variables, archs.at[1].set((archs[1] + 1) % 2), *batch, network.carry(B))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a[np.array([0, 2])], b[np.array([0, 2])])
    assert not np.array_equal(before[1][0][1], after[1][0][1])


@pytest.mark.slow
def test_a_cell_that_diverges_stays_alone(batch, population):
    """A product of four sums with large weights overflows within the window."""
    network, archs, variables, run = population
    square = FULL.decode(
        {
            "space": "cell_tree",
            "nodes": [["add", "identity"]] * 4 + [["elem_mult", "identity"]] * 3,
            "inject": ["add", "identity"],
            "indices": [6, 4],
        }
    )
    healthy = run(variables, archs, *batch, network.carry(B))
    large = jax.tree.map(lambda leaf: leaf.at[1].multiply(1e6), variables)
    ill = run(large, archs.at[1].set(square), *batch, network.carry(B))
    assert not np.isfinite(ill[1][0][1]).all()
    for a, b in zip(jax.tree.leaves(healthy), jax.tree.leaves(ill), strict=True):
        assert np.isfinite(b[np.array([0, 2])]).all()
        np.testing.assert_array_equal(a[np.array([0, 2])], b[np.array([0, 2])])


def test_what_a_cell_does_not_use_cannot_spoil_its_gradient():
    """An infinite product that goes into a tanh: the way not taken (its product, its square) would be 0 * inf."""
    space = CellTree(2, COMBINATIONS, ACTIVATIONS)
    cell = space.cell(space.decode({**NAMED["BASE2"], "nodes": [["add", "tanh"]] * 2 + [["add", "identity"]]}))
    u = jnp.full((1, 2, 1), jnp.inf)
    states = jnp.ones((1, 1)), jnp.ones((1, 1))

    def gradient(choose, choice):
        run = jax.grad(lambda u, w: sum(choose(choice, u, w, *states)).sum(), (0, 1))
        return jax.jit(run)(u, jnp.ones((1, 2, 1)))

    fixed, masked = gradient(step(cell), None), gradient(masked_step(space), jnp.asarray(space.arch(cell)))
    new = np.asarray(masked[0])[0, :, 0]
    assert np.isfinite(np.asarray(masked)).all() and new[0] == 0  # node 1 is c' and passes its gradient
    np.testing.assert_array_equal(np.asarray(fixed), np.asarray(masked))


@pytest.mark.slow
def test_a_population_learns_in_one_program():
    """Words in a circle: after some steps both cells know the next; the state goes along."""
    space = CellTree(2)
    form = RecurrentForm(hidden=8, layers=1, init_scale=0.3)
    network = recurrent_model(plan(2, form, 3), space)
    gated = {"nodes": [["add", "sigmoid"], ["add", "tanh"], ["elem_mult", "tanh"]], "inject": ["add", "tanh"]}
    archs = [space.decode(tree) for tree in (NAMED["RNN_TREE"], {"space": "cell_tree", **gated, "indices": [2, 1]})]
    variables = jax.vmap(lambda key: network.init(key, None, None))(jax.random.split(jax.random.key(0), 2))
    circle = jnp.tile(jnp.arange(3, dtype=jnp.int32), (2, 3))  # two streams of 9 words, and the next ones
    loss = jax.value_and_grad(loss_of(network), has_aux=True)

    def train(variables, arch):
        def body(_, carried):
            variables, state, _ = carried
            (value, (_, state)), grads = loss(variables, arch, circle, (circle + 1) % 3, state)
            return jax.tree.map(lambda p, g: p - 0.5 * g, variables, grads), state, value

        return jax.lax.fori_loop(0, 150, body, (variables, network.carry(2), jnp.float32(0)))[2]

    last = np.asarray(jax.jit(jax.vmap(train))(variables, jnp.stack(archs)))
    assert (last < 0.1 * np.log(3)).all(), last


# -- the window ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_backward_pass_of_a_window_is_that_of_a_plain_loop():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 8)
        shapes = {"kernel": (4, 4 * 5), "recurrent_kernel": (5, 4 * 5), "bias": (20,)}
        weights = {name: jax.random.normal(k, s) * 0.4 for k, (name, s) in zip(keys, shapes.items(), strict=False)}
        x, mask = jax.random.normal(keys[3], (T, B, 4)), 2.0 * jax.random.bernoulli(keys[4], shape=(B, 5))
        state = jax.random.normal(keys[5], (B, 5)), jax.random.normal(keys[6], (B, 5))

        def plain(weights, x, state):
            out = []
            for t in range(T):
                u = (x[t] @ weights["kernel"]).reshape(B, 4, 5)
                w = ((state[1] * mask) @ weights["recurrent_kernel"] + weights["bias"][None]).reshape(B, 4, 5)
                state = step("lstm")(None, u, w, *state)
                out.append(state[1])
            return jnp.stack(out), state

        def total(run):
            def value(*args):
                h, (c, last) = run(*args)
                return (h**2).sum() + (c * 3).sum() + last.sum()

            return jax.jit(jax.value_and_grad(value, (0, 1, 2)))

        ours = total(lambda weights, x, state: layer(step("lstm"), weights, None, x, state, mask))(weights, x, state)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(total(plain)(weights, x, state)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.slow
def test_two_windows_are_one_and_the_state_ends_the_gradient(batch):
    network = recurrent_model(plan(program(NAMED["NASCELL"]), FORM, V))
    variables = network.init(jax.random.key(0), None, None)
    apply = jax.jit(lambda tokens, state: network.apply(variables, None, (tokens, state))[0])
    tokens = batch[0]
    whole, after = apply(tokens, network.carry(B))
    first, state = apply(tokens[:, : T // 2], network.carry(B))
    second, end = apply(tokens[:, T // 2 :], state)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, atol=1e-6)
    for a, b in zip(end, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda state: network.apply(variables, None, (tokens, state))[0][0].sum()))(state)
    assert all((leaf == 0).all() for leaf in gradient)


def test_tied_weights_and_the_counts_of_the_plan():
    for form in (RecurrentForm(hidden=4, tied=True), RecurrentForm(hidden=4, tied=True, softmax_bias=True), FORM):
        for cell in ("gru", 2, program(NAMED["BASE2"])):
            made = plan(cell, form, V)
            network = recurrent_model(made, CellTree(2) if cell == 2 else None)
            leaves = jax.eval_shape(network.init, jax.random.key(0), None, None)
            assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(leaves)) == made.params
            assert ("softmax" in leaves["params"]) == (not form.tied or form.softmax_bias)


def test_initial_weights_do_not_depend_on_the_cell():
    one = recurrent_model(plan(program(NAMED["BASE2"]), FORM, V)).init(jax.random.key(3), None, None)
    all_ = recurrent_model(plan(2, FORM, V), CellTree(2)).init(jax.random.key(3), jnp.zeros(10, jnp.int32), None)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(all_), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(one["params"]["embedding"]).max() <= FORM.init_scale


@pytest.mark.slow
def test_dropout_has_one_mask_for_the_window():
    """An identity of h' = u: what each place drops shows in the logits of a network of ones."""
    form = RecurrentForm(hidden=4, layers=1, embedding_dropout=0.5, input_dropout=0.0, recurrent_dropout=0.0)
    network = recurrent_model(plan("rnn", form, 8))
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), None, None)["params"])
    params["embedding"] += 1
    params["layer0"]["kernel"] = jnp.eye(4)
    params["softmax"]["kernel"] = jnp.eye(4, 8)
    tokens = jnp.tile(jnp.arange(8, dtype=jnp.int32), (64, 2))  # every word twice

    def logits(rate, seed=0, train=True):
        x = tokens, network.carry(64)
        return network.apply({"params": params}, None, x, key=jax.random.key(seed), train=train, drop_rate=rate)[0][0]

    np.testing.assert_allclose(logits(0.5, train=False)[..., :4], np.tanh(1.0), rtol=1e-5)
    words = np.asarray(logits(0.0))[..., 0]
    assert ((words == 0) | np.isclose(words, np.tanh(2.0))).all() and 0 < (words == 0).mean() < 1
    np.testing.assert_array_equal(words, np.broadcast_to(words[0], words.shape))  # the same words in every stream
    np.testing.assert_array_equal(words[:, :8], words[:, 8:])
    units = np.asarray(logits(0.75))[..., :4]
    seen = units != 0
    expected = (words != 0)[..., None] & seen.any(1, keepdims=True)
    np.testing.assert_array_equal(seen, expected)  # a unit is dropped at all steps of a stream, or at none
    assert 0.15 < seen.any(1).mean() < 0.35 and len(np.unique(seen.any(1), axis=0)) > 4
    np.testing.assert_allclose(units[seen], 4 * np.tanh(2.0), rtol=1e-5)
    assert not np.array_equal(logits(0.75, 1)[..., :4] != 0, seen)


def test_recurrent_dropout_multiplies_h_inside_the_cell():
    form = RecurrentForm(hidden=4, layers=1, embedding_dropout=0.0, input_dropout=0.0, output_dropout=0.0)
    network = recurrent_model(plan("rnn", form, 8))
    variables = network.init(jax.random.key(0), None, None)
    x = jnp.zeros((16, 3), jnp.int32), network.carry(16)
    run = jax.jit(lambda key, rate: network.apply(variables, None, x, key=key, train=True, drop_rate=rate)[0][0])
    dropped, none = run(jax.random.key(0), 0.5), run(jax.random.key(0), 0.0)
    np.testing.assert_array_equal(dropped[:, 0], none[:, 0])  # h is 0 at first
    assert len(np.unique(np.asarray(dropped[:, 2, 0]))) > 4 and len(np.unique(np.asarray(none[:, 2, 0]))) == 1


@pytest.mark.slow
def test_bfloat16_products_are_close_and_states_stay_float32(batch):
    outputs = []
    for dtype in ("float32", "bfloat16"):
        network = recurrent_model(plan("lstm", FORM, V), dtype=dtype)
        variables = network.init(jax.random.key(0), None, None)
        run = jax.jit(jax.grad(loss_of(network), has_aux=True))
        grad, (logits, state) = run(variables, None, *batch, network.carry(B))
        assert {leaf.dtype for leaf in jax.tree.leaves((grad, logits, state))} == {jnp.dtype("float32")}
        outputs.append(logits)
    np.testing.assert_allclose(*outputs, atol=0.02)
    assert not np.array_equal(*outputs)


def test_wrong_use_says_what_to_write(batch):
    with pytest.raises(ValueError, match="pass the space exactly where"):
        recurrent_model(plan(8, FORM, V))
    with pytest.raises(ValueError, match="base 8 with a space of base 4"):
        recurrent_model(plan(8, FORM, V), FULL)
    with pytest.raises(ValueError, match="unknown dtype"):
        recurrent_model(plan("lstm", FORM, V), dtype="float16")
    network = recurrent_model(plan("lstm", FORM, V))
    variables = network.init(jax.random.key(0), None, None)
    with pytest.raises(ValueError, match="needs a key"):
        network.apply(variables, None, (batch[0], network.carry(B)), train=True, drop_rate=0.5)
