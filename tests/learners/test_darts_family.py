"""What sets the methods apart: relaxations, derivation rules, stages."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_search_network import toy_batch, toy_network

from nasjax.learners import darts, p_darts, pc_darts
from nasjax.learners.bilevel import BilevelState
from nasjax.spaces.darts_cell.derivation import kept_pairs
from nasjax.spaces.darts_cell.space import CELLS, EDGES, OPERATORS, DartsCell

SKIP = OPERATORS.index("skip_connect")
NAMES = [OPERATORS] * 14
RNG = np.random.default_rng(0)


def state_of(alpha):
    return BilevelState(*[None] * 3, {name: jnp.asarray(a, jnp.float32) for name, a in alpha.items()}, *[None] * 4)


def draw(*shape):
    return RNG.standard_normal(shape)


def node_edges(node):
    return [e for e, (_, to) in enumerate(EDGES) if to == node]


# -- DARTS -----------------------------------------------------------------------------------------------------------


def test_relaxation():
    relaxation = darts.softmax_relaxation(8)
    alpha = relaxation.init(jax.random.key(0))
    assert {name: a.shape for name, a in alpha.items()} == {"normal": (14, 8), "reduce": (14, 8)}
    assert 0.0008 < np.std(alpha["normal"]) < 0.0012 and not np.array_equal(alpha["normal"], alpha["reduce"])
    choice = relaxation.choice({**alpha, "normal": jnp.tile(jnp.log(jnp.arange(1.0, 9))[None], (14, 1))}, None, 0)
    np.testing.assert_allclose(choice["normal"][3], np.arange(1, 9) / 36, rtol=1e-5)
    np.testing.assert_allclose(choice["reduce"].sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_derived_cells_have_two_edges_per_node_and_no_none(seed):
    rng = np.random.default_rng(seed)
    alpha = {cell: rng.standard_normal((14, 8)) for cell in CELLS}
    alpha["normal"][:, 0] += 5  # none wins everywhere
    tree = darts.derive(state_of(alpha))
    DartsCell().decode(json.loads(json.dumps(tree)))  # so the space takes it
    for cell in CELLS:
        for i, node in enumerate(range(2, 6)):
            sources = [source for _, source in tree[cell][2 * i : 2 * i + 2]]
            assert len(set(sources)) == 2 and all(0 <= source < node for source in sources)
        assert len(tree[cell]) == 8 and all(op in OPERATORS[1:] for op, _ in tree[cell])


def test_derivation_by_hand():
    """Node 3 has edges 2, 3, 4 from 0, 1, 2; softmax includes none, so a high none weakens its edge."""
    alpha = np.zeros((14, 8))
    alpha[2, 4], alpha[3, 5], alpha[4, 6] = 2.0, 1.5, 3.0
    alpha[4, 0] = 6.0
    tree = darts.derive(state_of({"normal": alpha, "reduce": np.zeros((14, 8))}))
    assert tree["normal"][2:4] == [["sep_conv_3x3", 0], ["sep_conv_5x5", 1]]
    # Ties go to the lower index: the first operator but none, the first two edges.
    assert tree["reduce"] == [["max_pool_3x3", 0], ["max_pool_3x3", 1]] * 4


def test_permuting_one_nodes_rows_changes_only_its_edges():
    p = draw(14, 8)
    edges = node_edges(4)
    order = np.array([2, 0, 3, 1])
    permuted = p.copy()
    permuted[edges] = p[np.array(edges)[order]]
    before, after = kept_pairs(p, NAMES), kept_pairs(permuted, NAMES)
    assert before[:4] == after[:4] and before[6:] == after[6:]
    assert [(edges[order[e - edges[0]]], o) for e, o in after[4:6]] == before[4:6]
    assert before[4:6] != after[4:6]


# -- PC-DARTS --------------------------------------------------------------------------------------------------------


def test_edge_softmax_is_per_node():
    weights = pc_darts.edge_softmax(jnp.asarray(draw(14)))
    for node in range(2, 6):
        np.testing.assert_allclose(weights[np.array(node_edges(node))].sum(), 1, rtol=1e-5)
    uniform = pc_darts.edge_softmax(jnp.zeros(14))
    np.testing.assert_allclose(uniform, [1 / 2] * 2 + [1 / 3] * 3 + [1 / 4] * 4 + [1 / 5] * 5, rtol=1e-6)


def test_edge_weights_enter_the_derivation():
    alpha = {cell: np.zeros((14, 8)) for cell in CELLS}
    alpha["normal"][5, 4], alpha["normal"][6, 5] = 1.0, 0.9  # node 4, from 0 and 1
    beta = np.zeros(14)
    beta[8] = 3.0  # node 4, from 3
    tree = pc_darts.derive(state_of({**alpha, "normal_edges": beta, "reduce_edges": np.zeros(14)}))
    assert tree["normal"][4:6] == [["max_pool_3x3", 3], ["sep_conv_3x3", 0]]
    assert tree["reduce"] == darts.derive(state_of(alpha))["reduce"]


@pytest.mark.slow
def test_edge_relaxation_starts_and_learns():
    learner, batch = pc_darts.pc_darts(toy_network(edges=True), frozen_epochs=0, devices=1), toy_batch(0)
    state = learner.init(jax.random.key(0), batch)
    assert state.alpha["normal_edges"].shape == (14,) and 0 < np.std(state.alpha["reduce_edges"]) < 0.003
    after, _ = learner.step(jax.random.key(1), state, batch)
    moved = np.abs(after.alpha["normal_edges"] - state.alpha["normal_edges"])
    np.testing.assert_allclose(moved, 6e-4, rtol=0.05)  # Adam's first step, the published rate
    assert set(pc_darts.probabilities(after)) == {"normal", "reduce", "normal_edges", "reduce_edges"}


# -- P-DARTS ---------------------------------------------------------------------------------------------------------


def test_keep_drops_the_least_likely_and_none_competes():
    p = np.tile(np.array([0.5, 0.05, 0.1, 0.05, 0.2, 0.04, 0.03, 0.03]), (14, 1))
    p[1] = p[1, ::-1]
    kept = p_darts.keep(p, NAMES, 5)
    assert kept[0] == ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3"]
    assert kept[1] == ["skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    tied = p_darts.keep(np.full((14, 8), 0.125), NAMES, 5)
    assert tied[0] == list(OPERATORS[3:])


def test_skips_that_nothing_can_replace_stay():
    scores = np.tile([0.4, 0.6], (14, 1))
    tree = p_darts.derive(*last_stage(("none", "skip_connect"), scores), max_skips=2)
    assert [operator for operator, _ in tree["normal"]] == ["skip_connect"] * 8


def test_stages():
    built = []

    def network(depth, names):
        built.append((depth, names))
        return toy_network()

    stages = p_darts.p_darts(network, devices=1)
    facts = stages.facts(0, None, None)
    assert facts == {cell: [list(OPERATORS)] * 14 for cell in CELLS}
    for i, count in enumerate((8, 5, 3)):
        facts = json.loads(json.dumps(facts))
        stages.learner(i, facts)
        depth, names = built[-1]
        assert depth == (5, 11, 17)[i] and hash(names["normal"])
        assert [len(of) for of in names["reduce"]] == [count] * 14
        old, facts = facts, stages.facts(i + 1, facts, state_of({cell: draw(14, count) for cell in CELLS}))
        assert facts is None or all(set(a) < set(b) for a, b in zip(facts["normal"], old["normal"], strict=True))
    assert facts is None


def last_stage(names, scores):
    """State and facts with the same three operators on every edge of both cells."""
    return state_of(dict.fromkeys(CELLS, scores)), {cell: [list(names)] * 14 for cell in CELLS}


def test_final_cells_leave_none_out_and_are_listed_by_edge():
    scores = np.tile([5.0, 0.0, 1.0], (14, 1))
    scores[8, 2] = 6.0  # node 4, from 3: the strongest
    tree = p_darts.derive(*last_stage(("none", "sep_conv_3x3", "dil_conv_5x5"), scores))
    assert tree["normal"] == [["dil_conv_5x5", s] for s in (0, 1, 0, 1, 0, 3, 0, 1)]


@pytest.mark.parametrize("limit", [0, 1, 2, 5, None])
def test_skips_in_the_normal_cell_are_limited(limit):
    scores = np.zeros((14, 3))
    scores[:, 1] = np.linspace(1, 2, 14)  # skips win, more clearly on later edges
    state, facts = last_stage(("none", "skip_connect", "sep_conv_3x3"), scores)
    tree = p_darts.derive(state, facts, max_skips=limit)
    skips = {cell: sum(op == "skip_connect" for op, _ in tree[cell]) for cell in CELLS}
    assert skips == {"normal": 8 if limit is None else limit, "reduce": 8}
    if limit == 2:  # the likeliest stay: both edges of the last node
        assert tree["normal"][6:] == [["skip_connect", 3], ["skip_connect", 4]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (5, 11)}, "give every stage"),
        ({"operators": (8, 5, 1)}, "at least 2"),
        ({"operators": (8, 9, 3)}, "fall"),
    ],
)
def test_stages_must_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        p_darts.p_darts(lambda depth, names: toy_network(), **changes)
