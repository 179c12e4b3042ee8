"""What is printed of an error: one line, and a file with the traceback where it is a bug."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path


def one_line(error: BaseException) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split())


def unexpected(error: BaseException, *, always: bool = False) -> bool:
    """Writes the traceback to a file if the error is a bug and not the user's mistake; returns whether it is."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and f"{Path(__file__).parents[1]}" in frames[-1].filename
    if not always and ours:
        return False
    path = Path("nasjax-error.log")
    try:
        path.write_text("".join(traceback.format_exception(error)))
        print(f"this is a bug in nasjax; its traceback is in {path}", file=sys.stderr)
    except OSError:
        traceback.print_exception(error)
    if not always:
        print(f"error: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
    return True
