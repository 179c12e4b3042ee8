"""Do the tests see a fault? Each of `faults.py` is put into a copy of the sources, and tests that should see it run.

    python benchmarks/mutation/run.py [--only=WORD] [--table=FILE]

Prints a line per fault and at the end a table in Markdown: the fault, and the first test that failed. The exit code is
1 where a fault survived, and 2 where a text that a fault replaces is not there exactly once. Tests of both selections
count. All faults take about half an hour of one core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
SERVER = multiprocessing.get_context("forkserver")
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
        code, told = pytest_of(shlex.split(fault.tests), tree)
    finally:
        file.write_text(text)
    found = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - |$)", told, re.MULTILINE)
    return (found[1] if found else "a run that did not end") if code else ""


def pytest_of(names: list[str], tree: Path) -> tuple[int, str]:
    """Runs tests in `tree`: the exit code, and what was told."""
    told = tree / "told"
    child = SERVER.Process(target=tests, args=(tree, names, told))
    try:
        child.start()
        child.join(900)
    finally:
        if child.pid is not None:
            child.kill()
    child.join()
    if child.exitcode in (4, 5):  # no such test
        raise RuntimeError(told.read_text()[-3000:])
    return child.exitcode, told.read_text()


def tests(tree: Path, names: list[str], told: Path) -> None:
    """Runs tests in `tree`, in a process that has the heavy modules but nothing of nasjax yet."""
    assert not any(name.startswith("nasjax") for name in sys.modules)
    sys.dont_write_bytecode = True  # of a file that changes twice within a second, an old one could be taken
    os.chdir(tree)
    sys.path[:0] = [str(tree)]
    os.environ["PYTHONPATH"] = str(tree)
    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import pytest

    code = pytest.main(["-x", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider", *names])
    sys.stdout.flush()
    os._exit(int(code))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose file or words contain this")
    parser.add_argument("--begin", type=int, default=1, help="with this fault")
    parser.add_argument("--table", type=Path, help="where the table goes, too")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in f"{fault.file} {fault.what}"][options.begin - 1 :]
    if wrong := misplaced(FAULTS):
        print("\n".join(wrong), file=sys.stderr)
        return 2
    lines = ["| fault | in | caught by |", "| --- | --- | --- |"]
    survived, failed = 0, set[str]()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        os.environ |= {"JAX_PLATFORMS": "cpu", "NASJAX_TEST_PROGRAMS": str(tree / "programs")}  # compiled once for all
        SERVER.set_forkserver_preload(["jax", "flax.linen", "optax", "orbax.checkpoint", "scipy.stats", "pytest"])
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tree / name)
        for n, fault in enumerate(faults, 1):
            found = caught(fault, tree)
            survived += not found
            lines.append(f"| {fault.what} | {fault.file} | {found or '**nothing**'} |")
            failed.add(found)
            print(f"{n}/{len(faults)} {fault.what}: {found or 'SURVIVED'}", flush=True)
        if (failed := failed - {""}) and pytest_of(sorted(failed), tree)[0]:
            print("these tests fail without a fault, too:\n" + (tree / "told").read_text()[-3000:], file=sys.stderr)
            return 2
    print("\n".join(["", *lines, "", f"{len(faults)} faults, {survived} survived."]))
    if options.table:
        options.table.write_text("\n".join([*lines, "", f"{len(faults)} faults, {survived} survived.", ""]))
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
