"""A workdir's report in a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple


class Page(NamedTuple):
    """A report that a notebook shows in a frame of its own: its styles and scripts reach nothing beside it."""

    path: Path
    height: int

    def _repr_html_(self) -> str:
        # The page is in the frame itself, as a notebook's server need not have the workdir in its folder (Colab's has
        # not); with this base its links to its own parts stay within.
        text = self.path.read_text().replace("<head>", '<head><base href="about:srcdoc">', 1)
        return f'<iframe srcdoc="{escape(text)}" width="100%" height="{self.height}" style="border:0"></iframe>'


def show(path: str | Path, *, height: int = 800) -> Page:
    """The report of a workdir, or the page of a comparison, as the last line of a notebook's cell.

    Args:
      path: the workdir, or the comparison's folder.
      height: of the frame, in pixels.

    Raises ValueError where the workdir has no report yet.
    """
    pages = [Path(path) / name for name in ("report.html", "compare.html")]
    file = next((page for page in pages if page.is_file()), None)
    if file is None:
        raise ValueError(
            f"{path} has no report.html yet; search first, or write it with --mode=report --workdir={path}"
        )
    return Page(file, height)
