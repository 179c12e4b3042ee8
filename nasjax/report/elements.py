"""The pieces of HTML that every section uses. Each returns trusted HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def figure(title: str, drawing: str, caption: str) -> str:
    """One captioned figure; `drawing` is trusted HTML."""
    return f"<figure><h3>{escape(title)}</h3>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def section(title: str, cards: Iterable[str], before: str = "", after: str = "") -> str:
    """A section of figures side by side; "" where it would be empty."""
    inner = "".join(cards)
    inner = f'<div class="cards">{inner}</div>' if inner else ""
    body = f"{before}{inner}{after}"
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def table(
    label: str, heads: Sequence[str], rows: Iterable[Sequence[str]], css: str = "", ids: Sequence[str] = ()
) -> str:
    """A scrollable table.

    Args:
      label: its text for readers who cannot see it.
      heads: of the columns; one that ends in # is a column of numbers.
      rows: cells as trusted HTML.
      css: "sortable" makes buttons of the heads, "tall" limits the height.
      ids: of the rows, for links; "" = none.
    """
    numeric = [head.endswith("#") for head in heads]
    cells = ["<td class=n>" if n else "<td>" for n in numeric]
    top = "".join(
        f'<th scope="col"{" class=n" if n else ""}>{escape(head.rstrip("#"))}</th>'
        for head, n in zip(heads, numeric, strict=True)
    )
    rows = list(rows)
    marks = [f' id="{escape(name)}"' if name else "" for name in ids] or [""] * len(rows)
    body = "\n".join(
        f"<tr{mark}>" + "".join(f"{td}{cell}</td>" for td, cell in zip(cells, row, strict=True)) + "</tr>"
        for mark, row in zip(marks, rows, strict=True)
    )
    wrap = f'class="scroll {css}" tabindex="0" role="region" aria-label="{escape(label)}"'
    return f"<div {wrap}><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def note(text: str) -> str:
    """A remark above what it is about."""
    return f'<p class="note">{escape(text)}</p>'


def swatch(colour: str) -> str:
    """A square of that colour."""
    return f'<i class="swatch" style="--c:{colour}"></i>'


def count(value: int | None) -> str:
    """A whole number with separators."""
    return "–" if value is None else f"{value:,}"


def plain(value: Any) -> str:
    """Any JSON value on one line."""
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {plain(v)}" for key, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return "" if value is None else str(value)


def devices(told: Any) -> str:
    """Devices in words: "1 x CPU"; older files have "1 x cpu cpu"."""
    every = plain(told).split()
    kept = [word for n, word in enumerate(every) if n == 0 or word != every[n - 1]]
    return " ".join({"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}.get(word, word) for word in kept)


def anchor(run: int, trial: int) -> str:
    """The id of a trial's row; `run` is its number on the page."""
    return f"trial-{run}-{trial}"
