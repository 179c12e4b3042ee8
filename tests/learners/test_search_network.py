"""Learners on the real search network at its smallest: parameter layout, edge weights.

A search in it runs by command: `tests/commands/test_cells.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.learners import msr_darts, pc_darts
from nasjax.learners.normalised import get
from nasjax.learners.search_layout import search_layout
from nasjax.nets.darts_cell.mixed import darts_search
from nasjax.spaces.darts_cell.plan import SearchPlan
from nasjax.spaces.darts_cell.space import CELLS, EDGES, OPERATORS

C, LAYERS, SIZE = 4, 3, 8
QUICK = {"xla_backend_optimization_level": 0}
X = jax.random.normal(jax.random.key(0), (8, SIZE, SIZE, 3))
INPUTS = np.array([node for _, node in EDGES])  # node j has j incoming edges


@pytest.mark.slow
def test_uniform_edge_weights_divide_by_the_number_of_inputs():
    """PC-DARTS with K = 1 and uniform beta is DARTS with every edge divided by its node's number of inputs."""
    network = darts_search(channels=C, layers=1, classes=3, partial=1)
    keys = jax.random.split(jax.random.key(1), 2)
    alpha = {cell: jax.random.normal(k, (14, 8)) for cell, k in zip(CELLS, keys, strict=True)}
    edges = {name: jnp.zeros(14) for name in ("normal_edges", "reduce_edges")}
    choice = pc_darts.edge_relaxation(len(OPERATORS)).choice(alpha | edges, None, 0)
    plain = {cell: choice[cell] / INPUTS[:, None] for cell in CELLS}
    variables = jax.jit(network.init)(jax.random.key(2), plain, X)
    run = jax.jit(lambda choice: network.apply(variables, choice, X, train=True)[0], compiler_options=QUICK)
    np.testing.assert_allclose(run(choice), run(plain), rtol=1e-4, atol=1e-5)
    assert not np.allclose(run(choice), run({cell: choice[cell] for cell in CELLS}), atol=1e-3)


@pytest.fixture(scope="module")
def network():
    """The search network of MSR-DARTS, and its layout."""
    network = darts_search(channels=C, layers=LAYERS, classes=3, operators=msr_darts.OPERATORS)
    return network, search_layout(SearchPlan(C, LAYERS, 3, operators=msr_darts.OPERATORS, image=(SIZE, SIZE, 3)))


@pytest.fixture(scope="module")
def params(network):
    ones = {cell: jnp.ones((14, 4)) for cell in CELLS}
    return jax.jit(lambda key: network[0].init(key, ones, X))(jax.random.key(3))["params"]


@pytest.mark.slow
def test_the_layout_has_every_kernel_of_every_operator_once(network, params):
    _, layout = network
    listed = [path for group in layout.convs for path in group.paths]
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    paths = [tuple(key.key for key in path) for path, _ in flat]
    assert sorted(listed) == sorted(path for path in paths if "conv" in path[-2] and path[0].startswith("cell"))
    for group in layout.convs:
        shapes = {array.shape[1:] for array in get(params, [group]).values()}
        assert len(shapes) == 1 and len(next(iter(shapes))) == (3 if group.depthwise else 2)
    strided = [path for group in layout.convs if group.stride == 2 for path in group.paths]
    assert {path[:2] for path in strided} == {(f"cell{k}", f"source{s}") for k in (1, 2) for s in (0, 1)}
    assert all(path[-1] == "depthwise1" for path in strided)


@pytest.mark.slow
def test_last_kernels_are_by_edge_and_operator(network, params):
    """Planted: every last kernel is the number of its edge and operator."""
    _, layout = network
    marked = jax.tree.map(jnp.zeros_like, params)
    for cell in range(LAYERS):
        for source in range(5):
            for o, operator in enumerate(msr_darts.OPERATORS):
                last = "pointwise2" if operator.startswith("sep") else "pointwise1"
                of = marked[f"cell{cell}"][f"source{source}"][operator]
                edges = [e for e, (start, _) in enumerate(EDGES) if start == source]
                of[last] = of[last] + jnp.array([100 * cell + 10 * e + o for e in edges])[:, None, None]
    entries = layout.last(marked)
    assert [(entry.cell, entry.size) for entry in entries] == [
        ("normal", (8, 8)),
        ("reduce", (4, 4)),
        ("reduce", (2, 2)),
    ]
    for cell, entry in enumerate(entries):
        expected = 100 * cell + 10 * np.arange(14)[:, None] + np.arange(4)[None]
        np.testing.assert_array_equal(entry.kernels[:, :, 0, 0], expected)


@pytest.mark.slow
def test_the_forward_pass_sees_the_maps_that_the_layout_says(network, params, monkeypatch):
    """Every depthwise convolution of the network, by shape of map, window, stride and dilation."""
    from nasjax.nets.darts_cell import mixed as module

    seen, true = set(), module.depthwise_conv2d

    def spy(x, w, stride=1, dilation=1):
        seen.add((x.shape[1:3], w.shape[0], stride, dilation))
        return true(x, w, stride, dilation)

    monkeypatch.setattr(module, "depthwise_conv2d", spy)
    variables = jax.eval_shape(
        lambda key: network[0].init(key, {c: jnp.ones((14, 4)) for c in CELLS}, X), jax.random.key(0)
    )
    jax.eval_shape(lambda v: network[0].apply(v, {c: jnp.ones((14, 4)) for c in CELLS}, X, train=True), variables)
    listed = {
        (group.size, array.shape[1], group.stride, group.dilation)
        for group in network[1].convs
        if group.depthwise
        for array in get(params, [group]).values()
    }
    assert seen == listed
