"""How this program was started, so that what it prints to type next starts it again: `nasjax` or `python -m ...`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

CONSOLE, MODULE = "nasjax", "nasjax.launch"  # the console command, and what `python -m` runs


def program(started: str, python: str, here: Path, found: Callable[[str], str | None]) -> str:
    """What starts this program, as words for a shell: the console command where that was used, else the module.

    Both are named as the shell finds them: by their name where PATH leads to them, else by their path, relative where
    they lie under `here`. A notebook's commands use its interpreter.

    Args:
      started: what the process was started with, `sys.argv[0]`.
      python: its interpreter, `sys.executable`.
      here: the current folder.
      found: name -> the file that PATH finds, None = none.
    """
    if Path(started).name == CONSOLE:
        return _typed(CONSOLE, here / started, here, found)
    return f"{_typed('python', here / python, here, found)} -m {MODULE}"


def again(started: str, python: str) -> list[str]:
    """The words that start this program in a process of its own, in the way in which it was started itself.

    The arguments are as of `program`. The console command is a script for the interpreter, where it is installed so.
    """
    script = Path(started)
    if script.name == CONSOLE and script.is_file():
        with script.open("rb") as file:
            if file.read(2) == b"#!":
                return [python, started]
    return [python, "-m", MODULE]


def _typed(name: str, file: Path, here: Path, found: Callable[[str], str | None]) -> str:
    """What to type to run a file: its name where PATH finds it, else its path."""
    known = found(name)
    if known is not None and _same(here / known, file):
        return name
    if not file.is_relative_to(here):
        return shlex.quote(str(file))
    inside = str(file.relative_to(here))
    return shlex.quote(inside if os.sep in inside else f".{os.sep}{inside}")  # a bare name is looked up in PATH


def _same(one: Path, other: Path) -> bool:
    """Whether two names are one file of one folder: environments link to the same interpreter, each from its own."""
    return one.resolve() == other.resolve() and one.parent.resolve() == other.parent.resolve()


def own() -> str:
    """What starts this process's program."""
    return program(sys.argv[0], sys.executable, Path.cwd(), shutil.which)
