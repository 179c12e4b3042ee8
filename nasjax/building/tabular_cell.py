"""`tabular_cell` has results, in a table, and no networks of its own."""

from __future__ import annotations

from typing import Any

from nasjax.spaces.tabular_cell import TabularCell
from nasjax.types import Builder, Built, Signature


def _build(space: TabularCell, form: None, tree: dict[str, Any], signature: Signature) -> Built:
    space.validate(space.decode(tree))
    raise ValueError("tabular_cell has results but no networks of its own; give --space=conv_chain or darts_cell")


def _parsed(space: TabularCell, text: str) -> dict[str, Any] | None:
    """The benchmark's own string, |nor_conv_3x3~0|+|none~0|none~1|+..."""
    return space.encode(space.parse(text.strip())) if text.strip().startswith("|") else None


BUILDER = Builder(TabularCell(), _build, (), parse=_parsed)
