"""Typed settings: frozen dataclasses as JSON, and `dotted.field=value` overrides checked against their types."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from typing import Any


def override(config: Any, assignment: str) -> Any:
    """A copy of `config` with one field changed.

    Args:
      config: a frozen dataclass, possibly of frozen dataclasses.
      assignment: "dotted.field=value", the value as in Python without quotes; tuples as "1,3,5"; none as "none".

    Raises:
      ValueError: no such field (the nearest is suggested), a value of another type, or one the dataclass refuses.

    Example:
      >>> from nasjax.spaces.conv_chain import ConvChain
      >>> override(ConvChain(), "filter_counts=6,12").filter_counts
      (6, 12)
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise ValueError(f"--set {assignment}: write --set field=value, for example --set recipe.epochs=10")
    return _replace(config, path.strip().split("."), text.strip(), path.strip())


def _replace(config: Any, path: list[str], text: str, whole: str) -> Any:
    names = [field.name for field in dataclasses.fields(config)]
    if path[0] not in names:
        close = difflib.get_close_matches(path[0], names, 1, 0.5)
        prefix = whole[: len(whole) - len(".".join(path))]
        hint = f"; did you mean {prefix}{close[0]}?" if close else f"; choose from {', '.join(names)}"
        raise ValueError(f"--set {whole}: no field {path[0]!r}{hint}")
    value = getattr(config, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(value):
            raise ValueError(f"--set {whole}: {path[0]!r} has no fields of its own")
        new = _replace(value, path[1:], text, whole)
    elif dataclasses.is_dataclass(value):
        inner = ", ".join(field.name for field in dataclasses.fields(value))
        raise ValueError(f"--set {whole}: set one of its fields, {whole}.FIELD=value with FIELD in {inner}")
    else:
        new = _parse(text, typing.get_type_hints(type(config))[path[0]], whole)
    try:
        return dataclasses.replace(config, **{path[0]: new})
    except ValueError as error:
        raise ValueError(f"--set {whole}={text}: {error}") from error


def _parse(text: str, kind: Any, whole: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if type(None) in args and text.lower() in ("none", "null"):
            return None
        last: ValueError | None = None
        for option in args:
            if option is not type(None):
                try:
                    return _parse(text, option, whole)
                except ValueError as error:
                    last = error
        assert last is not None
        raise last
    if origin is tuple:
        items = [item.strip() for item in text.strip("()[] ").split(",") if item.strip()]
        return tuple(_parse(item, args[0], whole) for item in items)
    if origin is typing.Literal:
        if text not in args:
            raise ValueError(f"--set {whole}={text}: choose from {', '.join(map(str, args))}")
        return text
    if kind is bool:
        if text.lower() in ("true", "1", "yes", "false", "0", "no"):
            return text.lower() in ("true", "1", "yes")
        raise ValueError(f"--set {whole}={text}: write true or false")
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"--set {whole}={text}: needs a value of type {kind.__name__}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError(f"--set {whole}={text}: needs a finite number")
    return value


def as_json(config: Any) -> Any:
    """A settings dataclass as plain JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        named = {field.name: as_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        kind = getattr(config, "name", None)  # a Space carries its name outside its fields
        return {"name": kind, **named} if isinstance(kind, str) and "name" not in named else named
    if isinstance(config, (tuple, list)):
        return [as_json(value) for value in config]
    return config


def from_json(config: Any, tree: Any, where: str = "config") -> Any:
    """The inverse of `as_json`: fills the fields of `config` (a default of the right types) from `tree`.

    Raises ValueError for a field that `config` does not have.
    """
    if not dataclasses.is_dataclass(config):
        return tuple(from_json(None, value, where) for value in tree) if isinstance(tree, list) else tree
    fields = {field.name for field in dataclasses.fields(config)}
    if unknown := set(tree) - fields - {"name"}:
        raise ValueError(f"{where} has an unknown field {sorted(unknown)[0]!r}")
    changes = {
        key: from_json(getattr(config, key), value, f"{where}.{key}") for key, value in tree.items() if key in fields
    }
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines "field: old -> new" for every leaf in which two JSON trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))]
    return [] if old == new else [f"{where}: {old} -> {new}"]
