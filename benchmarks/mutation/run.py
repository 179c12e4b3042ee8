"""Do the tests see a fault? Each of `faults.py` is put into a copy of the sources, and tests that should see it run.

    python benchmarks/mutation/run.py [--only=WORD] [--table=FILE]

Prints a line per fault and at the end a table in Markdown: the fault, and the first test that failed. The exit code is
1 where a fault survived, and 2 where a text that a fault replaces is not there exactly once. Only tests of the default
selection count. All faults take about a quarter of an hour of one core.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
COPIED = ("nasjax", "tests", "launch", "docs", "pyproject.toml", "README.md")


def misplaced(faults: list[Fault]) -> list[str]:
    """Faults whose text is not in its file exactly once."""
    counts = [(fault, (ROOT / "nasjax" / fault.file).read_text().count(fault.old)) for fault in faults]
    return [f"{fault.file}: {count} times {fault.old!r}" for fault, count in counts if count != 1]


def caught(fault: Fault, tree: Path) -> str:
    """The first test that fails with the fault in, "" = none. Raises RuntimeError where the tests cannot run at all."""
    file = tree / "nasjax" / fault.file
    text = file.read_text()
    file.write_text(text.replace(fault.old, fault.new))
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-x",
                "-q",
                "-n",
                "0",
                "-p",
                "no:cacheprovider",
                *shlex.split(fault.tests),
            ],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
        )
    finally:
        file.write_text(text)
    if done.returncode not in (0, 1):  # no test, or an error of collecting them
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose file or words contain this")
    parser.add_argument("--table", type=Path, help="where the table goes, too")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in f"{fault.file} {fault.what}"]
    if wrong := misplaced(FAULTS):
        print("\n".join(wrong), file=sys.stderr)
        return 2
    lines = ["| fault | in | caught by |", "| --- | --- | --- |"]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tree / name)
        for n, fault in enumerate(faults, 1):
            found = caught(fault, tree)
            survived += not found
            lines.append(f"| {fault.what} | {fault.file} | {found or '**nothing**'} |")
            print(f"{n}/{len(faults)} {fault.what}: {found or 'SURVIVED'}", flush=True)
    print("\n".join(["", *lines, "", f"{len(faults)} faults, {survived} survived."]))
    if options.table:
        options.table.write_text("\n".join([*lines, "", f"{len(faults)} faults, {survived} survived.", ""]))
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
