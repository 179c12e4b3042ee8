"""NASWOT: the kernel of ReLU codes and its score, over every kind of network."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.evaluators.zero_cost import agreement, naswot, relu_inputs, relu_kernel, score
from nasjax.nets.choice_chain.network import choice_chain
from nasjax.nets.conv_chain.masked import conv_chain_masked
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.nets.resolution_graph.network import resolution_graph
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import MOBILE, ChoiceChain
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import DartsCell, genotype
from nasjax.spaces.resolution_graph.plan import GraphPlan
from nasjax.spaces.resolution_graph.space import ResolutionGraph
from nasjax.types import Network, Proposal, Status

X = jax.random.normal(jax.random.key(9), (6, 8, 8, 2))
CHAINS = ConvChain(1, 2, filter_heights=(1, 3), filter_widths=(1, 3), filter_counts=(2, 4))
CHOICES = ChoiceChain(
    "mobile", stem=4, stem_stride=2, channels=(4,), depths=(1,), strides=(1,), tail=4, operators=MOBILE[:2]
)
GRAPHS = ResolutionGraph(
    2, 8, 16, ("resnet",), ("maxpool",), ("upsample",), channels=(2,), min_params=10, max_params=3000, colours=2
)


def test_two_codes_and_three():
    """By hand: 4 codes, of which 2 differ, and the three codes 1011, 1101, 0010."""
    two = agreement(jnp.array([[1.0, 1, 1, 1], [1, 1, -1, 0]]))
    assert two.tolist() == [[4, 2], [2, 4]] and score(two) == pytest.approx(2.484907, abs=1e-6)
    three = agreement(jnp.array([[1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 1, 0.0]]) - 0.5)
    assert three.tolist() == [[4, 2, 2], [2, 4, 0], [2, 0, 4]]
    assert score(three) == pytest.approx(3.465736, abs=1e-6)
    np.testing.assert_allclose(score(np.stack([three, np.eye(3, dtype=int)])), [np.log(32), 0], atol=1e-12)


def test_equal_images_have_no_finite_score():
    codes = jax.random.normal(jax.random.key(0), (5, 40))
    assert np.isfinite(score(agreement(codes)))
    assert score(agreement(codes.at[3].set(codes[1]))) == -np.inf


def test_every_form_of_a_relu_is_seen_once_and_nothing_else():
    def function(x):
        a = jax.nn.relu(x) + jnp.clip(2 * x, 0, 6)
        b = jnp.maximum(3 * x, 0) + jnp.maximum(0.0, 4 * x) + jax.jit(lambda x: nn.relu(x))(5 * x)
        c = jnp.maximum(x, x[::-1]) + jnp.clip(x, -1, 1) + jnp.maximum(x, 1.0) + jax.nn.sigmoid(x)
        return a + b, c + jax.checkpoint(lambda x: jax.nn.relu6(x))(6 * x)

    x = jnp.array([[-1.0, 0.5], [2.0, -3.0]])
    outputs, found = jax.jit(partial(relu_inputs, function))(x)
    for a, b in zip(outputs, function(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert sorted(float(z[0, 1] / 0.5) for z in found) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="a ReLU inside scan cannot be seen"):
        relu_inputs(lambda x: jax.lax.scan(lambda c, _: (jax.nn.relu(c), None), x, length=2)[0], x)


def chain(arch):
    return conv_chain(plan(CHAINS, arch, X.shape[1:], 3)), None


def masked(arch):
    network = conv_chain_masked(CHAINS, X.shape[1:], 3)
    return network._replace(init=jax.jit(network.init)), jnp.asarray(arch)


def cells(arch):
    form = DartsPlan(genotype(DartsCell().encode(arch)), channels=2, layers=1, classes=3, image=X.shape[1:])
    return darts_eval(form), None


def path(arch):
    return choice_chain(ChoicePlan(CHOICES, X.shape[1:], 3), arch), None


def graph(arch):
    return resolution_graph(GraphPlan(GRAPHS.graph(arch), X.shape[1:])), None


NETWORKS = {
    "conv_chain": (chain, CHAINS),
    "conv_chain_masked": (masked, CHAINS),
    "darts_cell": (cells, DartsCell()),
    "choice_chain": (path, CHOICES),
    "resolution_graph": (graph, GRAPHS),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_kernel(name):
    build, space = NETWORKS[name]
    arch = np.asarray(space.sample(jax.random.key(1)))
    network, choice = build(arch)
    variables = network.init(jax.random.key(0), choice, X)
    kernel = np.asarray(relu_kernel(network, variables, choice, X))
    assert kernel.shape == (6, 6) and kernel.dtype == np.int32
    np.testing.assert_array_equal(kernel, kernel.T)
    assert len(set(np.diag(kernel).tolist())) == 1 and kernel[0, 0] == relus(name, space, arch)
    assert (kernel >= 0).all() and (kernel < kernel[0, 0]).sum() == 30 and np.isfinite(score(kernel))


def relus(name, space, arch):
    """ReLUs of one image, counted from the architecture."""
    if name == "conv_chain":
        return sum(64 * layer["num_filters"] for layer in space.encode(arch)["layers"])
    if name == "conv_chain_masked":  # every layer of the widest chain; what is masked is off for all images
        return 2 * 64 * 4
    if name == "choice_chain":
        return 16 * (4 + 4 + 2 * 4 * int(MOBILE[arch[0]][-1]))  # stem, tail, and twice in the block
    if name == "resolution_graph":
        nodes = space.graph(arch).nodes
        places = [(64 >> 2 * node.level) * 2 << node.level for node in nodes]
        return places[0] + 3 * sum(places[1:])  # behind the merge, inside the block, behind it
    return _cell_relus(space.encode(arch))


def _cell_relus(tree):
    """Of a network of one cell: two inputs, then those of the operators."""
    (cell,) = DartsPlan(genotype(tree), 2, 1, 3, image=X.shape[1:]).cells
    total = 2 * 64 * 6  # the stem has 3 x 2 channels
    for operator, source in tree[cell.kind]:
        stride = 2 if cell.kind == "reduce" and source < 2 else 1
        places = 64 if cell.kind == "normal" or source < 2 else 16
        if operator.startswith("sep"):
            total += (places + places // stride**2) * cell.channels
        elif operator.startswith("dil") or (operator == "skip_connect" and stride == 2):
            total += places * cell.channels
    return total


@pytest.mark.slow
def test_parts_give_the_kernel_of_the_whole():
    network, _ = graph(np.asarray(GRAPHS.sample(jax.random.key(3))))
    variables = network.init(jax.random.key(0), None, X)
    whole = relu_kernel(network._replace(parts=()), variables, None, X)
    np.testing.assert_array_equal(relu_kernel(network, variables, None, X), whole)


@pytest.mark.slow
def test_many_choices_are_one_vmap():
    network = conv_chain_masked(CHAINS, X.shape[1:], 3)
    archs = jnp.stack([CHAINS.sample(jax.random.key(i)) for i in range(3)])
    keys = jax.random.split(jax.random.key(0), 3)
    variables = jax.jit(jax.vmap(network.init, (0, 0, None)))(keys, archs, X)
    together = jax.jit(jax.vmap(lambda v, a: relu_kernel(network, v, a, X)))(variables, archs)
    for i in range(3):
        alone = relu_kernel(network, jax.tree.map(lambda leaf, i=i: leaf[i], variables), archs[i], X)
        np.testing.assert_array_equal(together[i], alone)


@pytest.mark.slow
def test_the_evaluator_scores_proposals_in_any_order():
    archs = np.stack([np.asarray(GRAPHS.sample(jax.random.key(i))) for i in range(3)])
    proposal = Proposal(np.array([4, 5, -1]), archs, np.full(3, -1))
    evaluator = naswot(graph, X)
    evaluation, artifacts = evaluator.evaluate(jax.random.key(0), proposal, None)
    assert artifacts is None and np.isfinite(evaluation.fitness[:2]).all() and np.isnan(evaluation.fitness[2])
    assert (evaluation.status == Status.OK).all() and (evaluation.cost[:2] > 0).all()
    again, _ = evaluator.evaluate(jax.random.key(0), jax.tree.map(lambda x: x[::-1], proposal), None)
    np.testing.assert_array_equal(again.fitness[::-1], evaluation.fitness)
    network, _ = graph(archs[1])
    variables = network.init(jax.random.fold_in(jax.random.key(0), 5), None, X)
    assert evaluation.fitness[1] == np.float32(score(relu_kernel(network, variables, None, X)))


@pytest.mark.slow
def test_failures_are_results():
    archs = np.stack([np.asarray(GRAPHS.sample(jax.random.key(i))) for i in range(2)])
    proposal = Proposal(np.arange(2), archs, np.full(2, -1))
    twins = jnp.concatenate([X[:2], X[:1]])
    evaluation, _ = naswot(graph, twins).evaluate(jax.random.key(0), proposal, None)
    assert (evaluation.status == Status.FAILED).all() and np.isnan(evaluation.fitness).all()
    assert "equal codes" in evaluation.info["error"][0]

    def linear(arch):
        return Network(lambda *_: {"params": {}}, lambda v, c, x, **_: (x.mean((1, 2)), v)), None

    evaluation, _ = naswot(linear, X).evaluate(jax.random.key(0), proposal, None)
    assert "has no ReLU" in evaluation.info["error"][1] and (evaluation.status == Status.FAILED).all()
    with pytest.raises(ValueError, match="two images or more"):
        naswot(graph, X[:1])
