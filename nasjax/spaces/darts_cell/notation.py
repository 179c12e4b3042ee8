"""Genotypes as the releases of the DARTS family print them: Genotype(normal=[('sep_conv_3x3', 1), ...], ...)."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from nasjax.spaces.darts_cell.space import CELLS, NODES, DartsCell, cells_of

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_FORM = (
    f"Genotype(normal=[('sep_conv_3x3', 1), ... {2 * len(NODES)} pairs], normal_concat=range(2, 6), reduce=[...], ...)"
)


def written(tree: Mapping[str, Any]) -> str:
    """The JSON form of an architecture in the releases' notation, which their code evaluates."""
    if "cells" in tree:  # ours: their code prints a list of normal and one of reduction cells
        return f"Genotype(cells={[[tuple(pair) for pair in cell] for cell in tree['cells']]})"
    cells = (f"{cell}={[tuple(pair) for pair in tree[cell]]}, {cell}_concat=range(2, 6)" for cell in CELLS)
    return f"Genotype({', '.join(cells)})"


def parsed(space: DartsCell, text: str) -> dict[str, Any] | None:
    """The JSON form of an architecture in that notation; None where the text is in another.

    Raises:
      ValueError: it is in this notation and no architecture of the space.
    """
    if not text.strip().startswith("Genotype("):
        return None
    try:
        call = ast.parse(text.strip(), mode="eval").body
        assert isinstance(call, ast.Call)
        given = dict(zip(_FIELDS, call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}
        values = {name: _value(node) for name, node in given.items()}
        if "cells" in values:
            tree = {"space": space.name, "cells": [[list(pair) for pair in cell] for cell in values["cells"]]}
        else:
            tree = {"space": space.name, **{cell: [list(pair) for pair in values[cell]] for cell in CELLS}}
    except (SyntaxError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"this genotype cannot be read; write {_FORM}") from error
    for cell in CELLS:
        if (joined := values.get(f"{cell}_concat", list(NODES))) != list(NODES):
            raise ValueError(f"{cell}_concat is {joined}; cells here concatenate nodes 2 to 5: range(2, 6)")
    space = dataclasses.replace(space, cells=cells_of(tree))
    return space.encode(space.decode(tree))


def _value(node: ast.expr) -> Any:
    """A literal, or range(a, b) as a list."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return list(range(*(ast.literal_eval(argument) for argument in node.args)))
    return ast.literal_eval(node)
