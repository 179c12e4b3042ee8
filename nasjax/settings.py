"""Typed settings: frozen dataclasses as JSON, and `dotted.field=value` overrides checked against their types."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

# Metadata of a field that a resumed search may alter.
RESUMABLE: Any = types.MappingProxyType({"resumable": True})
# The same where the search never builds the network that has this setting: of the setting, and of the field of a
# configuration that holds it. A supernet does not have what its paths have when they are trained alone.
ALONE: Any = types.MappingProxyType({"alone": True})
# What settings were called until format 4 of config.json.
RENAMED = {"eval": "form", "retrain_dropout": "form.dropout"}


def override(config: Any, *assignments: str) -> Any:
    """A copy of `config` with some fields changed, all at once: their order does not matter.

    Args:
      config: a frozen dataclass, possibly of frozen dataclasses.
      assignments: "dotted.field=value", the value as in Python without quotes; tuples as "1,3,5"; none as "none".

    Raises:
      ValueError: no such field (the nearest is suggested), a value of another type, or one the dataclass refuses.

    Example:
      >>> from nasjax.spaces.conv_chain.space import ConvChain
      >>> override(ConvChain(), "filter_counts=6,12", "max_layers=8").filter_counts
      (6, 12)
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise ValueError(f"--set {assignment}: write --set field=value, for example --set recipe.epochs=10")
        *outer, last = name.split(".")
        value, inner = config, changes
        for part in outer:
            value, inner = _field(value, part, name), inner.setdefault(part, {})
        if dataclasses.is_dataclass(old := _field(value, last, name)):
            fields = ", ".join(field.name for field in dataclasses.fields(old))
            raise ValueError(f"--set {name}: set one of its fields, {name}.FIELD=value with FIELD in {fields}")
        inner[last] = _parse(text.strip(), typing.get_type_hints(type(value))[last], name)
    return _rebuilt(config, changes, "")


def _field(config: Any, name: str, whole: str) -> Any:
    if not dataclasses.is_dataclass(config):
        raise ValueError(f"--set {whole}: {name!r} belongs to a setting that has no fields of its own")
    names = [field.name for field in dataclasses.fields(config)]
    if name not in names:
        if whole.split(".")[0] == name in RENAMED:
            raise ValueError(f"--set {whole} is now --set {RENAMED[name]}{whole[len(name) :]}")
        prefix = whole[: whole.rindex(name)]
        close = sorted(_below(config, name), key=len)[:3] or difflib.get_close_matches(name, names, 1, 0.5)
        meant = " or ".join(f"{prefix}{one}" for one in close)
        raise ValueError(
            f"--set {whole}: no field {name!r}; "
            + (f"did you mean {meant}?" if meant else f"choose from {', '.join(names)}")
        )
    return getattr(config, name)


def _below(config: Any, name: str) -> Iterator[str]:
    """The dotted names of the fields of a dataclass's dataclasses that end in `name`."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            own = [name] if name in vars(value) else []
            yield from (f"{field.name}.{one}" for one in (*own, *_below(value, name)))


def _rebuilt(config: Any, changes: dict[str, Any], where: str) -> Any:
    new = {
        name: _rebuilt(getattr(config, name), value, f"{where}{name}.") if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    try:
        return dataclasses.replace(config, **new)
    except ValueError as error:
        if str(error).startswith("--set"):
            raise
        given = _flat(changes, where)
        told = " ".join(f"--set {name}={shown(value)}" for name, value in given.items())
        raise ValueError(f"{told}: {named(error, config, where, given)}") from error


def shown(value: Any) -> str:
    """A value as `--set` reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(shown, value)) if isinstance(value, tuple) else str(value)


def _flat(changes: dict[str, Any], where: str) -> dict[str, Any]:
    """Nested changes by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in changes.items():
        found |= _flat(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
    return found


# After the name of a field that is an English word as well, where something is said of the field.
_SAID = re.compile(r"=| (=|[<>]=?|must|needs?|has|is|are|belongs|names|changes|at least|not|[\"'])|,| and ")


def named(error: ValueError, config: Any, where: str, given: Collection[str] = ()) -> str:
    """What a settings dataclass refuses, its bare fields as the command line has them.

    Args:
      error: raised by `config`'s class, or by what reads its fields.
      config: the dataclass.
      where: its dotted prefix, "" or "search.".
      given: dotted names that the user has set. Where none of them is named, what to write is.

    Example:
      >>> from nasjax.spaces.conv_chain.space import ConvChain
      >>> named(ValueError("strides must be at least 1, got (0,)"), ConvChain(), "space.")
      'space.strides must be at least 1, got (0,); write --set space.strides=VALUE'
    """
    text, seen = str(error), dict[str, None]()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    fields = [name for name, value in values.items() if not dataclasses.is_dataclass(value)]
    if not where or not fields:
        return text
    any_of = re.compile(rf"(?<![\w.='\"/-])({'|'.join(map(re.escape, fields))})(?![\w('.])")

    def full(found: re.Match[str]) -> str:
        name, whole = found[0], found.string
        if "_" not in name and not whole[: found.start()].endswith("unknown ") and not _SAID.match(whole, found.end()):
            return name
        seen[where + name] = None
        return where + name

    parts = re.split(r"(\w+\([^)]*\))", text)  # a dataclass's text, Score(operator=True), stays as it is
    text = "".join(part if n % 2 else any_of.sub(full, part) for n, part in enumerate(parts))
    if not seen or "--set" in text or set(seen) & set(given) or any(f"{name}=" in text for name in seen):
        return text
    return f"{text}; write {' '.join(f'--set {name}=VALUE' for name in seen)}"


@contextmanager
def naming(config: Any, where: str) -> Iterator[None]:
    """Lets what is refused in it name the fields of `config` as `named` does."""
    try:
        yield
    except ValueError as error:
        raise ValueError(named(error, config, where)) from error


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
    if origin is tuple and typing.get_origin(args[0]) is tuple:
        raise ValueError(f"--set {whole}: it holds lists, which follow from other settings; leave it out")
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
        wanted = {int: "a whole number", float: "a number"}.get(kind, f"a value of type {kind.__name__}")
        raise ValueError(f"--set {whole}={text}: needs {wanted}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError(f"--set {whole}={text}: needs a finite number")
    return value


def as_json(config: Any) -> Any:
    """A settings dataclass as plain JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        named = {field.name: as_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        kind = getattr(config, "name", None)  # a Space has its name outside its fields
        return {"name": kind, **named} if isinstance(kind, str) and "name" not in named else named
    if isinstance(config, (tuple, list)):
        return [as_json(value) for value in config]
    if hasattr(config, "sites"):  # a Space that is no dataclass has no settings: it is its sites
        sites = {site.name: {**site._asdict(), "choices": as_json(site.choices)} for site in config.sites}
        when = {"when": found} if (found := getattr(config, "when", None)) else {}  # under which conditions they count
        return {"name": config.name, "sites": sites, "order": list(sites), **when}
    return config


def names(config: Any) -> set[str]:
    """The names of a settings dataclass's fields."""
    return {field.name for field in dataclasses.fields(config)}


def resumable(config: Any, where: str = "", alone: bool = False) -> list[str]:
    """The dotted names of the settings that a resumed search may alter: fields with the metadata RESUMABLE.

    With `alone` also those with ALONE, as within a field that has it.
    """
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata == RESUMABLE or (alone and field.metadata == ALONE):
            found.append(f"{where}{field.name}")
        elif dataclasses.is_dataclass(value):
            found += resumable(value, f"{where}{field.name}.", field.metadata == ALONE)
    return found


def from_json(config: Any, tree: Any, where: str = "config") -> Any:
    """The inverse of `as_json`: fills the fields of `config` (a default of the right types) from `tree`.

    Raises ValueError for a field that `config` does not have, or a space with other sites.
    """
    if hasattr(config, "sites") and not dataclasses.is_dataclass(config) and isinstance(tree, dict):
        if tree == {"name": config.name}:  # of an older version
            return config
        if changed := differences(tree, json.loads(json.dumps(as_json(config)))):
            raise ValueError(f"the space {config.name!r} is another one now ({'; '.join(changed)})")
        return config
    if not dataclasses.is_dataclass(config):
        return tuple(from_json(None, value, where) for value in tree) if isinstance(tree, list) else tree
    fields = {field.name for field in dataclasses.fields(config)}
    if unknown := set(tree) - fields - {"name"}:
        raise ValueError(f"{where} has an unknown field {sorted(unknown)[0]!r}")
    changes = {
        key: from_json(_default(config, key, tree[key]), tree[key], f"{where}.{key}") for key in fields & set(tree)
    }
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _default(config: Any, name: str, value: Any) -> Any:
    """The field's value, or where that is None and JSON has an object, the dataclass that its type names."""
    old = getattr(config, name)
    if old is None and isinstance(value, dict):
        kinds = typing.get_type_hints(type(config))[name]
        found = next(
            (kind for kind in typing.get_args(kinds) if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None
        )
        if found is None:
            raise ValueError(f"{name} holds an object, {type(config).__name__} has none there")
        return found()
    return old


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines "field: old -> new" for every leaf in which two JSON trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))]
    return [] if old == new else [f"{where}: {old} -> {new}"]
