"""What every Network promises, over the implementations whose choice is a traced array and those specialised to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.nets.conv_chain.masked import conv_chain_masked
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import DartsCell, genotype

IMAGE, CLASSES, CHILDREN = (6, 5, 2), 3, 3
SMALL = {"filter_heights": (1, 3), "filter_widths": (1, 5), "filter_counts": (2, 4)}
CHAINS = {"static sizes": ConvChain(1, 3, **SMALL), "traced sizes": ConvChain(2, 3, **SMALL, strides=(1, 2))}
SPACES = {**CHAINS, "cells": DartsCell()}
QUICK = {"xla_backend_optimization_level": 0}
X = jax.random.normal(jax.random.key(9), (4, *IMAGE))
Y = jnp.array([0, 1, 2, 0])


def specialised(space, arch):
    network = conv_chain(plan(space, arch, IMAGE, CLASSES))
    return network, None, network.init(jax.random.key(0), None, X)


def evaluation(space, arch):
    cells = genotype(space.encode(arch))
    network = darts_eval(DartsPlan(cells, channels=2, layers=2, classes=CLASSES, image=IMAGE))
    return network, None, network.init(jax.random.key(0), None, X)


def masked(space, arch):
    network = conv_chain_masked(space, IMAGE, CLASSES)
    return network, jnp.asarray(arch), jax.jit(network.init, compiler_options=QUICK)(jax.random.key(0), arch, X)


@pytest.fixture(
    scope="module",
    params=[*[(form, name) for form in (specialised, masked) for name in CHAINS], (evaluation, "cells")],
    ids=lambda p: f"{p[0].__name__}-{p[1]}",
)
def built(request):
    form, name = request.param
    arch = np.asarray(SPACES[name].sample(jax.random.key(5)))
    network, choice, variables = form(SPACES[name], arch)
    test, train = (
        jax.jit(lambda v, c, x, t=t: network.apply(v, c, x, train=t), compiler_options=QUICK) for t in (False, True)
    )
    return network, choice, variables, test, train


def test_variables_and_logits(built):
    _, choice, variables, test, train = built
    assert set(variables) == {"params", "batch_stats"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    for logits, after in (test(variables, choice, X), train(variables, choice, X)):
        assert logits.shape == (4, CLASSES) and logits.dtype == jnp.float32 and np.isfinite(logits).all()
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, variables)


def test_only_training_changes_variables_and_only_statistics(built):
    _, choice, variables, test, train = built
    same = test(variables, choice, X)[1]
    assert all(map(np.array_equal, jax.tree.leaves(same), jax.tree.leaves(variables)))
    after = train(variables, choice, X)[1]
    assert all(map(np.array_equal, jax.tree.leaves(after["params"]), jax.tree.leaves(variables["params"])))
    stats = zip(jax.tree.leaves(after["batch_stats"]), jax.tree.leaves(variables["batch_stats"]), strict=True)
    assert any(not np.array_equal(a, b) for a, b in stats)


def test_evaluation_treats_images_one_by_one_and_training_does_not(built):
    _, choice, variables, test, train = built
    other = X.at[1:].mul(3.0)
    np.testing.assert_allclose(test(variables, choice, other)[0][0], test(variables, choice, X)[0][0], rtol=1e-5)
    assert not np.allclose(train(variables, choice, other)[0][0], train(variables, choice, X)[0][0], rtol=1e-3)


def test_initial_values_depend_on_the_key_alone(built):
    network, choice, variables, _, _ = built
    init = network.init if choice is None else jax.jit(network.init, compiler_options=QUICK)
    again, other = init(jax.random.key(0), choice, X), init(jax.random.key(1), choice, X)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(variables)))
    pairs = zip(jax.tree.leaves(other["params"]), jax.tree.leaves(variables["params"]), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module", params=CHAINS)
def population(request):
    """CHILDREN different children, as one vmapped gradient and one by one."""
    space = CHAINS[request.param]
    network = conv_chain_masked(space, IMAGE, CLASSES)
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(1), CHILDREN + 1))

    def gradient(variables, arch):
        def loss(params):
            logits, after = network.apply({**variables, "params": params}, arch, X, train=True)
            return -jax.nn.log_softmax(logits)[jnp.arange(4), Y].mean(), (logits, after["batch_stats"])

        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return grads, aux

    init = jax.jit(jax.vmap(network.init, (0, 0, None)), compiler_options=QUICK)
    variables = init(jax.random.split(jax.random.key(2), CHILDREN + 1), archs, X)
    together = jax.jit(jax.vmap(gradient), compiler_options=QUICK)
    return archs, variables, together, jax.jit(gradient, compiler_options=QUICK)


def take(tree, rows):
    return jax.tree.map(lambda leaf: leaf[np.asarray(rows)], tree)


@pytest.mark.slow
def test_vmapped_equals_single(population):
    archs, variables, together, alone = population
    batch = together(take(variables, range(CHILDREN)), archs[:CHILDREN])
    for i in range(CHILDREN):
        single = alone(take(variables, i), archs[i])
        for a, b in zip(jax.tree.leaves(take(batch, i)), jax.tree.leaves(single), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_child_does_not_see_its_neighbours(population):
    """Bit for bit: another architecture, other weights and even NaN beside it change nothing."""
    archs, variables, together, _ = population
    batch = together(take(variables, [0, 1, 2]), archs[:3])
    swapped = together(take(variables, [0, 3, 2]), archs[np.array([0, 3, 2])])
    broken = take(variables, [0, 1, 2])
    broken["params"]["layer0"]["kernel"] = broken["params"]["layer0"]["kernel"].at[1].set(jnp.nan)
    broken = together(broken, archs[:3])
    assert np.isnan(broken[1][0][1]).all()  # the logits of child 1
    for other in (swapped, broken):
        for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a[np.array([0, 2])], b[np.array([0, 2])])


def test_unused_weights_are_zero_and_get_no_gradient(population):
    archs, variables, together, _ = population
    grads, _ = together(take(variables, range(CHILDREN)), archs[:CHILDREN])
    unused = 0
    for name in grads:
        weight, grad = (np.asarray(tree[name]["kernel"])[:CHILDREN] for tree in (variables["params"], grads))
        assert not grad[weight == 0].any()
        unused += (weight == 0).sum()
    assert unused > 100
