"""The architectures of a file of results: they are looked up, and have no networks."""

from __future__ import annotations

from typing import Any, NoReturn

from nasjax.spaces.from_table import file
from nasjax.spaces.from_table.space import TableSpace, table_space
from nasjax.types import Builder, Signature


def _build(space: TableSpace, form: None, tree: dict[str, Any], signature: Signature) -> NoReturn:
    raise ValueError(f"the architectures of --space={space.name} are known by their results alone and have no networks")


def _of_table(path: str) -> tuple[TableSpace, dict[str, Any]]:
    said = file.declared(path, file.read(path))._asdict()
    return table_space(path), {name: said[name] for name in ("metric", "percent", "smaller", "fidelities")}


# The task is one that has data sets; nothing is read of them.
BUILDER = Builder(TableSpace(), _build, ("classification",), of_table=_of_table)
