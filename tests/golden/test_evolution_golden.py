"""Known numbers of graphs over resolutions (parameters, multiply-adds, indicators) and of aging evolution.

UNet++ of the public PyTorch code on nuclei: 9,163,329 parameters, counted by hand per block. Indicators: Janik & Nowak
2020 (arXiv:2002.08104) and its code.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.drive.scan import scan
from nasjax.searchers.aging import aging
from nasjax.spaces.resolution_graph.form import from_tree
from nasjax.spaces.resolution_graph.indicators import bottlenecks, drawing, elongation, indicators, pairs, widths
from nasjax.spaces.resolution_graph.named import NAMED
from nasjax.spaces.resolution_graph.plan import Counts, GraphPlan, convolutions, edge_counts, merge
from nasjax.types import Evaluation, Evaluator, Site

UNETPP_BLOCKS = {  # X^{level, column}
    (0, 0): 10_272, (1, 0): 55_680, (2, 0): 221_952, (3, 0): 886_272, (4, 0): 3_542_016,
    (0, 1): 37_056, (1, 1): 147_840, (2, 1): 590_592, (3, 1): 2_360_832,
    (0, 2): 46_272, (1, 2): 184_704, (2, 2): 738_048,
    (0, 3): 55_488, (1, 3): 221_568,
    (0, 4): 64_704,
}  # fmt: skip
TINY = {
    "space": "resolution_graph",
    "nodes": [
        {"id": 0, "level": 0, "order": 0, "op": None, "kernel": None, "expansion": None},
        {"id": 1, "level": 1, "order": 1, "op": "mbv2", "kernel": 3, "expansion": 6},
        {"id": 2, "level": 0, "order": 2, "op": "resnet", "kernel": None, "expansion": None},
    ],
    "edges": [
        {"id": 0, "src": 0, "dst": 1, "op": "maxpool"},
        {"id": 1, "src": 1, "dst": 2, "op": "transconv"},
        {"id": 2, "src": 0, "dst": 2, "op": "identity"},
    ],
    "channels": 16,
}


def test_unetpp_block_by_block():
    graph = from_tree(NAMED["UNETPP"])
    plan, columns = GraphPlan(graph, (96, 96, 3)), dict.fromkeys(range(5), 0)
    found = {}
    for node in graph.nodes:
        found[node.level, columns[node.level]] = plan.blocks[f"node{node.id}"].params
        columns[node.level] += 1
    assert found == UNETPP_BLOCKS
    assert plan.blocks[f"head{graph.nodes[-1].id}"].params == 33
    assert all(plan.blocks[f"edge{edge.id}"] == (0, 0) for edge in graph.edges)
    assert plan.params == 9_163_329
    assert (len(graph.nodes), edge_counts(graph)) == (15, {"down": 4, "same": 20, "up": 10})


def test_unet_and_deep_supervision():
    deep = GraphPlan(from_tree(NAMED["UNETPP_DS"]))
    assert deep.params == 9_163_329 + 3 * 33 and len(deep.heads) == 4
    # Encoder, and decoder blocks that read what is beside and what is below.
    decoder = sum(9 * (3 * width * width + width * width) + 6 * width for width in (32, 64, 128, 256))
    encoder = sum(count for (_, column), count in UNETPP_BLOCKS.items() if column == 0)
    assert GraphPlan(from_tree(NAMED["UNET"])).params == encoder + decoder + 33 == 7_852_545


@pytest.mark.parametrize(
    "op, c_in, c_out, params",
    [
        ("mbv2", 16, 16, 4_352), ("mbv2", 32, 32, 14_848), ("mbv2", 256, 256, 806_912),
        ("resnet", 16, 16, 4_672), ("resnet", 32, 32, 18_560), ("resnet", 256, 256, 1_180_672),
        ("mbv2_s2", 16, 32, 5_920), ("transconv", 32, 16, 2_064),
        ("maxpool", 16, 32, 0), ("upsample", 32, 16, 0), ("identity", 16, 16, 0), (None, 3, 16, 464),
    ],
)  # fmt: skip
def test_operators(op, c_in, c_out, params):
    assert sum(step.params for step in convolutions(op, c_in, c_out, None, None)) == params


@pytest.mark.parametrize("kernel, expansion", [(3, 6), (5, 3), (7, 6)])
def test_mobilenet_blocks_of_any_kernel_and_expansion(kernel, expansion):
    a, b, mid = 8, 12, expansion * 8
    steps = convolutions("mbv2_s2", a, b, kernel, expansion)
    assert sum(step.params for step in steps) == mid * (a + b) + (4 + kernel**2) * mid + 2 * b


def test_tiny_graph():
    """Parameters and multiply-adds of every block, by hand; the image is 10x8, which the graph can halve once."""
    plan = GraphPlan(from_tree(TINY), (10, 8, 3))
    top, below = 80, 20  # places
    assert plan.blocks == {
        "node0": Counts(464, 432 * top),
        "node1": Counts(14_848 + 64, (2 * 192 * 32 + 9 * 192) * below),
        "node2": Counts(4_672 + 32, 2 * 9 * 256 * top),
        "edge0": Counts(512, 512 * below),
        "edge1": Counts(2_064 + 256, (32 * 16 + 256) * top),
        "edge2": Counts(256, 256 * top),
        "head2": Counts(17, 16 * top),
    }
    assert plan.params == 23_185
    # An odd image is padded to the next size that can be halved.
    assert GraphPlan(from_tree(TINY), (9, 7, 3)).macs == plan.macs


def test_macs_of_edges_that_change_the_resolution():
    tree = TINY | {"edges": [TINY["edges"][0] | {"op": "mbv2_s2"}, TINY["edges"][1] | {"op": "upsample"}]}
    blocks = GraphPlan(from_tree(tree), (8, 8, 3)).blocks
    assert blocks["edge0"] == Counts(5_920 + 32 * 32, 16 * 96 * 64 + (9 * 96 + 96 * 32 + 32 * 32) * 16)
    assert blocks["edge1"] == Counts(512, 512 * 16)  # the 1x1 kernel acts before the interpolation
    assert merge("upsample", 32, 16).kernel == (32, 16) and merge("transconv", 32, 16).kernel == (16, 16)


def test_widths_and_bottlenecks():
    chain, fork = [(i, i + 1) for i in range(4)], [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]
    diamond = [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert widths(5, chain).tolist() == [0, 1, 1, 1, 1] and bottlenecks(5, chain) == 4
    assert widths(5, fork).tolist() == [0, 2, 2, 1, 1] and bottlenecks(5, fork) == 2
    assert widths(4, diamond).tolist() == [0, 2, 2, 2] and bottlenecks(4, diamond) == 0
    graph = from_tree(NAMED["UNETPP"])
    assert widths(15, pairs(graph)).tolist() == [0, 5, 9, 10, 13, 14, 13, 15, 15, 14, 11, 11, 10, 8, 5]
    assert indicators(graph)["n_bottlenecks"] == 0


def test_elongation():
    line = np.outer(np.arange(7), [3.0, -2.0])
    assert elongation(line) == pytest.approx(1)
    assert elongation(np.random.default_rng(0).normal(size=(100_000, 2))) == pytest.approx(0, abs=0.02)
    assert elongation([[0, 0], [0, 1], [1, 0], [1, 1]]) == pytest.approx(0)
    for nodes in (2, 5, 12):  # chains are drawn as lines, rings as circles
        chain = [(i, i + 1) for i in range(nodes - 1)]
        assert elongation(drawing(nodes, chain)) == pytest.approx(1)
    ring = [*((i, i + 1) for i in range(7)), (0, 7)]
    assert elongation(drawing(8, ring)) == pytest.approx(0, abs=1e-6)
    graph = from_tree(NAMED["UNETPP"])
    assert 0.5 < indicators(graph)["elongation"] == indicators(graph)["elongation"] < 0.9


class Bits:
    """Strings of bits; a mutation flips one."""

    sites = tuple(Site(f"bit{i}", (0, 1), "bit", i) for i in range(100))

    def sample(self, key):
        return jax.random.bernoulli(key, shape=(100,)).astype(jnp.int32)

    def mutate(self, key, arch):
        bit = jax.random.randint(key, (), 0, 100)
        return arch.at[bit].set(1 - arch[bit])


def counted(key, proposal, inherited):
    """Fitness is the fraction of ones with noise, clipped."""
    true = proposal.arch.mean(-1)
    noise = jax.vmap(lambda trial: jax.random.normal(jax.random.fold_in(key, trial)))(proposal.id)
    fitness = jnp.clip(true + 0.01 * noise, 0, 1)
    return Evaluation(fitness, jnp.ones_like(true), jnp.zeros(len(true), jnp.int8), {"true": true}), None


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, best, spread, last", [(2, 0.729, 0.025, 0.685), (10, 0.897, 0.019, 0.865), (25, 0.945, 0.021, 0.920)]
)
def test_aging_evolution_on_strings_of_bits(size, best, spread, last):
    """The notebook published with Real et al. 2019: 100 bits, population 100, 1,000 trials; 60 seeds.

    Best true fitness of the history, and mean true fitness of the last population; random search reaches 0.662.
    """
    searcher = aging(Bits(), population=100, sample_size=size)

    def run(key):
        return scan(key, searcher, Evaluator(counted), trials=1000).info["true"]

    true = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 60)))
    error = spread / 60**0.5
    assert true.max(1).mean() == pytest.approx(best, abs=spread)
    assert abs(true.max(1).mean() - best) < 4 * error  # 60 seeds of ours against 60 of the reference
    assert true.max(1).std() == pytest.approx(spread, rel=0.5)
    assert true[:, -100:].mean() == pytest.approx(last, abs=spread)
    assert true[:, :100].mean() == pytest.approx(0.5, abs=0.005)
