"""The coordinator's ceiling: trials per second that `drive.search` asks for, records and tells when work costs nothing.

Workers are virtual (`runtime.simulated`), so what is measured is the loop itself: the searcher, the ledger, and the
other files. No number of workers can end more trials per second than this. Each event of a search is on the disk before
the next one (fsync): the first line says what that costs here, and `--folder=/dev/shm` leaves it out.

    python benchmarks/coordinator.py [--workers 1 10 100 1000 10000] [--width 1 8] [--trials=300] [--folder=FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from nasjax.drive.search import search
from nasjax.drive.work import Answer, Work
from nasjax.runtime.simulated import simulated
from nasjax.searchers.aging import aging
from nasjax.searchers.random import random_search
from nasjax.searchers.reinforce import reinforce
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Budget, Evaluation


def empty(task: Work) -> Answer:
    n = len(task.ids)
    fitness = (task.archs.sum(1) % 7).astype(np.float32)
    return Answer(Evaluation(fitness, np.ones(n, np.float32), np.zeros(n, np.int8), {}), {})


def ceiling(searcher, space: TabularCell, workers: int, width: int, trials: int, folder: str | None) -> float:
    """Trials per second between the 20th result, when everything is compiled and all workers are busy, and the end."""
    ends: list[float] = []

    def told(summary) -> None:
        ends.append(time.perf_counter())

    def duration(task: Work, result: Answer) -> float:
        return 10 + int(task.ids[0]) * 7919 % 97

    runtime = simulated(empty, duration, workers)
    with tempfile.TemporaryDirectory(dir=folder) as workdir:
        search(
            jax.random.key(0),
            searcher,
            runtime,
            workdir=Path(workdir),
            budget=Budget(20 * width + trials),
            width=width,
            describe=lambda arch: {"arch": space.encode(arch), "params": 0, "macs": 0},
            on_told=told,
        )
    return (len(ends) - 20) * width / (ends[-1] - ends[19])


def seconds_to_write(folder: str | None, times: int = 50) -> float:
    """A short line appended and on the disk."""
    with tempfile.TemporaryDirectory(dir=folder) as workdir, open(Path(workdir) / "lines", "a") as file:
        begun = time.perf_counter()
        for _ in range(times):
            file.write("x" * 200 + "\n")
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - begun) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 10, 100, 1000, 10_000])
    parser.add_argument("--width", type=int, nargs="*", default=[1, 8], help="candidates per task")
    parser.add_argument("--trials", type=int, default=300, help="that are timed, a multiple of every width")
    parser.add_argument("--folder", help="where the searches write; the default is the system's temporary folder")
    args = parser.parse_args()
    space, rows = TabularCell(), []
    written = seconds_to_write(args.folder)
    print(f"A line on the disk: {1e3 * written:.2f} ms. Trials per second:\n")
    print(f"| searcher | width | {' | '.join(f'{workers:,} workers' for workers in args.workers)} |")
    print(f"|{' --- |' * (2 + len(args.workers))}")
    for width in args.width:
        for name in ("random", "evolution", "reinforce"):
            found = []
            for workers in args.workers:
                room = max(1024, workers * width)
                searcher = {
                    "random": lambda: random_search(space),
                    "evolution": lambda room=room: aging(space, in_flight=room),
                    "reinforce": lambda room=room: reinforce(space, capacity=room),
                }[name]()
                found.append(ceiling(searcher, space, workers, width, args.trials, args.folder))
            rows.append({"searcher": name, "width": width, "trials_per_s": found})
            print(f"| {name} | {width} | {' | '.join(f'{rate:,.0f}' for rate in found)} |", flush=True)
    print(
        "\n"
        + json.dumps(
            {"benchmark": "coordinator", **vars(args), "line_s": written, "rows": rows, "jax": jax.__version__}
        )
    )


if __name__ == "__main__":
    main()
