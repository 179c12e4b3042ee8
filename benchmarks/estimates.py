"""What a demo says of its length, beside the truth: every method's demo as a command, with nothing compiled before.

    python benchmarks/estimates.py                       # every method, search and retraining: an hour on two cores
    python benchmarks/estimates.py --methods bn_nas spos --modes search
    python benchmarks/estimates.py --methods random evolution --modes retrain --trials 2
    python benchmarks/estimates.py --methods drnas --modes retrain --arch DARTS_V2

Prints a row per estimate: what it is of, when it was said, the truth, their ratio, and the longest silence of the run.
An estimate "for the supernet" is of the first phase alone, which has ended with its last line.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from nasjax.catalog import METHODS

UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400}
ESTIMATE = re.compile(r"^((?:first|second) .*?): .*; about ([\d.]+) (s|min|h|days) (in all|for the supernet)")
LIMIT = 1.5  # of the ratio


class Line(NamedTuple):
    at: float  # seconds since the command began
    text: str


class Row(NamedTuple):
    of: str
    estimate_s: float
    said_s: float
    truth_s: float

    @property
    def ratio(self) -> float:
        return self.estimate_s / self.truth_s


def ran(arguments: list[str]) -> list[Line]:
    """The lines of a command, and an empty one at its end. Raises RuntimeError where it fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "nasjax.launch", "--compile_cache=off", *arguments]
    lines = [Line(0.0, "")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            lines.append(Line(time.monotonic() - began, text.rstrip()))
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {lines[-1].text}")
    return [*lines, Line(time.monotonic() - began, "")]


def estimates(lines: list[Line]) -> list[Row]:
    """Those that were said, beside what they were of."""
    found = []
    for line in lines:
        if match := ESTIMATE.match(line.text):
            what, number, unit, of = match.groups()
            end = lines[-1].at
            if of != "in all":
                end = max(other.at for other in lines if other.text.startswith("supernet epoch"))
            found.append(Row(f"{of}, by the {what}", float(number) * UNITS[unit], line.at, end))
    return found


def silence(lines: list[Line]) -> float:
    """The longest, in seconds."""
    return max(after.at - before.at for before, after in itertools.pairwise(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--modes", nargs="+", choices=("search", "retrain"), default=("search", "retrain"))
    parser.add_argument("--trials", type=int, help="of the search before a retraining, in place of the demo's")
    parser.add_argument("--arch", help="retrain this architecture, in place of a search")
    given = parser.parse_args()
    more = {"search": [f"--trials={given.trials}"] if given.trials else [], "retrain": []}
    if given.arch:
        more["retrain"] = [f"--arch={given.arch}"]
    print("| demo | estimate | said after (s) | estimate (s) | truth (s) | ratio | longest silence (s) |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    off = 0
    for method in given.methods:
        with tempfile.TemporaryDirectory() as folder:
            for mode in ("search", "retrain"):
                if (mode == "retrain" and mode not in given.modes) or (mode == "search" and given.arch):
                    continue
                lines = ran([f"--mode={mode}", f"--method={method}", f"--workdir={folder}/run", *more[mode]])
                for row in estimates(lines) if mode in given.modes else ():
                    off += not 1 / LIMIT <= row.ratio <= LIMIT
                    numbers = f"{row.said_s:.0f} | {row.estimate_s:.0f} | {row.truth_s:.0f} | {row.ratio:.2f}"
                    print(f"| `{method}` {mode} | {row.of} | {numbers} | {silence(lines):.0f} |", flush=True)
    print(f"{off} beyond a factor of {LIMIT}")


if __name__ == "__main__":
    main()
