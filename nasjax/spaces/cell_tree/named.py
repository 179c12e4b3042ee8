"""Recurrent cells known by name, in the space `cell_tree` or beside it.

A *reference* is a cell of the textbooks with its own number of matrices; its JSON form is
`{"space": "cell_tree", "reference": "lstm"}`. The tree's own LSTM and GRU compute the same with more matrices, because
every leaf has two: a search over the space could find them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasjax.spaces.cell_tree.space import Cell, CellTree, from_json, to_json

# Input (and recurrent) matrices of a reference: the gates of the LSTM and the GRU.
REFERENCES = {"lstm": 4, "gru": 3, "rnn": 1}

Program = Cell | str  # a cell of the space, or the name of a reference


def _cell(nodes: str, inject: str, new_from: int, inject_at: int) -> dict[str, Any]:
    """`nodes` as words such as "+tanh" (add), "*relu" (elem_mult), "^sin" (max), leaves first."""
    signs = {"+": "add", "*": "elem_mult", "^": "max"}
    units = [(signs[word[0]], word[1:]) for word in f"{nodes} {inject}".split()]
    return to_json(Cell(tuple(units[:-1]), units[-1], new_from, inject_at))


NAMED: Mapping[str, dict[str, Any]] = {
    # The best cell of the search, as its authors released it with TensorFlow.
    "NASCELL": _cell(
        "+sigmoid +relu +sigmoid *relu +tanh +sigmoid +tanh +sigmoid *tanh +tanh *tanh +sigmoid *identity +tanh *tanh",
        "+tanh",
        12,
        8,
    ),
    # The best cell of the control experiment with max and sin (appendix figure), leaves in the order of the tree.
    "NASCELL_MAX": _cell(
        "+tanh +identity +tanh ^tanh +tanh +relu ^identity ^tanh "
        "+sigmoid +sigmoid +sigmoid +identity *sigmoid *identity *tanh",
        "+identity",
        13,
        7,
    ),
    # The worked example of section 3.4.
    "BASE2": _cell("+tanh *relu *sigmoid", "+relu", 1, 0),
    # Leaves 0 and 1 are input gate and candidate; the forget gate is leaves 2 + 3, the output gate leaves 4 to 7.
    "LSTM_TREE": _cell(
        "+sigmoid +tanh +identity +identity +identity +identity +identity +identity "
        "*identity +sigmoid +identity +identity +tanh +sigmoid *identity",
        "*identity",
        12,
        9,
    ),
    # 1 - z from leaves 0 to 3 (the logits of z with their sign turned), reset gate and recurrent product of the
    # candidate from leaves 4 and 5, z from 8 to 15. c is h: the root is read before its activation, the identity.
    "GRU_TREE": _cell(
        "+identity +identity +identity +identity +sigmoid +identity +identity +identity " + "+identity " * 8 + ""
        "+identity +identity *identity +identity +identity +identity +identity +identity "
        "+sigmoid +tanh +identity +identity *identity +sigmoid +identity",
        "*identity",
        30,
        29,
    ),
    # Leaf 0 carries the cell state, which the space cannot leave out: without its matrices this is the plain network.
    "RNN_TREE": _cell("+identity +identity +tanh", "+identity", 0, 0),
    **{name.upper(): {"space": CellTree.name, "reference": name} for name in REFERENCES},
}

_CHAIN = (
    "is a chain of nodes with a matrix and a highway gate each, {who}; in a cell_tree only leaves have matrices and "
    "every output is read once"
)

# Published recurrent cells that are in the space of no base number, and why.
OUTSIDE: Mapping[str, str] = {
    "ENAS_RNN": _CHAIN.format(who="12 in the published cell, and averages the loose ends"),
    "DARTS_RNN_V1": _CHAIN.format(who="8 in the published cell, and averages them"),
    "DARTS_RNN_V2": _CHAIN.format(who="8 in the published cell, and averages them"),
}


def program(tree: Mapping[str, Any]) -> Program:
    """The cell, or the name of the reference, of a JSON tree. Raises ValueError."""
    if isinstance(tree, Mapping) and tree.get("space") == CellTree.name and "reference" in tree:
        if set(tree) != {"space", "reference"} or tree["reference"] not in [*REFERENCES]:  # it may be unhashable
            raise ValueError(
                f'write {{"space": "cell_tree", "reference": NAME}} with NAME one of {", ".join(REFERENCES)}'
            )
        return tree["reference"]
    return from_json(tree)


def matrices(cell: Program) -> int:
    """How many matrices of the input a cell has, and as many of the hidden state. Raises ValueError."""
    if not isinstance(cell, str):
        return cell.base
    if cell not in REFERENCES:
        raise ValueError(
            f"{cell!r} is no reference ({', '.join(REFERENCES)}); cells known by name are in NAMED, as JSON"
        )
    return REFERENCES[cell]
