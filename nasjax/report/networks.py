"""Single architectures from their JSON form: each space's drawing is the module of its name in report/drawings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from nasjax.report.drawings import generic

_DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def draw(arch: Any, space: Mapping[str, Any]) -> tuple[str, str]:
    """A drawing and the sentence that explains it.

    Args:
      arch: JSON form of the architecture.
      space: resolved fields of its space, as far as known.

    Returns:
      Trusted HTML: an SVG, or a table of the sites of a space that has no drawing (or of a damaged architecture).
    """
    try:
        return _artist(arch).draw(arch, space)
    except _DAMAGED:  # damaged or from a later version: shown as it is
        return generic.draw(arch, space)


def summary(arch: Any, most: int = 160) -> str:
    """An architecture in one line of at most `most` characters."""
    try:
        text = str(_artist(arch).summary(arch))
    except _DAMAGED:
        text = generic.summary(arch)
    return text if len(text) <= most else text[: most - 1] + "…"


def difference(parent: Any, child: Any, most: int = 12) -> list[str]:
    """What changed from one architecture to another, in words: that of the space's drawing, else field by field."""
    try:
        told = list(getattr(_artist(child), "difference", generic.difference)(parent, child))
    except _DAMAGED:
        told = generic.difference(parent, child)
    return told if len(told) <= most else [*told[:most], f"and {len(told) - most} more"]


def references(arch: Any) -> Mapping[str, Mapping[str, float]]:
    """Indicators of published networks of the same space, by their names."""
    return getattr(_artist(arch), "REFERENCES", {})


def _artist(arch: Any) -> ModuleType:
    """The module `nasjax.report.drawings.<space>`; the generic one where there is none."""
    name = arch.get("space") if isinstance(arch, Mapping) else None
    if not isinstance(name, str) or not name.isidentifier():
        return generic
    module = f"nasjax.report.drawings.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # the drawing exists, but one of its own imports is missing
        return generic
