"""What every setting is called, holds, takes and means: `--list_settings`, and hints for a flag that is none."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nasjax import catalog
from nasjax.commands.configuration import configure
from nasjax.settings import shown

_COLUMN = 44  # of a setting's name and value, in characters


class Setting(NamedTuple):
    """One field of a configuration."""

    name: str  # dotted
    value: Any  # its default
    takes: str  # accepted values
    meaning: str  # in one line; "" = its class does not tell


def settings_of(config: Any, where: str = "") -> Iterator[Setting]:
    """Every setting of a configuration, those of the dataclasses in it by dotted names."""
    hints, told = typing.get_type_hints(type(config)), meanings(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{name}.")
        elif hints[field.name] is not Any:  # a form that the space's networks do not have, a plugin's own space
            yield Setting(name, value, takes(hints[field.name]), told.get(field.name, ""))


def meanings(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of those that it extends say under "Attributes:"."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        found |= _attributes(inspect.cleandoc(vars(one).get("__doc__") or ""))
    return found


def _attributes(text: str) -> dict[str, str]:
    """ "name, other: meaning" with its indented lines -> the first sentence of it, for each name."""
    _, _, section = f"\n{text}\n".partition("\nAttributes:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n  (?=\w)", f"\n{section}"):
        names, colon, meaning = entry.strip().partition(": ")
        if colon:
            first = re.split(r"(?<=[^.]{3}\.) (?=[A-Z0-9])", " ".join(meaning.split()))[0]  # not at "e.g. 5"
            found |= dict.fromkeys(names.split(", "), first)
    return found


def takes(kind: Any) -> str:
    """The values of a type, as `--set` reads them."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("none" if option is type(None) else takes(option) for option in args)
    if origin is typing.Literal:
        return " | ".join(str(option) or '""' for option in args)
    if origin is tuple and typing.get_origin(args[0]) is tuple:
        return "lists, which no --set writes"
    if origin is tuple:
        return f"{takes(args[0])}s with commas"
    return {bool: "true | false", int: "whole number", float: "number", str: "word"}[kind]


def listed(config: Any, flags: Mapping[str, str], width: int | None = None) -> list[str]:
    """A line per setting: name, default, accepted values, meaning.

    Args:
      config: of a method's preset.
      flags: settings that have a flag of their own, dotted name -> flag.
      width: characters of a line, for a terminal; None = lines are as long as they are.
    """
    lines = []
    for setting in settings_of(config):
        own = f" ({flags[setting.name]})" if setting.name in flags else ""
        head = f"{setting.name}={shown(setting.value)}{own}"
        line = f"{head:<{_COLUMN}}  [{setting.takes}]  {setting.meaning}"
        margin = " " * 6
        lines += [line] if width is None else textwrap.wrap(line, max(width, 60), subsequent_indent=margin)
    return lines


def meant(word: str, value: str | None, flags: Sequence[str], asked: Sequence[str | None]) -> str:
    """What to write in place of a flag that is none.

    Args:
      word, value: the flag, and what it was given.
      flags: names of flags.
      asked: method, preset, data set and space, None = not given; any method's settings serve for a missing one.
    """
    if close := difflib.get_close_matches(word, flags, 1, 0.7):
        return f"did you mean --{close[0]}?"
    method, *others = asked
    try:
        names = nearest(word, configure(method or next(iter(catalog.METHODS)), *others))
    except ValueError:
        names = []
    if not names:
        return "--help has the flags, --list_settings=METHOD what --set changes"
    return "write " + " or ".join(f"--set {name}={value or 'VALUE'}" for name in names)


def nearest(word: str, config: Any, most: int = 3) -> list[str]:
    """The dotted names whose last part is `word`, or where there is none, is spelt nearly so."""
    names = [setting.name for setting in settings_of(config)]
    last = {name: name.rpartition(".")[2] for name in names}
    close = difflib.get_close_matches(word, set(last.values()), 1, 0.8)
    wanted = word if word in last.values() else close[0] if close else ""
    return sorted((name for name in names if last[name] == wanted), key=len)[:most]
