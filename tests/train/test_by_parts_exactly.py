"""Training part by part equals training as a whole to float64's rounding; kernels of other sizes; who refuses what."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.evaluators.cost_model import choose_strategy
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.nets.resolution_graph.inherit import inherit
from nasjax.nets.resolution_graph.network import resolution_graph
from nasjax.problem.builders.resolution_graph import BUILDER
from nasjax.problem.builders.resolution_graph import RECIPE as GRAPHS
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import Genotype
from nasjax.spaces.resolution_graph.form import from_tree
from nasjax.spaces.resolution_graph.plan import GraphPlan
from nasjax.tasks import classification
from nasjax.tasks.segmentation import TASK
from nasjax.train.augment import Augment
from nasjax.train.by_parts import by_parts
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, trainer
from nasjax.types import Signature

pytestmark = pytest.mark.slow  # compiles for minutes

KEY = jax.random.key(0)
IMAGE = (4, 4, 1)
SMALL = {  # every kind of batch norm and two edges into the last node
    "space": "resolution_graph",
    "channels": 2,
    "nodes": [
        {"id": 0, "level": 0, "order": 0, "op": None},
        {"id": 3, "level": 1, "order": 1, "op": "mbv2", "kernel": 3, "expansion": 2},
        {"id": 5, "level": 0, "order": 2, "op": "resnet"},
    ],
    "edges": [
        {"id": 0, "src": 0, "dst": 3, "op": "maxpool"},
        {"id": 1, "src": 3, "dst": 5, "op": "upsample"},
        {"id": 4, "src": 0, "dst": 5, "op": "identity"},
    ],
}
SUPERVISED = {  # a head on its middle node, too: outputs are a tuple in training
    "space": "resolution_graph",
    "channels": 2,
    "nodes": [{"id": i, "level": 0, "order": i, "op": "vgg"} for i in range(3)],
    "edges": [{"id": i, "src": i, "dst": i + 1, "op": "identity"} for i in range(2)],
    "supervised": [1],
}
_PAIRS = (
    ("skip_connect", 0),
    ("sep_conv_3x3", 1),
    ("max_pool_3x3", 0),
    ("skip_connect", 2),
    ("skip_connect", 1),
    ("skip_connect", 0),
    ("dil_conv_3x3", 3),
    ("avg_pool_3x3", 1),
)
CELLS = Genotype(normal=_PAIRS, reduce=_PAIRS)
PLAIN = Recipe(epochs=2, batch_size=4, learning_rate=0.1, weight_decay=0.01, augment=Augment(crop="none", rotate=True))
CASES = {
    "sgd": (SMALL, {"bn_momentum": 0.7, "warmup_epochs": 2}),
    "heads and adam": (SUPERVISED, {"optimizer": "adam", "learning_rate": 1e-2, "decay_on": "kernels"}),
    "clip": (SMALL, {"clip": 0.1, "optimizer": "rmsprop", "learning_rate": 1e-3, "schedule": "cosine"}),
}


def data():
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (13, *IMAGE)).astype(np.uint8)
    return split(x, (x > 128).astype(np.uint8))


def split(x, y):
    parts = x[:8], y[:8], x[8:], y[8:]
    return Data(*(jnp.asarray(part) for part in parts), jnp.float32([0.5]), jnp.float32([0.3]))


@pytest.mark.parametrize("name", CASES)
def test_by_parts_equals_the_whole_in_float64(name):
    """Four steps and two validations: weights, statistics and curves."""
    tree, more = CASES[name]
    both(resolution_graph(GraphPlan(from_tree(tree), IMAGE)), dataclasses.replace(PLAIN, **more), TASK, data())


def test_an_evaluation_network_of_cells_does_so_too():
    """With drop path, which draws for all operators at once, and the identity, which is no part."""
    cells = DartsPlan(CELLS, channels=2, layers=2, classes=3, image=(6, 4, 1))
    recipe = dataclasses.replace(PLAIN, drop_path=0.5, clip=1.0, augment=Augment(crop="none"))
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (13, *cells.image)).astype(np.uint8), random.integers(0, 3, 13).astype(np.int32)
    both(darts_eval(cells), recipe, classification.TASK, split(x, y), rtol=1e-5)  # by parts the drop rate is float32


def both(network, recipe, task, data, rtol=1e-6):
    """Trains as a whole and by parts, and compares."""
    with jax.enable_x64(True):
        variables = network.init(KEY, None, jnp.zeros((1, *data.train_x.shape[1:]), jnp.float64))
        whole = trainer(network, recipe, 8, variables, task)
        quick = jax.jit(whole.run, compiler_options={"xla_backend_optimization_level": 0})
        rate = jnp.float32(recipe.learning_rate)
        expected = quick(KEY, whole.start(variables), None, rate, data, 0, whole.steps)
        parts = by_parts(network, recipe, 8, task)
        found = parts.run(KEY, parts.start(variables), None, recipe.learning_rate, data, 0, parts.steps)
        assert parts.steps == whole.steps == int(found.step) == 2 * recipe.epochs
        last = data.valid_x, data.valid_y, data.mean, data.std
        np.testing.assert_allclose(parts.measure(parts.variables(found), None, *last), found.valid_metric[-1])
        a, b = (jax.tree.map(np.asarray, each) for each in (parts.variables(found), whole.variables(expected)))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == np.float64
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-3 * rtol)
    for curve in ("train_loss", "valid_metric", "nan_epoch"):
        np.testing.assert_allclose(getattr(found, curve), getattr(expected, curve), rtol=rtol)
    assert np.all(found.train_loss > 0)


def test_a_loss_that_is_not_finite_has_the_same_epoch():
    recipe = dataclasses.replace(PLAIN, learning_rate=1e30)
    network = resolution_graph(GraphPlan(from_tree(SMALL), IMAGE))
    parts = by_parts(network, recipe, 8, TASK)
    state = parts.start(network.init(KEY, None, jnp.zeros((1, *IMAGE))))
    state = parts.run(KEY, state, None, recipe.learning_rate, data(), 0, parts.steps)
    assert int(state.nan_epoch) == 1


def changed(**node):
    nodes = [{**row, **node} if row["id"] == 3 else row for row in SMALL["nodes"]]
    return GraphPlan(from_tree({**SMALL, "nodes": nodes}), IMAGE)


def weights(plan, seed):
    """Variables of which no two values are equal."""
    shapes = resolution_graph(plan).init(KEY, None, jnp.zeros((1, *IMAGE)))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.random(leaf.shape).astype(np.float32), shapes)


def test_a_larger_kernel_has_the_old_one_in_its_middle():
    parent, child = changed(), changed(kernel=5)
    old, fresh = weights(parent, 0), weights(child, 1)
    born, share = inherit(child, parent, fresh, old)
    kernel = born["params"]["node3"]["conv1"]["depthwise"]
    np.testing.assert_array_equal(kernel[1:4, 1:4], old["params"]["node3"]["conv1"]["depthwise"])
    np.testing.assert_array_equal(kernel[0], fresh["params"]["node3"]["conv1"]["depthwise"][0])
    back = inherit(parent, child, old, fresh)[0]["params"]["node3"]["conv1"]["depthwise"]
    np.testing.assert_array_equal(back, fresh["params"]["node3"]["conv1"]["depthwise"][1:4, 1:4])
    stats = born["batch_stats"]["node3"]
    for layer, source in (("norm", old), ("conv0", old), ("conv1", fresh), ("conv2", old)):
        np.testing.assert_array_equal(stats[layer]["var"], source["batch_stats"]["node3"][layer]["var"], layer)
    assert share == pytest.approx(1 - 16 * 8 / child.params)  # 16 taps of 8 channels are new


def test_a_wider_expansion_begins_with_the_old_channels():
    parent, child = changed(), changed(expansion=3)
    old, fresh = weights(parent, 0), weights(child, 1)
    born, _ = inherit(child, parent, fresh, old)
    for layer, kind, common in (("conv0", "pointwise", np.s_[:, :8]), ("conv2", "pointwise", np.s_[:8])):
        own, theirs, new = (tree["params"]["node3"][layer][kind] for tree in (born, old, fresh))
        np.testing.assert_array_equal(own[common], theirs)
        rest = np.ones(own.shape, bool)
        rest[common] = False
        np.testing.assert_array_equal(own[rest], new[rest])
    np.testing.assert_array_equal(
        born["batch_stats"]["node3"]["conv0"]["mean"], fresh["batch_stats"]["node3"]["conv0"]["mean"]
    )


def test_edges_into_new_nodes_are_fresh_and_others_zero():
    nodes = [*SMALL["nodes"][:2], {"id": 6, "level": 1, "order": 2, "op": "resnet"}, {**SMALL["nodes"][2], "order": 3}]
    edges = [
        *SMALL["edges"],
        {"id": 5, "src": 3, "dst": 6, "op": "identity"},
        {"id": 6, "src": 6, "dst": 5, "op": "transconv"},
    ]
    parent, child = changed(), GraphPlan(from_tree({**SMALL, "nodes": nodes, "edges": edges}), IMAGE)
    old, fresh = weights(parent, 0), weights(child, 1)
    born, share = inherit(child, parent, fresh, old)
    into, out = (born["params"][name]["merge"]["pointwise"] for name in ("edge5", "edge6"))
    np.testing.assert_array_equal(into, fresh["params"]["edge5"]["merge"]["pointwise"])
    assert not out.any()
    np.testing.assert_array_equal(
        born["params"]["edge6"]["conv0"]["transposed"], fresh["params"]["edge6"]["conv0"]["transposed"]
    )
    assert share == pytest.approx(parent.params / child.params)


def test_an_edge_with_another_operator_is_fresh():
    edges = [{**row, "op": "mbv2_s2"} if row["id"] == 0 else row for row in SMALL["edges"]]
    parent, child = changed(), GraphPlan(from_tree({**SMALL, "edges": edges}), IMAGE)
    old, fresh = weights(parent, 0), weights(child, 1)
    born, _ = inherit(child, parent, fresh, old)
    for kind in ("params", "batch_stats"):
        for x, y in zip(*(jax.tree.leaves(tree[kind]["edge0"]) for tree in (born, fresh)), strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(born["params"]["node3"]["norm"]["beta"], old["params"]["node3"]["norm"]["beta"])


def test_auto_trains_by_parts_where_the_recipe_allows_it():
    signature = Signature(jax.ShapeDtypeStruct((16, 16, 1), jnp.float32), 1)
    built = BUILDER.build(BUILDER.default, None, SMALL, signature)
    recipe = dataclasses.replace(GRAPHS, epochs=2)
    assert choose_strategy([built], None, recipe, 32, "cpu")[0] == "parts"
    refreshed = dataclasses.replace(recipe, refresh_epochs=1)
    assert choose_strategy([built], None, refreshed, 32, "cpu")[0] == "exact"
