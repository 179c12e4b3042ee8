"""The text of `--help`: the flags in groups, and a command for each mode."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nasjax import catalog
from nasjax.store import started

# The flags by what they are about, each with what stands for its value.
GROUPS: dict[str, dict[str, str]] = {
    "Which run": {
        "method": "NAME",
        "mode": "NAME",
        "space": "NAME",
        "preset": "NAME",
        "workdir": "DIR",
        "seed": "N",
        "seeds": "0..4 or 0,1,2",
        "parallel": "K",
        "set": "NAME=VALUE",
        "arch": "ARCH",
        "input": "PATH",
        "point": "N or all",
        "finetune_epochs": "N",
        "finetune_rate": "X",
        "format": "NAME",
        "out": "FILE",
        "watch": "",
        "verbose": "",
        "log": "TRACKER",
    },
    "Compare searchers": {
        "methods": "A,B",
        "problem": "'NAME: ...'",
        "external": "COMMAND",
        "named": "",
        "answer_s": "SECONDS",
        "seconds": "N",
        "macs": "N",
    },
    "Data": {"dataset": "NAME", "data_dir": "DIR", "table": "FILE.npz", "truth": "FILE.npz"},
    "Budget and limits": {
        "trials": "N",
        "max_params": "N",
        "max_macs": "N",
        "latency": "FILE.json",
        "max_latency_ms": "N",
        "max_memory_mb": "N",
        "trial_timeout": "SECONDS",
    },
    "Measure latency": {"target": "NAME", "clock": "NAME", "batch": "N", "networks": "N", "unseen": "N"},
    "Workers": {"workers": "N", "runtime": "NAME", "ray_address": "HOST:PORT"},
    "Several hosts": {"coordinator": "HOST:PORT", "processes": "N", "process": "I"},
    "More": {
        "plugin": "FILE.py",
        "changed_plugin": "",
        "dtype": "NAME",
        "init_from": "DIR or FILE",
        "compile_cache": "VALUE",
        "list_settings": "METHOD",
        "version": "",
        "help": "",
    },
}


class Example(NamedTuple):
    """A command for a mode: its flags, and what it does."""

    flags: str
    what: str


EXAMPLES = {
    "search": Example("--method=random", "search; the same command resumes it"),
    "retrain": Example("--mode=retrain --workdir=DIR", "train the best from scratch and test it once"),
    "inspect": Example("--mode=inspect --workdir=DIR --arch=best", "count what was found"),
    "report": Example("--mode=report --workdir=DIR,DIR", "write report.html, of several runs too"),
    "predict": Example("--mode=predict --workdir=DIR --input=FOLDER", "apply the retrained network to files"),
    "export": Example("--mode=export --workdir=DIR", "write the retrained network for other programs"),
    "latency": Example("--mode=latency --method=spos --out=FILE.json", "time networks here, for --max_latency_ms"),
    "table": Example("--mode=table --workdir=DIR,DIR --out=FILE.npz", "a table of the trials, for --space=from_table"),
    "runs": Example("--mode=runs", "list the runs in runs/, and how each goes on"),
    "compare": Example("--mode=compare --methods=evolution,bo --trials=20", "compare searchers at equal cost"),
}


def text(helps: Mapping[str, str], what: str, width: int | None = None) -> str:
    """The whole help.

    Args:
      helps: what every flag does.
      what: the command in a sentence.
      width: characters of a line; None = the terminal's, at most 110.
    """
    width = width or min(110, shutil.get_terminal_size((100, 24)).columns)
    return "\n".join(_lines(helps, what, width))


def _lines(helps: Mapping[str, str], what: str, width: int) -> Iterator[str]:
    program = started.own()
    yield from (what, "", f"{program} --method=NAME [--mode=MODE] [flags]", "", "Modes:")
    for mode, example in EXAMPLES.items():
        yield from (*_entry(f"  {mode}", example.what, 12, width), f"{'':<12}{program} {example.flags}")
    for group, flags in GROUPS.items():
        yield from ("", f"{group}:")
        for name, value in flags.items():
            yield from _entry(f"  --{name}{'=' + value if value else ''}", helps[name], 27, width)
    kinds = (("Methods", catalog.METHODS), ("Spaces", catalog.SPACES), ("Data sets", catalog.DATA))
    for kind, names in kinds:
        yield from ("", f"{kind}:")
        for name, told in names.items():
            yield from _entry(f"  {name}", told, 20, width)


def _entry(head: str, told: str, column: int, width: int) -> list[str]:
    """A name and what it is, in two columns; the second begins a line of its own where there is no room."""
    room = max(width - column, 24)
    lines = textwrap.wrap(told, room, break_on_hyphens=False) or [""]
    if len(head) + 1 > column or width - column < 24:
        return [head, *(" " * 6 + line for line in textwrap.wrap(told, max(width - 6, 24)))]
    return [f"{head:<{column}}{lines[0]}".rstrip(), *(" " * column + line for line in lines[1:])]
