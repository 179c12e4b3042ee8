"""Recurrent cells by hand and against Flax: published numbers, LSTM and GRU as references, cells as modules."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nasjax.nets.cell_tree.cell import masked_step, step
from nasjax.nets.cell_tree.flax_model import TreeCell
from nasjax.nets.cell_tree.recurrent import layer, one_step
from nasjax.spaces.cell_tree.named import NAMED, program
from nasjax.spaces.cell_tree.plan import RecurrentForm
from nasjax.spaces.cell_tree.space import CellTree

FORM = RecurrentForm(hidden=5, embedding=4, bias=True, softmax_bias=True, init_scale=0.5)
B = 3


def test_one_step_of_nascell():
    """One unit with x = 1, h = 0.5, c = 0.25 and small weights, by hand."""
    weights = {"kernel": 0.1 * jnp.arange(1, 9.0)[None], "recurrent_kernel": 0.05 * jnp.arange(1, 9.0)[None]}
    state = jnp.array([[0.25]]), jnp.array([[0.5]])
    as_data = functools.partial(masked_step(CellTree()), jnp.asarray(CellTree().decode(NAMED["NASCELL"])))
    for form in (step(program(NAMED["NASCELL"])), lambda _, *rest: as_data(*rest)):
        c, h = jax.jit(functools.partial(one_step, form))(weights, jnp.ones((1, 1)), state)
        np.testing.assert_allclose([c[0, 0], h[0, 0]], [0.204060, 0.166472], atol=1e-6)


def test_one_step_of_the_worked_example():
    weights = {"kernel": jnp.array([[0.3, 0.5]]), "recurrent_kernel": jnp.array([[-0.4, 0.6]])}
    c, h = one_step(step(program(NAMED["BASE2"])), weights, jnp.ones((1, 1)), (jnp.array([[0.2]]), jnp.array([[0.5]])))
    np.testing.assert_allclose([c[0, 0], h[0, 0]], [0.15, 0.511236], atol=1e-6)


# -- cells of Flax ---------------------------------------------------------------------------------------------


def flax_cell(cell, gates):
    """Output of five steps of a cell of Flax, and its weights in our order of columns."""
    x = jax.random.normal(jax.random.key(1), (B, 5, 4))
    module = nn.RNN(cell, return_carry=True)
    params = module.init(jax.random.key(2), x)["params"]
    params = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(3), leaf.shape) * 0.5, params)
    if "in" in params["cell"]:  # Flax's GRU has biases of the input products as well
        for gate in ("ir", "iz", "in"):
            params["cell"][gate]["bias"] *= 0
    after, y = module.apply({"params": params}, x)
    parts = params["cell"]
    weights = {
        "kernel": jnp.concatenate([parts[f"i{gate}"]["kernel"] for gate in gates], 1),
        "recurrent_kernel": jnp.concatenate([parts[f"h{gate}"]["kernel"] for gate in gates], 1),
    }
    biases = [parts[f"h{gate}"].get("bias", jnp.zeros(parts[f"h{gate}"]["kernel"].shape[1])) for gate in gates]
    return x, weights | {"bias": jnp.concatenate(biases)}, y, after


def run(cell, weights, x):
    hidden = weights["recurrent_kernel"].shape[0]
    zeros = jnp.zeros((len(x), hidden))
    h, state = layer(step(cell), weights, None, x.swapaxes(0, 1), (zeros, zeros))
    return h.swapaxes(0, 1), state


def spread(weights, columns, leaves):
    """The weights of a tree whose leaf columns[k] has, times its sign, product k of `weights`; the others have 0."""
    hidden = weights["recurrent_kernel"].shape[0]

    def place(leaf):
        blocks = np.zeros((*leaf.shape[:-1], leaves, hidden), np.float32)
        given = np.asarray(leaf).reshape(*leaf.shape[:-1], -1, hidden)
        for (k, place), (sign, _) in columns.items():
            blocks[..., place, :] = sign * given[..., k, :]
        return jnp.asarray(blocks.reshape(*leaf.shape[:-1], -1))

    return jax.tree.map(place, weights)


@pytest.mark.slow
def test_an_lstm_is_that_of_flax_as_a_reference_and_as_a_tree():
    x, weights, y, (c, h) = flax_cell(nn.OptimizedLSTMCell(6), "ifgo")
    ours, state = run("lstm", weights, x)
    for a, b in zip((ours, *state), (y, c, h), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    # Input gate, candidate, forget gate and output gate are leaves 0, 1, 2 and 4; the other leaves have no weights.
    tree = spread(weights, {(0, 0): (1, 0), (2, 1): (1, 0), (1, 2): (1, 0), (3, 4): (1, 0)}, 8)
    ours, state = run(program(NAMED["LSTM_TREE"]), tree, x)
    for a, b in zip((ours, *state), (y, c, h), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.slow
def test_a_gru_is_that_of_flax_as_a_reference_and_as_a_tree():
    x, weights, y, h = flax_cell(nn.GRUCell(6), "rzn")
    ours, state = run("gru", weights, x)
    np.testing.assert_allclose(ours, y, atol=2e-6)
    np.testing.assert_allclose(state[1], h, atol=2e-6)
    # The reset gate is leaf 4, the update gate leaf 8 and, negative, leaf 0. The candidate's input product is leaf 6,
    # its recurrent product leaf 5: each has only one of the two matrices.
    columns = {(0, 4): (1, 0), (1, 8): (1, 0), (1, 0): (-1, 0)}
    tree = spread(weights, columns, 16)
    whole = spread(weights, columns | {(2, 5): (1, 0), (2, 6): (1, 0)}, 16)
    own = np.arange(16 * 6) // 6
    tree["kernel"] += jnp.where(own == 6, whole["kernel"], 0)
    tree["recurrent_kernel"] += jnp.where(own == 5, whole["recurrent_kernel"], 0)
    tree["bias"] += jnp.where(own == 5, whole["bias"], 0)
    ours, state = run(program(NAMED["GRU_TREE"]), tree, x)
    np.testing.assert_allclose(ours, y, atol=2e-6)
    np.testing.assert_allclose(state[0], h, atol=2e-6)  # c is h


@pytest.mark.slow
def test_a_plain_recurrent_network():
    x = jax.random.normal(jax.random.key(0), (B, 5, 4))
    weights = {name: 0.3 * jax.random.normal(jax.random.key(1), (n, 6)) for name, n in KERNELS}
    ours, _ = run("rnn", weights, x)
    h = np.zeros((B, 6), np.float32)
    for t in range(5):
        h = np.tanh(x[:, t] @ weights["kernel"] + h @ weights["recurrent_kernel"])
        np.testing.assert_allclose(ours[:, t], h, atol=2e-6)
    tree, _ = run(program(NAMED["RNN_TREE"]), spread(weights, {(0, 1): (1, 0)}, 2), x)
    np.testing.assert_allclose(tree, ours, atol=2e-6)


KERNELS = (("kernel", 4), ("recurrent_kernel", 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NASCELL", "LSTM"])
def test_found_cells_are_cells_of_flax(name):
    x = jax.random.normal(jax.random.key(0), (B, 5, 4))
    module = nn.RNN(TreeCell.of(NAMED[name], 6))
    y, variables = module.init_with_output(jax.random.key(1), x)
    ours, _ = run(program(NAMED[name]), variables["params"]["cell"], x)
    np.testing.assert_allclose(y, ours, atol=2e-6)
    assert TreeCell.of(NAMED[name], 6).num_feature_axes == 1
    with pytest.raises(ValueError, match="'LSTM' is no reference"):
        nn.RNN(TreeCell("LSTM", 6)).init(jax.random.key(0), jnp.ones((1, 2, 3)))
    blocks = np.split(np.asarray(variables["params"]["cell"]["recurrent_kernel"]), 8 if name == "NASCELL" else 4, 1)
    for block in blocks:  # each is orthogonal
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-5)


@pytest.mark.slow
def test_found_cells_are_modules_of_nnx():
    x = jax.random.normal(jax.random.key(0), (B, 4))
    linen = TreeCell.of(NAMED["NASCELL"], 6)
    carry = linen.initialize_carry(jax.random.key(0), x.shape)
    cell = nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0)).lazy_init(carry, x)
    (c, h), y = cell(carry, x)
    assert y.shape == c.shape == (B, 6) and np.array_equal(h, y)
    weights = {name: cell.__dict__[name][...] for name in ("kernel", "recurrent_kernel", "bias")}
    np.testing.assert_allclose(y, one_step(step(linen.cell), weights, x, carry)[1], atol=2e-6)
