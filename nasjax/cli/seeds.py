"""`--seeds`: the same run with several seeds, one after the other or side by side, and a table of what they found."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from nasjax.cli.runs import DAMAGE, table
from nasjax.report.metric import Metric
from nasjax.report.workdir import read
from nasjax.store import started

MOST = 1000
INTERRUPTED = 130


def parsed(text: str) -> list[int]:
    """The seeds of "0..4" (both ends among them) or "0,1,2". Raises ValueError for anything else."""
    first, dots, last = text.partition("..")
    try:
        found = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or len(set(found)) < len(found) or min(found) < 0 or len(found) > MOST:
        raise ValueError(f"--seeds={text}: write --seeds=0..4 or --seeds=0,1,2, different seeds of 0 or more")
    return found


def require(given: Any) -> None:
    """Raises ValueError where the flags --seeds and --parallel have no effect beside the others, or no meaning."""
    if given.seeds is None:
        raise ValueError("--parallel has no effect without --seeds=0..4; leave it out")
    if given.mode not in ("search", "retrain"):
        raise ValueError(f"--seeds has no effect with --mode={given.mode}; leave it out")
    if given.seed is not None:
        raise ValueError("--seed and --seeds: give one of them")
    if any(assignment.partition("=")[0].strip() == "seed" for assignment in given.set):
        raise ValueError("--set seed and --seeds: give one of them")  # all runs would have that one
    if given.coordinator is not None:
        raise ValueError("--seeds starts no run on several hosts; give --seed with --coordinator, one after the other")
    if given.parallel is not None and (given.parallel < 1 or given.workers):
        raise ValueError("--parallel=K starts K processes, 1 or more, each without --workers; give one of the two")


def words(given: Any, seed: int, workdirs: Sequence[Path]) -> list[str]:
    """The flags of a command for one seed: those that were given, and its own seed and workdir, if it has one."""
    kept = [name for name in given if given[name].present and name not in ("seeds", "parallel", "workdir")]
    found = []
    for name in kept:
        value = given[name].value
        if isinstance(value, bool):
            found.append(f"--{'' if value else 'no'}{name}")
        else:
            found += [f"--{name}={one}" for one in (value if isinstance(value, list) else [value])]
    return [*found, f"--seed={seed}", *(f"--workdir={path}" for path in workdirs)]


def after_another(runs: Mapping[int, Path], run: Callable[[int], int]) -> dict[int, int]:
    """Runs each seed in this process; its exit code. An interrupt ends it, a failure does not."""
    codes: dict[int, int] = {}
    for seed, path in runs.items():
        print(f"seed {seed}, {len(codes) + 1} of {len(runs)}, in {path}", file=sys.stderr, flush=True)
        codes[seed] = run(seed)
        if codes[seed] == INTERRUPTED:
            break
    return codes


def side_by_side(
    runs: Mapping[int, Path], command: Callable[[int], Sequence[str]], together: int, environment: Mapping[str, str]
) -> dict[int, int]:
    """Runs each seed in a process of its own, `together` at a time; its exit code.

    What a process prints is printed here, a line at a time, after its seed. An interrupt is passed on to all that run,
    which save what they have; no other is started. The processes end with this one: they cannot print without it.
    """
    codes: dict[int, int] = {}
    running: dict[int, subprocess.Popen[str]] = {}
    stopped, lock = threading.Event(), threading.Lock()

    def one(seed: int) -> None:
        with lock:
            if stopped.is_set():
                return
            process = running[seed] = subprocess.Popen(
                command(seed),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
                start_new_session=True,  # a terminal's interrupt comes from here, once
            )
        assert process.stdout is not None and process.stderr is not None
        copies = [
            threading.Thread(target=_copied, args=(source, target, f"s{seed}: "))
            for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        ]
        with process:
            for copy in copies:
                copy.start()
            for copy in copies:
                copy.join()
        codes[seed] = process.returncode if process.returncode >= 0 else 1

    with ThreadPoolExecutor(together) as pool:
        try:
            for job in [pool.submit(one, seed) for seed in runs]:
                job.result()
        except KeyboardInterrupt:
            with lock:
                stopped.set()
            for process in running.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            raise
    return {seed: codes[seed] for seed in runs}


_PRINTING = threading.Lock()  # print writes a line and its end one after the other: another seed's came between


def _copied(source: IO[str], target: IO[str], before: str) -> None:
    with source, contextlib.suppress(BrokenPipeError):  # nobody reads: the process learns it from its closed pipe
        for line in source:
            with _PRINTING:
                print(before + line.rstrip("\n"), file=target, flush=True)


def summary(runs: Mapping[int, Path], codes: Mapping[int, int]) -> list[str]:
    """The table: of every seed what it found, then mean and deviation; and what to type next."""
    rows: dict[str, list[str]] = {}
    values: dict[str, list[float]] = {}
    shown: dict[str, Metric] = {}
    cells: dict[int, dict[str, str]] = {}
    for seed, path in runs.items():
        cells[seed] = {}
        for name, (metric, fitness) in _found(path).items():
            cells[seed][name], shown[name] = metric.text(fitness), metric
            values.setdefault(name, []).append(fitness)
    for seed, path in runs.items():
        failed = f" (exit code {codes[seed]})" if codes.get(seed) else " (not run)" if seed not in codes else ""
        rows[str(seed)] = [*(cells[seed].get(name, "none") for name in values), f"{path}{failed}"]
    several = {name: of for name, of in values.items() if len(of) > 1}
    if several:
        rows["mean"] = [shown[name].text(statistics.fmean(of)) for name, of in values.items()] + [""]
        spread = {name: shown[name]._replace(sign=1).text(statistics.stdev(of)) for name, of in several.items()}
        rows["deviation"] = [spread.get(name, "") for name in values] + ["of the sample, n - 1"]
    done = [str(path) for path in runs.values() if (path / "config.json").is_file()]
    after = [f"Next: {started.own()} --mode=report --workdir={shlex.quote(','.join(done))}"] if len(done) > 1 else []
    return [*table(rows, ["seed", *values, "workdir"]), *after]


def _found(path: Path) -> dict[str, tuple[Metric, float]]:
    """What a workdir holds, as fitness: {"best validation accuracy": (metric, 0.9)}; {} where it cannot be read."""
    try:
        run = read(path)
        found = {}
        if run.best is not None and run.best.fitness is not None:
            found[f"best {run.metric.title}{run.best.after}"] = run.metric, run.best.fitness
            if run.best.result is not None:
                known = run.in_table
                found["result in the table"] = known, known.sign * run.best.result
        if run.tested is not None:
            metric, value = run.tested
            found[f"test {metric.name}"] = metric, metric.sign * value
        return found
    except DAMAGE:
        return {}


def worst(codes: Mapping[int, int]) -> int:
    """The first exit code that is not 0."""
    return next((code for code in codes.values() if code), 0)
