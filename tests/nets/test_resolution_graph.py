"""The network of a graph over resolutions: counts, values, its parts, and what inheritance needs of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasjax.nets.resolution_graph.network import resolution_graph
from nasjax.ops.parts import part_of, through, with_part
from nasjax.spaces.resolution_graph.change import Mutations, mutant
from nasjax.spaces.resolution_graph.form import from_tree
from nasjax.spaces.resolution_graph.named import NAMED
from nasjax.spaces.resolution_graph.plan import GraphPlan
from nasjax.spaces.resolution_graph.space import ResolutionGraph

QUICK = {"xla_backend_optimization_level": 0}
SPACE = ResolutionGraph(3, 20, 60, channels=(2,), expansions=(2,), min_params=100, max_params=100_000)
EVERY_OPERATOR = {
    "space": "resolution_graph",
    "channels": 2,
    "nodes": [
        {"id": 0, "level": 0, "order": 0, "op": None},
        {"id": 4, "level": 1, "order": 1, "op": "mbv2", "kernel": 5, "expansion": 2},
        {"id": 5, "level": 2, "order": 2, "op": "resnet"},
        {"id": 6, "level": 1, "order": 3, "op": "resnet"},
        {"id": 9, "level": 0, "order": 4, "op": "mbv2", "kernel": 3, "expansion": 3},
    ],
    "edges": [
        {"id": 0, "src": 0, "dst": 4, "op": "mbv2_s2"},
        {"id": 1, "src": 4, "dst": 5, "op": "maxpool"},
        {"id": 2, "src": 5, "dst": 6, "op": "upsample"},
        {"id": 3, "src": 4, "dst": 6, "op": "identity"},
        {"id": 7, "src": 6, "dst": 9, "op": "transconv"},
        {"id": 8, "src": 0, "dst": 9, "op": "identity"},
    ],
}
SUPERVISED = {  # a small UNet++ with a head on its middle node
    "space": "resolution_graph",
    "channels": 2,
    "nodes": [{"id": i, "level": level, "order": i, "op": "vgg"} for i, level in enumerate((0, 1, 0, 0))],
    "edges": [
        {"id": i, "src": src, "dst": dst, "op": op}
        for i, (src, dst, op) in enumerate(
            [(0, 1, "maxpool"), (0, 2, "identity"), (1, 2, "upsample"), (0, 3, "identity"), (2, 3, "identity")]
        )
    ],
    "supervised": [2],
}


class Programs:
    """Parts compiled once per `apply`, as the host runs them: forward with what the backward pass needs."""

    def __init__(self):
        self.forward, self.evaluation = {}, {}
        self.backward = jax.jit(lambda pull, slopes: pull(slopes), compiler_options=QUICK)

    def evaluate(self, network, variables, x):
        def run(i, part, inputs):
            program = jax.jit(lambda v, inputs: part.apply(v, (), inputs)[0], compiler_options=QUICK)
            return self.evaluation.setdefault(part.apply, program)(part_of(variables, part), inputs)

        return through(network.parts, run, x)

    def compiled(self):
        return sum(program._cache_size() for program in self.forward.values()) + self.backward._cache_size()

    def of(self, part):
        def forward(variables, inputs):
            def run(params, inputs):
                outputs, after = part.apply({**variables, "params": params}, (), inputs, train=True)
                return outputs, after.get("batch_stats", {})

            outputs, pull, stats = jax.vjp(run, variables.get("params", {}), inputs, has_aux=True)
            return outputs, pull, stats

        return self.forward.setdefault(part.apply, jax.jit(forward, compiler_options=QUICK))

    def gradient(self, network, variables, x, slope):
        """Outputs, gradients of <slope, outputs> by the parameters, statistics after."""
        pulls, after, gradients = [], variables, {"params": {}}

        def run(i, part, inputs):
            nonlocal after
            own = part_of(variables, part)
            outputs, pull, stats = self.of(part)(own, inputs)
            after = with_part(after, part, {"batch_stats": stats} if stats else {})
            pulls.append(pull)
            return outputs

        y = through(network.parts, run, x)
        slopes = {"y": slope(y)}
        for part, pull in zip(reversed(network.parts), reversed(pulls), strict=True):
            by_params, by_inputs = self.backward(pull, tuple(slopes.pop(name) for name in part.writes))
            gradients = with_part(gradients, part, {"params": by_params} if by_params else {})
            for name, value in zip(part.reads, by_inputs, strict=True):
                slopes[name] = slopes[name] + value if name in slopes else value
        return y, gradients["params"], after["batch_stats"]


PROGRAMS = Programs()


class Subject:
    """A network with variables that are not those of its birth, and its passes."""

    def __init__(self, tree, image=(8, 8, 3), **options):
        self.plan = GraphPlan(from_tree(tree), image)
        self.network = resolution_graph(self.plan, **options)
        self.x = jax.random.normal(jax.random.key(9), (4, *image))
        self.variables = spread(self.network.init(jax.random.key(0), None, self.x))
        self.whole = jax.jit(lambda v, x: self.network.apply(v, None, x), compiler_options=QUICK)

    def test(self, variables, x):
        return PROGRAMS.evaluate(self.network, variables, x)

    def train(self, variables, x):
        y, _, stats = PROGRAMS.gradient(self.network, variables, x, squares)
        return y, {**variables, "batch_stats": stats}


def spread(variables):
    """Scales, shifts and statistics of all sizes, so that none of them can be forgotten."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [
        x + 0.3 * jax.random.uniform(key, x.shape) if x.ndim == 1 else x for key, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


@pytest.fixture(scope="module")
def every():
    return Subject(EVERY_OPERATOR)


@pytest.fixture(scope="module")
def supervised():
    return Subject(SUPERVISED)


def size(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", [*NAMED, "every", "supervised"])
def test_the_plan_counts_the_parameters_of_the_network(name):
    tree = {**NAMED, "every": EVERY_OPERATOR, "supervised": SUPERVISED}[name]
    plan = GraphPlan(from_tree(tree), (32, 32, 3), 2)
    variables = resolution_graph(plan).init(jax.random.key(0), None, jnp.zeros((1, 32, 32, 3)))
    assert size(variables) == plan.params
    own = {key: sum(x.size for x in jax.tree.leaves(tree)) for key, tree in variables["params"].items()}
    assert own == {key: counts.params for key, counts in plan.blocks.items() if counts.params}


def test_counts_of_any_individual():
    space = ResolutionGraph(channels=(2, 4), kernels=(3, 5), expansions=(3, 6), min_params=1000, colours=1)
    rng = np.random.default_rng(0)
    for _ in range(12):
        graph = space._mutant(rng, space._any(rng))
        plan = GraphPlan(graph, (16, 16, 1))
        assert size(resolution_graph(plan).init(jax.random.key(0), None, jnp.zeros((1, 16, 16, 1)))) == plan.params


@pytest.mark.slow
def test_values_against_plain_convolutions(every):
    """The graph by hand, from `lax` and numpy alone, in evaluation."""
    logits = every.test(every.variables, every.x)
    assert logits.shape == (4, 8, 8, 1) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, by_hand(every.variables, every.x), rtol=1e-4, atol=1e-5)


@functools.partial(jax.jit, compiler_options=QUICK)
def by_hand(variables, x):
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, w, stride=1, groups=1):
        pads = [(w.shape[0] // 2,) * 2] * 2
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (stride,) * 2, pads, None, None, names, groups, precision="highest")

    def norm(x, *path):
        p, s = params, stats
        for name in path:
            p, s = p[name], s[name]
        scaled = (x - s["mean"]) / jnp.sqrt(s["var"] + 1e-5)
        return scaled * p["gamma"] + p["beta"]

    def mobile(x, name, stride):
        own = params[name]
        x = jnp.clip(norm(conv(x, own["conv0"]["pointwise"][None, None]), name, "conv0"), 0, 6)
        kernel = own["conv1"]["depthwise"][:, :, None]
        x = jnp.clip(norm(conv(x, kernel, stride, x.shape[-1]), name, "conv1"), 0, 6)
        return norm(conv(x, own["conv2"]["pointwise"][None, None]), name, "conv2")

    def residual(x, name):
        y = jax.nn.relu(norm(conv(x, params[name]["conv0"]["conv"]), name, "conv0"))
        return jax.nn.relu(x + norm(conv(y, params[name]["conv1"]["conv"]), name, "conv1"))

    def merged(name, *edges):
        total = sum(x @ params[edge]["merge"]["pointwise"] for edge, x in edges)
        return jax.nn.relu(norm(total, name, "norm"))

    def interpolated(x):
        for axis in (1, 2):
            n = x.shape[axis]
            at = np.arange(2 * n) * (n - 1) / (2 * n - 1)
            matrix = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)))
            x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
        return x

    with jax.numpy_rank_promotion("allow"):
        n0 = jax.nn.relu(norm(conv(x, params["node0"]["conv0"]["conv"]), "node0", "conv0"))
        n4 = merged("node4", ("edge0", mobile(n0, "edge0", 2)))
        n4 = n4 + mobile(n4, "node4", 1)
        pooled = lax.reduce_window(n4, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        n5 = residual(merged("node5", ("edge1", pooled)), "node5")
        n6 = residual(merged("node6", ("edge2", interpolated(n5)), ("edge3", n4)), "node6")
        own = params["edge7"]["conv0"]
        tiles = jnp.einsum("bhwi,klio->bhkwlo", n6, own["transposed"]).reshape(4, 8, 8, 2) + own["bias"]
        n9 = merged("node9", ("edge7", tiles), ("edge8", n0))
        n9 = n9 + mobile(n9, "node9", 1)
        return n9 @ params["head9"]["pointwise"] + params["head9"]["bias"]


@pytest.mark.slow
def test_training_uses_the_batch_and_moves_only_statistics(every):
    logits, after = every.train(every.variables, every.x)
    assert not np.allclose(logits[0], every.test(every.variables, every.x)[0], rtol=1e-2)
    assert all(map(np.array_equal, *(jax.tree.leaves(v["params"]) for v in (after, every.variables))))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, every.variables)
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), after["batch_stats"], every.variables["batch_stats"])
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_evaluation_treats_images_one_by_one(every):
    other = every.x.at[1:].mul(3.0)
    both = [every.test(every.variables, x)[0] for x in (every.x, other)]
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_initial_values_depend_on_the_key_alone(every):
    first, again, other = (every.network.init(jax.random.key(k), None, every.x) for k in (0, 0, 1))
    assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(again)))
    kernel = first["params"]["node5"]["conv0"]["conv"]
    assert not np.array_equal(kernel, other["params"]["node5"]["conv0"]["conv"])
    assert 0.9 * 72**-0.5 < np.abs(kernel).max() <= 72**-0.5  # 1 / sqrt(fan-in)
    assert 0.4 < np.abs(first["params"]["edge1"]["merge"]["pointwise"]).max() <= 0.5
    shapes = jax.eval_shape(every.network.init, jax.random.key(0), None, every.x)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, first)


@pytest.mark.slow
def test_sides_that_cannot_be_halved_are_padded_and_cropped(every):
    x = every.x[:, :7, :6]
    padded = jnp.pad(x, [(0, 0), (0, 1), (0, 2), (0, 0)], mode="edge")
    logits = every.test(every.variables, x)
    assert logits.shape == (4, 7, 6, 1)
    np.testing.assert_allclose(logits, every.test(every.variables, padded)[:, :7, :6], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_deep_supervision(supervised):
    """In training the logits of every head, else their mean."""
    each, _ = supervised.train(supervised.variables, supervised.x)
    assert [logits.shape for logits in each] == [(4, 8, 8, 1)] * 2
    variables = supervised.variables
    assert set(variables["params"]) == {"node0", "node1", "node2", "node3", "head2", "head3"}
    both, after = supervised.whole(variables, supervised.x)
    assert all(map(np.array_equal, jax.tree.leaves(after), jax.tree.leaves(variables)))
    np.testing.assert_allclose(both, supervised.test(variables, supervised.x), rtol=1e-5, atol=1e-6)
    silent = {**variables["params"], "head2": jax.tree.map(jnp.zeros_like, variables["params"]["head2"])}
    last = 2 * supervised.test({**variables, "params": silent}, supervised.x)
    plain = from_tree({key: value for key, value in SUPERVISED.items() if key != "supervised"})
    alone = PROGRAMS.evaluate(resolution_graph(GraphPlan(plain, (8, 8, 3))), variables, supervised.x)
    assert both.shape == (4, 8, 8, 1) and not np.allclose(both, last, atol=1e-2)
    np.testing.assert_allclose(last, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_half_precision_keeps_logits_and_variables_in_single(every):
    subject = Subject(EVERY_OPERATOR, dtype="bfloat16")
    logits, after = subject.train(subject.variables, subject.x)
    assert logits.dtype == jnp.float32 and {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(logits, every.train(every.variables, every.x)[0], atol=0.15)
    with pytest.raises(ValueError, match="unknown dtype"):
        resolution_graph(subject.plan, dtype="int8")


def squares(y):
    """Slopes of the sum of squares."""
    return jax.tree.map(lambda logits: 2 * logits, y)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["every", "supervised"])
def test_parts_are_the_whole(name, request):
    subject = request.getfixturevalue(name)
    network, variables, x = subject.network, subject.variables, subject.x

    def loss(params):
        y, after = network.apply({**variables, "params": params}, None, x, train=True)
        return sum((logits**2).sum() for logits in jax.tree.leaves(y)), (y, after["batch_stats"])

    expected, (y, stats) = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)(variables["params"])
    found = PROGRAMS.gradient(network, variables, x, squares)
    assert jax.tree.structure((y, expected, stats)) == jax.tree.structure(found)
    for a, b in zip(jax.tree.leaves((y, expected, stats)), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # of sums of 256 squares


def kinds(network):
    """What is a program of its own: `apply`, and how many inputs it has."""
    return {(part.apply, len(part.reads)) for part in network.parts}


def test_a_graph_never_seen_before_is_made_of_known_programs():
    """A hundred graphs of the published size have few programs among them, and all later ones nothing but those."""
    space = ResolutionGraph()
    rng, known, found = np.random.default_rng(0), set(), []
    for _ in range(150):
        graph = space._any(rng)
        for _ in range(int(rng.integers(10))):
            graph = space._mutant(rng, graph)
        new = kinds(resolution_graph(GraphPlan(graph))) - known
        found.append(len(new))
        known |= new
    # 5 levels x 2 operators; 8 ways down, 8 up, 5 along, each the first in its sum or not; 3 stems, a head.
    assert len(known) <= 10 + 2 * (8 + 8 + 5) + 3 + 1
    assert found[0] > 10 and sum(found[100:]) <= 1


@pytest.mark.slow
def test_a_graph_never_seen_before_compiles_nothing():
    space = dataclasses.replace(SPACE, node_ops=("resnet",), down_ops=("maxpool",), up_ops=("upsample",))
    rng, programs, known, new, later = np.random.default_rng(2), Programs(), set(), 0, 0
    x = jnp.ones((2, 4, 4, 3))
    while later < 2:
        graph = space._any(rng)
        for _ in range(6):
            graph = space._mutant(rng, graph)
        network = resolution_graph(GraphPlan(graph, (4, 4, 3)))
        new, known = len(kinds(network) - known), known | kinds(network)
        before = programs.compiled()
        programs.gradient(network, network.init(jax.random.key(0), None, x), x, squares)
        assert (programs.compiled() > before) == (new > 0)
        later += not new
    assert len(known) > 10


def copied(child, parent, graph, old):
    """The child's variables: the parent's by name, kernels of new edges into old nodes zero."""
    nodes = {node.id for node in old.nodes}
    params = {**child["params"], **{k: v for k, v in parent["params"].items() if k in child["params"]}}
    for edge in graph.edges:
        if f"edge{edge.id}" not in parent["params"] and edge.dst in nodes:
            zero = jax.tree.map(jnp.zeros_like, params[f"edge{edge.id}"]["merge"])
            params[f"edge{edge.id}"] = {**params[f"edge{edge.id}"], "merge": zero}
    stats = {**child["batch_stats"], **{k: v for k, v in parent["batch_stats"].items() if k in child["batch_stats"]}}
    return {"params": params, "batch_stats": stats}


@pytest.mark.slow
@pytest.mark.parametrize("only", [Mutations(0, 1, 0, 0, 0, 0, 0), Mutations(1, 0, 0, 0, 0, 0, 0)], ids=["node", "edge"])
def test_a_pure_addition_with_zero_kernels_computes_what_its_parent_does(only, every):
    """And after one step of training the kernels into and out of a new node are not zero: it is not dead."""
    graph = mutant(np.random.default_rng(0), every.plan.graph, SPACE._choices, only)
    plan = GraphPlan(graph, every.plan.image)
    network = resolution_graph(plan)
    variables = copied(network.init(jax.random.key(3), None, every.x), every.variables, graph, every.plan.graph)
    logits = PROGRAMS.evaluate(network, variables, every.x)
    np.testing.assert_allclose(logits, every.test(every.variables, every.x), atol=1e-5)

    _, slopes, _ = PROGRAMS.gradient(network, variables, every.x, squares)
    new = [f"edge{edge.id}" for edge in graph.edges if f"edge{edge.id}" not in every.variables["params"]]
    assert len(new) == (2 if only.add_node else 1)
    for name in new:
        kernel = variables["params"][name]["merge"]["pointwise"] - 1e-3 * slopes[name]["merge"]["pointwise"]
        assert (np.abs(kernel) > 0).mean() > 0.4  # a ReLU may be off everywhere


BASELINES = Programs()  # which they share: their parts are alike


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_baselines_train(name):
    subject = Subject(NAMED[name], (32, 32, 3))
    y, gradients, _ = BASELINES.gradient(subject.network, subject.variables, subject.x, squares)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
