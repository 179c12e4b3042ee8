"""README.md and docs/ taken apart: fenced blocks, tables, inline code, links, headings."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    page: str  # relative to the repository
    line: int  # of its first line
    language: str
    text: str
    above: str  # the line before its fence

    @property
    def place(self):
        return f"{self.page}:{self.line}"


class Page:
    """One file; lines of fenced blocks are empty in `prose`, so that numbers of lines stay."""

    def __init__(self, path):
        self.path, self.name = path, str(path.relative_to(ROOT))
        self.blocks, self.prose = _taken_apart(self.name, path.read_text())

    @property
    def anchors(self):
        """What its headings are called in links."""
        titles = [line.lstrip("# ") for line in self.prose if re.match(r"#+ ", line)]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    @property
    def links(self):
        """(line, target) of every link but those to the web."""
        found = [(n, target) for n, line in enumerate(self.prose, 1) for target in re.findall(r"\]\(([^)\s]+)\)", line)]
        return [(n, target) for n, target in found if not re.match(r"https?://", target)]

    @property
    def spans(self):
        """(line, text) of every piece of inline code; it may go on in the next line."""
        whole = "\n".join(self.prose)
        return [
            (whole.count("\n", 0, found.start()) + 1, " ".join(found[1].split()).replace("\\|", "|"))
            for found in re.finditer(r"(?<!`)`([^`]+)`(?!`)", whole)
        ]

    @property
    def tables(self):
        """(line of the head, rows as lists of cells), every run of lines that begin with a bar."""
        found, rows = [], []
        for number, line in enumerate([*self.prose, ""], 1):
            if line.startswith("|"):
                rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
            elif rows:
                found.append((number - len(rows), rows))
                rows = []
        return found


def _taken_apart(name, text):
    blocks, prose, fence = [], [], None
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if fence is None and line.lstrip().startswith("```"):
            fence = number
        elif fence is not None and line.strip() == "```":
            inside = "\n".join(lines[fence : number - 1])
            above = lines[fence - 2] if fence > 1 else ""
            blocks.append(Block(name, fence + 1, lines[fence - 1].strip().strip("`"), inside, above))
            fence = None
        elif fence is None:
            prose.append(line)
            continue
        prose.append("")
    if fence is not None:
        raise ValueError(f"{name}:{fence}: a fence that is never closed")
    return blocks, prose


PAGES = [Page(path) for path in FILES]
BLOCKS = [block for page in PAGES for block in page.blocks]
