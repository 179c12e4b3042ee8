"""Space `resolution_graph`: what every space promises, and what its mutations do."""

import dataclasses
import json
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.spaces.resolution_graph.change import Mutations, mutant, next_ids, random_graph
from nasjax.spaces.resolution_graph.form import MBV2, check, from_tree, operators, to_tree
from nasjax.spaces.resolution_graph.named import NAMED
from nasjax.spaces.resolution_graph.plan import count_params, edge_counts
from nasjax.spaces.resolution_graph.space import ResolutionGraph
from nasjax.types import Space, arch_size, canonical, crossover

SMALL = ResolutionGraph(
    levels=3, max_nodes=14, max_edges=30, channels=(4, 8), kernels=(3, 5), expansions=(3, 6),
    learning_rates=(0.1, 0.01), min_params=500, max_params=60_000,
)  # fmt: skip
SPACES = {
    "default": ResolutionGraph(),
    "all_options": SMALL,
    "fixed_operators": ResolutionGraph(
        3, 20, 40, ("resnet",), ("mbv2_s2",), ("transconv",), channels=(4,), min_params=1, max_params=100_000
    ),
    "two_levels": ResolutionGraph(2, 6, 12, channels=(2,), min_params=100, max_params=5_000, colours=1),
}
N = 120


class Draws:
    def __init__(self, space):
        self.space = space
        keys = jax.random.split(jax.random.key(0), (2, N))
        self.archs = np.asarray(jax.jit(jax.vmap(space.sample))(keys[0]))
        self.mutants = np.asarray(jax.jit(jax.vmap(space.mutate))(keys[1], self.archs))
        self.graphs = [space.graph(arch) for arch in self.archs]
        self.children = [space.graph(arch) for arch in self.mutants]


@pytest.fixture(scope="module", params=SPACES)
def drawn(request):
    return Draws(SPACES[request.param])


def test_the_space_is_a_value_that_describes_its_archs(drawn):
    space = drawn.space
    assert isinstance(space, Space) and space.size() is None and crossover(space) is None
    assert len({site.name for site in space.sites}) == len(space.sites) < arch_size(space)
    chex.assert_shape(drawn.archs, (N, arch_size(space)))
    chex.assert_type([drawn.archs, drawn.mutants], np.int32)
    twin = dataclasses.replace(space)
    assert twin == space and hash(twin) == hash(space)
    with jax.enable_x64(True):
        key = jax.random.key(0)
        chex.assert_type(jax.eval_shape(lambda: (space.sample(key), space.mutate(key, drawn.archs[0]))), jnp.int32)


def test_every_individual_is_valid_pruned_and_in_range(drawn):
    """Acyclic, the input reaches the output, no node is dead, the parameter count is in range."""
    space = drawn.space
    for arch, graph in zip([*drawn.archs, *drawn.mutants], [*drawn.graphs, *drawn.children], strict=True):
        space.validate(arch)
        check(graph)
        assert space.min_params <= count_params(graph, space.colours, space.outputs) <= space.max_params
        assert len(graph.nodes) <= space.max_nodes and len(graph.edges) <= space.max_edges
        assert graph.nodes[0].op is None and all(node.op in space.node_ops for node in graph.nodes[1:])


def test_active_is_what_is_there_traced_or_not(drawn):
    for archs in (drawn.archs, drawn.mutants):
        np.testing.assert_array_equal(jax.jit(jax.vmap(drawn.space.active))(archs), archs >= 0)
    np.testing.assert_array_equal(drawn.space.active(drawn.archs[0]), drawn.archs[0] >= 0)


def test_samples_reach_every_choice_that_ranks_allow(drawn):
    seen = Counter()
    for graph in (*drawn.graphs, *drawn.children):
        seen.update([node.op for node in graph.nodes] + [edge.op for edge in graph.edges])
        seen.update(("kernel", node.kernel) for node in graph.nodes)
        seen.update(("expansion", node.expansion) for node in graph.nodes)
        seen.update([("channels", graph.channels), ("rate", graph.learning_rate), ("depth", graph.depth)])
    space = drawn.space
    expected = {*space.node_ops, *space.down_ops, *space.up_ops, "identity"}
    expected |= {("channels", value) for value in space.channels} | {("rate", v) for v in space.learning_rates}
    if MBV2 in space.node_ops:
        expected |= {("kernel", value) for value in space.kernels} | {("expansion", v) for v in space.expansions}
    assert expected <= set(seen) and ("depth", space.levels - 1) in seen


def test_json_round_trip_and_identity_whatever_the_ids(drawn):
    space, rng = drawn.space, np.random.default_rng(0)
    for arch in np.concatenate([drawn.archs[:15], drawn.mutants[:15]]):
        tree = space.encode(arch)
        assert tree["space"] == space.name
        again = space.decode(json.loads(json.dumps(tree)))
        chex.assert_type(again, np.int32)
        np.testing.assert_array_equal(again, arch)
        # The same graph under other ids, its lists shuffled, its ranks spread out.
        new = dict(
            zip((node["id"] for node in tree["nodes"]), rng.permutation(900)[: len(tree["nodes"])], strict=False)
        )
        nodes = [node | {"id": int(new[node["id"]]), "order": 3 * node["order"] + 7} for node in tree["nodes"]]
        edges = [
            edge | {"id": int(number), "src": int(new[edge["src"]]), "dst": int(new[edge["dst"]])}
            for edge, number in zip(tree["edges"], rng.permutation(900), strict=False)
        ]
        rng.shuffle(nodes)
        rng.shuffle(edges)
        other = space.decode(tree | {"nodes": nodes, "edges": edges})
        assert not np.array_equal(other, arch)
        assert space.identity(other) == space.identity(arch) == space.identity(arch.astype(np.int64))
        np.testing.assert_array_equal(canonical(space, other), canonical(space, arch))
    rows = np.concatenate([drawn.archs, drawn.mutants])
    forms = np.asarray(jax.jit(jax.vmap(space.canonical))(rows))
    assert len({space.identity(row) for row in rows}) == len({row.tobytes() for row in forms}) > N / 4


def test_dead_ends_are_left_out(drawn):
    arch = drawn.archs[0]
    tree = drawn.space.encode(arch)
    top = max(node["order"] for node in tree["nodes"])
    spare = {"id": 500, "level": 0, "order": top + 1, "op": drawn.space.node_ops[0], "kernel": 3, "expansion": 6}
    nodes = [node | ({"order": top + 2} if node["order"] == top else {}) for node in tree["nodes"]]
    edge = {"id": 500, "src": 0, "dst": 500, "op": "identity"}
    again = drawn.space.decode(tree | {"nodes": [*nodes, spare], "edges": [*tree["edges"], edge]})
    np.testing.assert_array_equal(again, arch)


def test_a_mutant_differs_by_one_change_and_new_ids_are_above_the_parents(drawn):
    kinds = Counter()
    for parent, child in zip(drawn.graphs, drawn.children, strict=True):
        assert to_tree(parent) != to_tree(child)
        kinds[difference(parent, child)] += 1
    names = {"add_edge", "add_node", "remove"}
    names |= {"change_node_op"} if len(drawn.space.node_ops) > 1 else set()
    names |= {"change_edge_op"} if len(drawn.space.up_ops) > 1 else set()
    names |= {"change_hparam"} if len(drawn.space.channels) > 1 else set()
    assert names <= set(kinds) <= names | {"random"}
    assert kinds["random"] < 0.05 * N


def difference(parent, child):
    """Which mutation it was; asserts that nothing else is different."""
    old, new = ({node.id: node for node in graph.nodes} for graph in (parent, child))
    before, after = ({edge.id: edge for edge in graph.edges} for graph in (parent, child))
    if not set(old) & set(new):
        assert not set(before) & set(after)
        return "random"
    added, linked = set(new) - set(old), set(after) - set(before)
    first_node, first_edge = next_ids(parent)
    assert all(node >= first_node for node in added) and all(edge >= first_edge for edge in linked)
    changed = [node for node in set(old) & set(new) if old[node] != new[node]]
    rewired = [edge for edge in set(before) & set(after) if before[edge] != after[edge]]
    gone = (set(old) - set(new)) | (set(before) - set(after))
    tuned = (parent.channels, parent.learning_rate) != (child.channels, child.learning_rate)
    counts = (len(added), len(linked), len(changed), len(rewired), bool(gone), tuned)
    if counts == (0, 0, 1, 0, False, False):
        same_op = old[changed[0]].op == new[changed[0]].op
        return "change_hparam" if same_op else "change_node_op"
    return {
        (0, 1, 0, 0, False, False): "add_edge",
        (1, 2, 0, 0, False, False): "add_node",
        (0, 0, 0, 1, False, False): "change_edge_op",
        (0, 0, 0, 0, True, False): "remove",
        (0, 0, 0, 0, False, True): "change_hparam",
    }[counts]


def test_an_inserted_node_lies_between_and_keeps_the_edge():
    space, rng = SMALL, np.random.default_rng(3)
    only = Mutations(0, 1, 0, 0, 0, 0, 0)
    for _ in range(50):
        parent = space.graph(space.arch(random_graph(rng, space._choices)))
        child = mutant(rng, parent, space._choices, only)
        (node,) = {n.id for n in child.nodes} - {n.id for n in parent.nodes}
        into, out = ([e for e in child.edges if getattr(e, end) == node] for end in ("dst", "src"))
        assert len(into) == len(out) == 1
        assert any((e.src, e.dst) == (into[0].src, out[0].dst) for e in parent.edges)
        order = [n.id for n in child.nodes if n.id != node]
        assert order == [n.id for n in parent.nodes]
        assert set(parent.edges) <= set(child.edges)


def test_shares_of_mutations_and_where_the_hyper_parameters_share_goes():
    rates, rng = Mutations(), np.random.default_rng(0)
    assert rates.add_edge + rates.add_node > rates.remove_edge + rates.remove_node  # so networks grow
    assert sum(dataclasses.astuple(rates)) == pytest.approx(1)
    drawn = Counter()
    space = dataclasses.replace(SMALL, max_nodes=40, max_edges=150)
    parent = from_tree(space.encode(space.sample(jax.random.key(4))))
    for _ in range(20):
        parent = mutant(rng, parent, space._choices, Mutations(1, 1, 0, 0, 0, 0, 0)) or parent
    fixed = dataclasses.replace(space._choices, channels=(8,), kernels=(3,), expansions=(6,), learning_rates=(0.1,))
    for choices in (space._choices, fixed):
        for _ in range(1500):
            child = mutant(rng, parent, choices, rates)
            drawn[
                "tunable" if choices is not fixed else "fixed", "none" if child is None else difference(parent, child)
            ] += 1
    share = {key: count / 1500 for key, count in drawn.items()}
    assert share["tunable", "change_hparam"] == pytest.approx(0.1, abs=0.03)
    assert share["tunable", "add_edge"] == pytest.approx(0.25, abs=0.04)
    assert share["tunable", "add_node"] == pytest.approx(0.20, abs=0.04)
    assert share["fixed", "add_edge"] == pytest.approx(0.25 + 0.2 / 3, abs=0.04)
    assert ("fixed", "change_hparam") not in drawn


def test_networks_grow_where_fitness_says_nothing():
    """Twenty lines of descent of 60 mutations each: the mean number of edges rises."""
    space = ResolutionGraph(levels=4, channels=(4,), min_params=1000, max_params=2_000_000)
    rng, edges = np.random.default_rng(0), []
    for _ in range(20):
        graph = space._any(rng)
        line = [len(graph.edges)]
        for _ in range(60):
            graph = space._mutant(rng, graph)
            line.append(len(graph.edges))
        edges.append(line)
    mean = np.mean(edges, 0)
    assert mean[60] > mean[30] + 2 > mean[0] + 4


def test_where_no_mutation_fits_a_random_graph_comes_with_ids_of_its_own():
    space = dataclasses.replace(SMALL, min_params=1, max_params=60_000)
    arch = space.sample(jax.random.key(0))
    parent = space.graph(np.asarray(arch))
    frozen = dataclasses.replace(space, mutations=Mutations(0, 0, 0, 0, 0, 0, 1e-9), max_nodes=14)
    lone = from_tree({
        "space": "resolution_graph", "channels": 4, "learning_rate": 0.1,
        "nodes": [{"id": 3, "level": 0, "order": 0, "op": None}, {"id": 8, "level": 0, "order": 1, "op": "resnet"}],
        "edges": [{"id": 5, "src": 3, "dst": 8, "op": "identity"}],
    })  # fmt: skip
    child = frozen.graph(np.asarray(frozen.mutate(jax.random.key(1), frozen.arch(lone))))
    assert min(node.id for node in child.nodes) == 9 and min(edge.id for edge in child.edges) >= 6
    assert len(parent.nodes) > 2


def test_single_vmap_and_jit_agree():
    keys = jax.random.split(jax.random.key(7), 3)
    together = np.asarray(jax.jit(jax.vmap(SMALL.sample))(keys))
    np.testing.assert_array_equal(SMALL.sample(keys[1]), together[1])
    np.testing.assert_array_equal(jax.jit(SMALL.mutate)(keys[0], together[0]), SMALL.mutate(keys[0], together[0]))


def test_several_mutations_make_a_child():
    twice, once = dataclasses.replace(SMALL, n_mutations=3), SMALL
    keys, arch = jax.random.split(jax.random.key(3), 100), SMALL.sample(jax.random.key(1))
    parent = set(SMALL.graph(np.asarray(arch)).edges)

    def distance(space):
        children = np.asarray(jax.jit(jax.vmap(space.mutate, (0, None)))(keys, arch))
        return np.mean([len(parent ^ set(space.graph(child).edges)) for child in children])

    assert distance(twice) > 1.5 * distance(once)


@pytest.mark.parametrize("tree", [None, [], {}, {"space": "no_such_space"}])
def test_decode_refuses_another_space(tree):
    with pytest.raises(ValueError, match=r'architecture is {"space": "resolution_graph", '):
        SMALL.decode(tree)


def _good():
    return SMALL.encode(np.asarray(SMALL.sample(jax.random.key(2))))


def _with(where, **changes):
    tree = _good()
    rows = tree[where]
    return tree | {where: [*rows[:-1], rows[-1] | changes]}


@pytest.mark.parametrize(
    "tree, message",
    [
        ({"space": "resolution_graph"}, "must list objects"),
        (_good() | {"colour": 1}, "unknown entry 'colour'"),
        (_with("nodes", colour=1), "unknown entry 'colour' in nodes"),
        (_with("nodes", op="conv"), "op 'conv' is not possible there; choose from mbv2, resnet"),
        (_with("nodes", level=1), "must be on level 0"),
        (_with("nodes", order=0), '"order" of its own'),
        (_with("nodes", id=77), "must be ids of nodes"),
        (_with("nodes", level="0"), '"level" of nodes must be a whole number'),
        (_with("edges", op="maxpoll"), "op 'maxpoll' is not possible there"),
        (_with("edges", src=77), "must be ids of nodes"),
        (_good() | {"edges": _good()["edges"][:1]}, "must lead from the node of lowest order"),
        (_good() | {"channels": 5}, "channels = 5 must be one of 4, 8"),
        (_good() | {"channels": -1}, "whole number above 0"),
        (_good() | {"learning_rate": 0.5}, "learning_rate = 0.5 must be one of 0.1, 0.01"),
        ({k: v for k, v in _good().items() if k != "learning_rate"}, "exactly when the space chooses it"),
        (NAMED["UNETPP"], "at most 14 and 30"),
        (NAMED["UNET"], "this graph is a baseline"),
    ],
)  # fmt: skip
def test_decode_says_what_to_write_instead(tree, message):
    with pytest.raises(ValueError, match=message):
        SMALL.decode(tree)


def test_spoilt_entries_are_refused(drawn):
    space, rng = drawn.space, np.random.default_rng(1)
    arch = drawn.archs[3]
    space.validate(arch)
    for column in rng.integers(len(arch), size=60):
        spoilt = arch.copy()
        spoilt[column] = -2 if arch[column] >= 0 else 0
        with pytest.raises(ValueError, match=r"must be|has no|without a gap"):
            space.validate(spoilt)
    with pytest.raises(ValueError, match="entries, got shape"):
        space.validate(arch[:-1])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"node_ops": ("vgg",)}, "node_ops must be distinct, out of"),
        ({"kernels": (2,)}, "kernels must be odd"),
        ({"channels": ()}, "channels must be distinct"),
        ({"levels": 1}, "levels and max_nodes"),
        ({"min_params": 30_000_000}, "is more than max_params"),
        (
            {"levels": 2, "max_nodes": 3, "max_edges": 3, "channels": (2,), "min_params": 19_999_999},
            "none of 1,000 random graphs had 19,999,999 to 20,000,000 parameters .* mutations of 4 do not reach",
        ),
        ({"learning_rates": (0.0,)}, "learning_rates must be"),
        ({"edge_rate": 2.0}, "edge_rate in"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        ResolutionGraph(**wrong)
    with pytest.raises(ValueError, match="not all 0"):
        Mutations(0, 0, 0, 0, 0, 0, 0)


def test_edges_go_one_level_at_most():
    assert operators(0, 1) == ("maxpool", "mbv2_s2") and operators(1, 0) == ("upsample", "transconv")
    assert operators(2, 2) == ("identity",) and operators(0, 2) == operators(3, 1) == ()


def test_named_graphs_are_valid_and_written_as_read():
    for tree in NAMED.values():
        graph = from_tree(json.loads(json.dumps(tree)))
        assert to_tree(graph) == tree
    assert edge_counts(from_tree(NAMED["UNET"])) == {"down": 4, "same": 4, "up": 4}


@pytest.mark.slow
def test_a_range_that_only_mutation_reaches_is_taken():
    space = ResolutionGraph(3, 16, 40, channels=(8,), extra_nodes=2, min_params=90_000, max_params=100_000)
    assert not space._falls_in_range
    space.validate(arch := np.asarray(space.sample(jax.random.key(0))))
    assert 90_000 <= count_params(space.graph(arch), space.colours, space.outputs) <= 100_000
