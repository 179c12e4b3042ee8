"""An architecture as a table of its sites: for spaces without a drawing, and for damaged architectures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_ROWS, _CELL = 300, 600  # most rows of a table, most characters of a value


def draw(arch: Any, space: Mapping[str, Any]) -> tuple[str, str]:
    """A table of sites and what was chosen there.

    Args:
      arch: {"space": NAME, "choices": {site: value, ...}}, or any other JSON.
      space: resolved fields of its space; nothing of them is needed.

    Returns:
      Trusted HTML: a table, or the text of what has no sites; and the caption.
    """
    found = _sites(arch)
    if not found:
        text = json.dumps(arch, indent=1, ensure_ascii=False)
        return f"<pre>{escape(text[:20_000])}</pre>", "The architecture as JSON."
    rows = "".join(
        f'<tr><th scope="row">{escape(site)}</th><td>{escape(_text(value)[:_CELL])}</td></tr>'
        for site, value in list(found.items())[:_ROWS]
    )
    heads = '<tr><th scope="col">site</th><th scope="col">choice</th></tr>'
    table = f'<table class="sites"><thead>{heads}</thead><tbody>{rows}</tbody></table>'
    more = f" The first {_ROWS} of {len(found)} sites." if len(found) > _ROWS else ""
    return f'<div class="scroll tall" tabindex="0">{table}</div>', f"The architecture, site by site.{more}"


def summary(arch: Any) -> str:
    """site=choice, one after the other."""
    found = _sites(arch)
    if not found:
        return "" if arch is None else _text(arch)
    return "  ".join(f"{site}={_text(value)}" for site, value in found.items())


def difference(parent: Any, child: Any) -> list[str]:
    """Every field of the JSON that differs: "layers 1 num_filters 24 → 36"."""
    old, new = dict(_leaves(parent)), dict(_leaves(child))
    return [
        " ".join(filter(None, [path, f"{_leaf(old, path)} → {_leaf(new, path)}"]))
        for path in dict.fromkeys([*old, *new])
        if path not in old or path not in new or old[path] != new[path]
    ]


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON tree by their paths; a list of at most three plain values counts as one."""
    inner = isinstance(tree, list) and (len(tree) > 3 or any(isinstance(value, (list, dict)) for value in tree))
    if not isinstance(tree, Mapping) and not inner:
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        yield from _leaves(value, f"{path} {key}".strip())


def _leaf(leaves: Mapping[str, Any], path: str) -> str:
    return _text(leaves[path])[:80] if path in leaves else "nothing"


def _sites(arch: Any) -> dict[str, Any]:
    """The choices by site; of JSON without "choices" its own fields."""
    if not isinstance(arch, Mapping):
        return {}
    choices = arch.get("choices")
    if isinstance(choices, Mapping):
        return {str(site): value for site, value in choices.items()}
    return {str(site): value for site, value in arch.items() if site != "space"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
