"""The Python blocks of the pages, run in order in one namespace, with small numbers in place of large ones."""

from collections import defaultdict

from tools.pages import BLOCKS

PROGRAMS = defaultdict(list)
for _block in BLOCKS:
    if _block.language == "python":
        PROGRAMS[_block.page].append(_block)

COVERED = set()  # (page, number of the block): what tests run


def runs(page, *numbers):
    """Notes that a test runs these blocks of a page."""
    COVERED.update((page, number) for number in numbers)
    return lambda test: test


def run(page, numbers, names=None, replaced=None):
    """Executes blocks of a page; the names that they leave.

    Args:
      page: its path from the repository's root.
      numbers: which of its Python blocks, in this order.
      names: what the reader has already.
      replaced: {text: other text}; each must stand in the blocks.
    """
    names = {"__name__": "page"} if names is None else names
    left = set(replaced or ())
    for number in numbers:
        assert (page, number) in COVERED, f"say that the test runs block {number} of {page}"
        block = PROGRAMS[page][number]
        text = block.text
        for old, new in (replaced or {}).items():
            if old in text:
                text = text.replace(old, new)
                left.discard(old)
        exec(compile("\n" * (block.line - 1) + text, page, "exec"), names)
    assert not left, f"{page}: nothing to replace: {left}"
    return names
