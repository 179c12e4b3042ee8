"""The space of recurrent cells: its order, its words, its equations, the cells known by name."""

import re

import jax
import numpy as np
import pytest

from nasjax.problem.arch_text import read_arch
from nasjax.problem.builders.cell_tree import BUILDER
from nasjax.report.drawings.cell_tree import equations
from nasjax.spaces.cell_tree.named import NAMED, OUTSIDE, REFERENCES, matrices, program
from nasjax.spaces.cell_tree.space import ACTIVATIONS, COMBINATIONS, Cell, CellTree, from_json, to_json, widen

CELLS = {name: program(tree) for name, tree in NAMED.items() if "nodes" in tree}


def test_sites_are_in_the_order_of_the_papers_controller():
    names = [site.name for site in CellTree(2).sites]
    units = [
        f"{unit}/{part}" for unit in ("node0", "node1", "node2", "inject") for part in ("combination", "activation")
    ]
    assert names == [*units, "index/new", "index/inject"]
    assert {site.group for site in CellTree().sites} == {"combination", "activation", "index_new", "index_inject"}
    assert len(CellTree().sites) == 34


def test_sizes():
    assert CellTree().size() == 8**16 * 15**2 == 63331869759897600
    assert CellTree(2).size() == 8**4 * 3**2
    assert CellTree(8, COMBINATIONS, ACTIVATIONS).size() == 15**16 * 15**2


def test_the_worked_example_in_every_form():
    space = CellTree(2)
    tree = {
        "space": "cell_tree",
        "nodes": [["add", "tanh"], ["elem_mult", "relu"], ["elem_mult", "sigmoid"]],
        "inject": ["add", "relu"],
        "indices": [1, 0],
    }
    arch = space.decode(tree)
    assert list(arch) == [0, 1, 1, 3, 1, 2, 0, 3, 1, 0]
    assert space.encode(arch) == NAMED["BASE2"] == tree
    assert space.cell(arch) == CELLS["BASE2"]
    assert equations(tree) == [
        "a0 = tanh(W1 x + W2 h)",
        "b0 = relu(a0 + c)",
        "c' = (W3 x) * (W4 h)",
        "a1 = relu(c')",
        "h' = sigmoid(b0 * a1)",
    ]


@pytest.mark.parametrize("name", CELLS)
def test_named_cells_are_held_by_a_space(name):
    space = widen(CellTree(), NAMED[name])
    assert space.base == CELLS[name].base == matrices(CELLS[name])
    np.testing.assert_array_equal(space.arch(CELLS[name]), space.decode(NAMED[name]))
    assert space.encode(space.decode(NAMED[name])) == NAMED[name]


def test_widen_adds_only_what_a_cell_needs():
    assert widen(CellTree(), NAMED["NASCELL"]) == CellTree()
    assert widen(CellTree(2), NAMED["NASCELL_MAX"]) == CellTree(8, COMBINATIONS)
    small = CellTree(8, ("add",), ("identity",))
    assert widen(small, NAMED["NASCELL"]).activations == ("identity", "tanh", "sigmoid", "relu")


def test_what_is_not_in_the_tree_says_so():
    assert set(OUTSIDE) == {"ENAS_RNN", "DARTS_RNN_V1", "DARTS_RNN_V2"} and not set(OUTSIDE) & set(NAMED)
    assert [matrices(program(NAMED[name.upper()])) for name in REFERENCES] == [4, 3, 1]
    for name in ("elman", ["lstm"], None):
        with pytest.raises(ValueError, match="NAME one of lstm, gru, rnn"):
            program({"space": "cell_tree", "reference": name})
    with pytest.raises(ValueError, match=r"ENAS_RNN is a chain of nodes .* 12 in the published cell"):
        read_arch("ENAS_RNN", BUILDER, CellTree())


@pytest.mark.parametrize(
    ("combination", "activation", "line"),
    [("max", "sin", "a0 = sin(max(W1 x, W2 h))"), ("elem_mult", "identity", "a0 = (W1 x) * (W2 h)")],
)
def test_equations_of_leaves(combination, activation, line):
    root = ("add", "identity")
    cell = Cell(((combination, activation), ("add", "tanh"), root), ("max", "identity"), 2, 2)
    lines = equations(to_json(cell))
    assert lines == [line, "a1 = tanh(W3 x + W4 h)", "c' = a0 + a1", "a2 = c'", "h' = max(a2, c)"]


def test_equations_compute_the_cell():
    """Read as Python, with scalars, the equations give what the definition of a cell gives."""
    space = CellTree(4, COMBINATIONS, ACTIVATIONS)
    rng = np.random.default_rng(0)
    for arch in np.array(jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 50))):
        given = {f"W{i}": rng.normal() for i in range(1, 9)} | {"x": 0.7, "h": -0.4, "c": 0.3}
        values = computed(space.encode(arch), given)
        np.testing.assert_allclose([values["c_"], values["h_"]], by_definition(space.cell(arch), given), rtol=1e-12)


def test_every_node_of_nascell():
    """One unit with x = 1, h = 0.5, c = 0.25; the matrices of leaf k are 0.1 (k + 1) and 0.05 (k + 1)."""
    given = {f"W{2 * k + 1}": 0.1 * (k + 1) for k in range(8)} | {f"W{2 * k + 2}": 0.05 * (k + 1) for k in range(8)}
    values = computed(NAMED["NASCELL"], given | {"x": 1.0, "h": 0.5, "c": 0.25})
    leaves = [0.531209, 0.25, 0.592667, 0.04, 0.554600, 0.679179, 0.703906, 0.731059]
    np.testing.assert_allclose([values[f"a{node}"] for node in range(8)], leaves, atol=1e-6)
    inner = {"a8": 0.132027, "a9": 0.559886, "a10": 0.359814, "a11": 0.807674, "b8": 0.364467, "c_": 0.204060}
    inner |= {"a13": 0.823465, "h_": 0.166472}
    np.testing.assert_allclose([values[name] for name in inner], list(inner.values()), atol=1e-6)


def computed(tree, given):
    """What every equation of a cell gives, with scalars: read as Python, ' as _."""
    values = dict(given)
    for line in equations(tree):
        name, text = line.replace("'", "_").split(" = ")
        values[name] = eval(re.sub(r"(W\d+) ", r"\1 * ", text), FUNCTIONS, values)
    return values


FUNCTIONS = {
    "tanh": np.tanh,
    "sin": np.sin,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: max(x, 0),
    "identity": lambda x: x,
    "max": max,
}


def by_definition(cell, values):
    combine = {"add": lambda a, b: a + b, "elem_mult": lambda a, b: a * b, "max": max}
    outputs = {}
    for node, (combination, activation) in enumerate(cell.nodes):
        if node < cell.base:
            pair = values["x"] * values[f"W{2 * node + 1}"], values["h"] * values[f"W{2 * node + 2}"]
        else:
            pair = outputs[2 * (node - cell.base)], outputs[2 * (node - cell.base) + 1]
        pre = combine[combination](*pair)
        outputs[node] = FUNCTIONS[activation](pre)
        if node == cell.new_from:
            new = pre
        if node == cell.inject_at:
            outputs[node] = FUNCTIONS[cell.inject[1]](combine[cell.inject[0]](outputs[node], values["c"]))
    return new, outputs[2 * cell.base - 2]


BASE2 = NAMED["BASE2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": BASE2["nodes"][:2]}, "3, 7, 15"),
        ({"nodes": [*BASE2["nodes"], ["add", "tanh"]]}, "3, 7, 15"),
        ({"nodes": [["add", "gelu"], *BASE2["nodes"][1:]]}, "node 0: 'gelu' is unknown; choose from identity"),
        ({"nodes": [["add"], *BASE2["nodes"][1:]]}, "node 0 must be a pair"),
        ({"inject": "add"}, "inject must be a pair"),
        ({"indices": [1]}, "two node numbers"),
        ({"indices": [1, True]}, "two node numbers"),
        ({"indices": [1, 3]}, r"lie in 0\.\.2"),
    ],
)
def test_decode_says_what_to_write(change, message):
    with pytest.raises(ValueError, match=message):
        from_json({**BASE2, **change})


def test_wrong_use_says_what_to_write():
    with pytest.raises(ValueError, match="a power of two"):
        CellTree(6)
    with pytest.raises(ValueError, match="combinations has no 'min'; choose from add"):
        CellTree(2, ("min",))
    with pytest.raises(ValueError, match="distinct"):
        CellTree(2, activations=("tanh", "tanh"))
    with pytest.raises(ValueError, match="this space has base 8"):
        CellTree().decode(BASE2)
    with pytest.raises(ValueError, match="node3/combination = 'max' is not in this space; choose from add, elem_mult"):
        CellTree().decode(NAMED["NASCELL_MAX"])
    with pytest.raises(ValueError, match="too large to enumerate"):
        CellTree().enumerate()
    assert to_json(CELLS["NASCELL"]) == NAMED["NASCELL"]
