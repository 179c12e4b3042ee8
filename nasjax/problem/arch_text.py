"""Architectures given as NAME, JSON or FILE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nasjax.types import Builder


def read_arch(text: str, builder: Builder, space: Any) -> dict[str, Any]:
    """An architecture given as NAME, JSON, FILE, or in the field's own notation, as a JSON tree.

    Args:
      text: what the user gave.
      builder: of the space; knows names and notation.
      space: where it is one.

    Raises:
      ValueError: it is none of these.
    """
    named = builder.named
    if text in named:
        return named[text]
    if (tree := builder.parse(space, text)) is not None:
        return tree
    source = text
    if not text.lstrip().startswith("{"):
        try:
            source = Path(text).read_text()
        except (OSError, ValueError) as error:
            short = text if len(text) < 80 else text[:77] + "..."
            known = f"no known name of {space.name} ({', '.join(named) or 'it has none'})"
            raise ValueError(f"{short} is {known}, no JSON object and no readable file") from error
    if source is not text and (tree := builder.parse(space, source)) is not None:
        return tree
    try:
        tree = json.loads(source)
    except ValueError as error:
        where = "the architecture" if source is text else text
        raise ValueError(f"{where} is not valid JSON ({error})") from error
    if isinstance(tree, dict) and "arch" in tree and "space" not in tree:
        tree = tree["arch"]  # best.json, or a line of trials.jsonl
    if not isinstance(tree, dict) or "space" not in tree:
        raise ValueError(f'an architecture is an object with "space", for example {{"space": "{space.name}", ...}}')
    return tree
