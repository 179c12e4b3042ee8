"""`tabular_cell` has results, in a table, and no networks of its own."""

from __future__ import annotations

from typing import Any

from nasjax.spaces.tabular_cell import TabularCell
from nasjax.types import Builder, Built, Signature


def _build(space: TabularCell, form: None, tree: dict[str, Any], signature: Signature) -> Built:
    space.validate(space.decode(tree))
    raise ValueError("tabular_cell has results but no networks of its own; give --space=conv_chain or darts_cell")


BUILDER = Builder(TabularCell(), _build, ())
