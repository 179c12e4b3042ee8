"""A recurrent cell as equations that a person can read. Zoph & Le 2017, section 3.4."""

from __future__ import annotations

from nasjax.spaces.cell_tree import Cell

_SIGN = {"add": "+", "elem_mult": "*"}


def formula(cell: Cell) -> list[str]:
    """The cell's equations, one a line, in the order in which they can be computed.

    x is the input, h and c are the last step's states, h' and c' the new ones, "*" multiplies element by element.
    a5 is the output of node 5, b5 the same after c has been injected. W1, W2, ... are the matrices of the leaves.

    Example:
      >>> leaves, root = (("add", "tanh"), ("elem_mult", "relu")), ("elem_mult", "sigmoid")
      >>> print("\\n".join(formula(Cell((*leaves, root), ("add", "relu"), 1, 0))))
      a0 = tanh(W1 x + W2 h)
      b0 = relu(a0 + c)
      c' = (W3 x) * (W4 h)
      a1 = relu(c')
      h' = sigmoid(b0 * a1)
    """
    lines: list[str] = []
    names: dict[int, str] = {}
    root = len(cell.nodes) - 1
    for node, (combination, activation) in enumerate(cell.nodes):
        children = cell.children(node)
        if children is None:
            pre = _combine(combination, f"W{2 * node + 1} x", f"W{2 * node + 2} h")
        else:
            pre = _combine(combination, *(names[child] for child in children))
        if node == cell.new_from:
            lines.append(f"c' = {pre}")
            pre = "c'"
            if activation == "identity" and node not in (root, cell.inject_at):
                names[node] = pre
                continue
        injected = node == cell.inject_at
        names[node] = "h'" if node == root and not injected else f"a{node}"
        lines.append(f"{names[node]} = {_activate(activation, pre)}")
        if injected:
            before, names[node] = names[node], "h'" if node == root else f"b{node}"
            lines.append(f"{names[node]} = {_activate(cell.inject[1], _combine(cell.inject[0], before, 'c'))}")
    return lines


def _combine(combination: str, a: str, b: str) -> str:
    if combination == "max":
        return f"max({a}, {b})"
    if combination == "elem_mult":
        a, b = (f"({term})" if " " in term else term for term in (a, b))
    return f"{a} {_SIGN[combination]} {b}"


def _activate(activation: str, pre: str) -> str:
    return pre if activation == "identity" else f"{activation}({pre})"
