"""The specialised and the masked form of a network are the same function: outputs, gradients, training."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.nets.conv_chain.masked import conv_chain_masked
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.nets.conv_chain.pack import pack, unpack
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import TYPES, ConvChain
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.train.step import trainer

IMAGE, CLASSES, BATCH = (7, 6, 2), 3, 4
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
RECIPE = Recipe(epochs=3, batch_size=BATCH, augment=Augment(crop="none", flip=False))
SMALL = {"filter_heights": (1, 3), "filter_widths": (1, 3, 5), "filter_counts": (2, 3)}
SPACES = {
    "v1": ConvChain(2, 4, **SMALL),
    "v2": ConvChain(3, 3, **SMALL, strides=(1, 2, 3)),
    "v3": ConvChain(2, 2, **SMALL, block_layers=2, pool_after=(0,)),
    "v3, padded": ConvChain(2, 3, **SMALL, pool_after=(0, 1), pool_skips=False),
    "types": ConvChain(3, 3, **SMALL, types=TYPES, strides=(1, 2)),
}
# Two networks that hold every type, strides, zero-padding, a pool of a concatenation, and leftovers.
WINDOW = {"filter_height": 3, "filter_width": 5, "stride_height": 2, "stride_width": 1}
EVERY_TYPE = (
    [
        {"type": "conv", **WINDOW, "num_filters": 3, "inputs": []},
        {"type": "local_contrast_norm", "inputs": []},
        {"type": "avg_pool", **WINDOW, "inputs": [0, 1]},
    ],
    [
        {"type": "max_pool", **WINDOW, "inputs": []},
        {"type": "batch_norm", "inputs": [0]},
        {"type": "conv", **WINDOW, "stride_width": 2, "num_filters": 2, "inputs": [0, 1]},
    ],
)


def archs(name):
    space = SPACES[name]
    if name == "types":
        return [space.decode({"space": "conv_chain", "layers": layers}) for layers in EVERY_TYPE]
    return list(np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(7), 2 if name == "v1" else 1))))


def train(network, choice, variables, x, y, steps):
    """Logits first, then the states after every step."""
    step = trainer(network, RECIPE, BATCH, variables, TASK)
    state = step.start(variables)
    update = jax.jit(step.update, compiler_options=QUICK)
    states = []
    for t in range(steps):
        rate = jnp.asarray(0.1, x.dtype)
        state = update(state, choice, rate, x, y, jax.random.key(t), jnp.int32(t))
        states.append(state)
    trees = [(step.variables(s), step.variables(s._replace(params=s.optimiser[1].trace))["params"]) for s in states]
    return [float(s.train_loss.sum()) for s in states], trees


@lru_cache
def masked(name):
    return conv_chain_masked(SPACES[name], IMAGE, CLASSES)


def both(name, arch, dtype, steps):
    space = SPACES[name]
    key_x, key_y, key = jax.random.split(jax.random.key(3), 3)
    x = jax.random.normal(key_x, (BATCH, *IMAGE), dtype)
    y = jax.random.randint(key_y, (BATCH,), 0, CLASSES)
    planned = plan(space, arch, IMAGE, CLASSES)
    full = jax.jit(masked(name).init, compiler_options=QUICK)(key, arch, x)
    special = conv_chain(planned).init(key, None, x)
    packed = pack(space, planned, arch, full)
    wide = train(masked(name), jnp.asarray(arch), full, x, y, steps)
    narrow = train(conv_chain(planned), None, jax.tree.map(jnp.asarray, packed), x, y, steps)
    return planned, full, special, packed, wide, narrow


def assert_close(a, b, tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_forms_agree_in_float64(name):
    with jax.enable_x64(True):
        for arch in archs(name):
            space = SPACES[name]
            planned, full, special, packed, (loss, wide), (loss_special, narrow) = both(name, arch, jnp.float64, 3)
            assert_close(packed, special, 1e-6)  # the same initial values; they are drawn in float32
            assert_close(jax.tree.map(np.asarray, full), unpack(space, planned, arch, packed, full), 0)
            np.testing.assert_allclose(loss, loss_special, rtol=1e-10)
            for step in (0, 2):  # variables, and momenta: gradients and decay
                (variables, momenta), (variables_special, momenta_special) = wide[step], narrow[step]
                assert_close(pack(space, planned, arch, variables), variables_special, 1e-10)
                assert_close(pack(space, planned, arch, {"params": momenta})["params"], momenta_special, 1e-10)


@pytest.mark.slow
def test_forms_agree_in_float32():
    arch = archs("v1")[0]
    planned, _, _, _, (loss, wide), (loss_special, narrow) = both("v1", arch, jnp.float32, 1)
    np.testing.assert_allclose(loss, loss_special, rtol=1e-4)
    assert_close(pack(SPACES["v1"], planned, arch, wide[0][0]), narrow[0][0], 1e-4)
    assert_close(pack(SPACES["v1"], planned, arch, {"params": wide[0][1]})["params"], narrow[0][1], 1e-4)


@pytest.mark.slow
def test_pack_and_unpack_are_inverse():
    space = SPACES["types"]
    arch = archs("types")[1]
    planned = plan(space, arch, IMAGE, CLASSES)
    x = jnp.zeros((1, *IMAGE))
    special = conv_chain(planned).init(jax.random.key(0), None, x)
    special = jax.tree.map(lambda leaf: np.random.default_rng(0).normal(size=leaf.shape), special)
    like = jax.eval_shape(masked("types").init, jax.random.key(0), jnp.asarray(arch), x)
    like = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan), like)
    assert_close(pack(space, planned, arch, unpack(space, planned, arch, special, like)), special, 0)


@pytest.mark.slow
def test_capacity_of_a_smaller_depth():
    space = SPACES["v1"]
    arch = np.asarray(space.sample(jax.random.key(0), depth=3))
    x = jax.random.normal(jax.random.key(1), (2, *IMAGE))
    logits = []
    for depth in (3, 4):
        network = conv_chain_masked(space, IMAGE, CLASSES, depth=depth)
        variables = jax.jit(network.init, compiler_options=QUICK)(jax.random.key(2), arch, x)
        assert len(variables["params"]) == depth + 1
        logits.append(jax.jit(network.apply, compiler_options=QUICK)(variables, arch, x)[0])
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"depth must be 2\.\.4"):
        conv_chain_masked(space, IMAGE, CLASSES, depth=5)
    with pytest.raises(ValueError, match="choose float32, tf32 or bfloat16"):
        conv_chain_masked(space, IMAGE, CLASSES, dtype="float16")
