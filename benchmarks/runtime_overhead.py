"""What a runtime adds to a trial: the time from submitting an empty task to its result, inline, in processes, on Ray.

One task at a time gives the latency; as many as there are workers, each replaced as soon as it has ended, give the
tasks per second that one driver can serve. Below them stands Ray itself: the same task as a method of an actor, and as
a remote function; and DeepHyper's evaluators doing the same, where it is installed (pip install deephyper).

    python benchmarks/runtime_overhead.py        # without Ray installed: --runtimes inline process deephyper

Prints a row per runtime and number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.runtime.inline import inline
from nasjax.runtime.process import process
from nasjax.runtime.ray import ray
from nasjax.types import Runtime

# A worker's `begin` must be importable, which this file is not: tuple([facts, work]) is (facts, work).
EMPTY = (tuple, ([{}, abs],))


def served(runtime: Runtime, tasks: int, flight: int) -> list[float]:
    """Seconds from submit to result, with so many tasks in flight."""
    began: dict[int, float] = {}
    seconds: list[float] = []
    left = tasks
    while left or began:
        while left and len(began) < flight:
            now = time.perf_counter()
            began[runtime.submit(-1)] = now
            left -= 1
        for ticket, result in runtime.wait():
            seconds.append(time.perf_counter() - began.pop(ticket))
            assert result == 1, result
    return seconds


def row(
    name: str, workers: int, start_s: float, serve: Callable[[int, int], list[float]], tasks: int
) -> dict[str, Any]:
    serve(4 * workers, workers)  # every worker is there
    alone = serve(tasks, 1)
    began = time.perf_counter()
    serve(tasks, workers)
    rate = tasks / (time.perf_counter() - began)
    low, middle, high = (1e3 * np.quantile(alone, (0.25, 0.5, 0.75))).tolist()
    found = {"runtime": name, "workers": workers, "start_s": start_s, "latency_ms": middle, "quartiles_ms": [low, high]}
    print(f"| {name} | {workers} | {middle:.3g} ({low:.3g} to {high:.3g}) | {rate:,.0f} | {start_s:.1f} |", flush=True)
    return {**found, "tasks_per_s": rate}


class Bare:
    """An actor with nothing of nasjax."""

    def abs_of(self, x: int) -> int:
        return abs(x)


def plain(engine: Any, calls: list[Callable[[int], Any]]) -> Callable[[int, int], list[float]]:
    """The same of Ray alone: `calls` are where a task may run, one at a time in each."""

    def serve(tasks: int, flight: int) -> list[float]:
        began: dict[Any, tuple[float, Any]] = {}
        seconds: list[float] = []
        left, free = tasks, calls[:flight]
        while left or began:
            while left and free:
                now, call = time.perf_counter(), free.pop()
                began[call(-1)] = (now, call)
                left -= 1
            for ref in engine.wait(list(began))[0]:
                assert engine.get(ref) == 1
                now, call = began.pop(ref)
                seconds.append(time.perf_counter() - now)
                free.append(call)
        return seconds

    return serve


def by_deephyper(method: str, workers: int) -> tuple[Callable[[int, int], list[float]], Callable[[], Any]]:
    """DeepHyper's evaluator "process" or "ray" as it comes, with its own storage of jobs; and what closes it."""
    from deephyper.evaluator import Evaluator

    more = {"num_cpus": workers} if method == "ray" else {}
    evaluator = Evaluator.create(absolute, method=method, method_kwargs={"num_workers": workers, **more})

    def serve(tasks: int, flight: int) -> list[float]:
        seconds: list[float] = []
        left, running = tasks, 0
        while left or running:
            while left and running < flight:
                evaluator.submit([{"x": -1, "began": time.perf_counter()}])
                left, running = left - 1, running + 1
            for job in evaluator.gather("BATCH", size=1):
                assert job.output == 1, job.output
                seconds.append(time.perf_counter() - job.args["began"])
                running -= 1
        return seconds

    return serve, evaluator.close


def absolute(job: Any) -> int:
    return abs(job["x"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--runtimes", nargs="*", default=["inline", "process", "ray", "deephyper"])
    args = parser.parse_args()
    rows = []
    heads = ("runtime", "workers", "ms from submit to result (quartiles)", "tasks per second", "s to start")
    print(f"| {' | '.join(heads)} |")
    print("| --- " * 5 + "|")
    if "inline" in args.runtimes:
        runtime = inline(abs)
        rows.append(row("inline", 1, 0.0, lambda tasks, flight: served(runtime, tasks, 1), args.tasks))
    starts = {"process": process, "ray": ray}
    if "ray" in args.runtimes:
        import ray as engine

        engine.init(
            address="local",
            num_cpus=max(args.workers),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=2**27,
        )
    for name in (name for name in args.runtimes if name in starts):
        for workers in args.workers:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                runtime, _ = starts[name](*EMPTY, workers=workers, logs=Path(folder) / "run" / "workers")
                took = time.perf_counter() - began
                try:
                    serve = lambda tasks, flight, runtime=runtime: served(runtime, tasks, flight)  # noqa: E731
                    rows.append(row(name, workers, took, serve, args.tasks))
                finally:
                    runtime.close()
    if "ray" in args.runtimes:
        for workers in args.workers:
            actors = [engine.remote(Bare).options(num_cpus=1).remote() for _ in range(workers)]
            calls = [actor.abs_of.remote for actor in actors]
            rows.append(row("Ray: an actor's method", workers, 0.0, plain(engine, calls), args.tasks))
            for actor in actors:
                engine.kill(actor)
        for workers in args.workers:
            calls = [engine.remote(lambda x: abs(x)).options(max_retries=0).remote] * workers
            rows.append(row("Ray: a function", workers, 0.0, plain(engine, calls), args.tasks))
    if "deephyper" in args.runtimes and find_spec("deephyper") is None:
        args.runtimes.remove("deephyper")
        print("DeepHyper is left out: it is not installed (pip install deephyper)", file=sys.stderr)
    if "deephyper" in args.runtimes:
        for method in ("process", *(["ray"] if "ray" in args.runtimes else [])):
            for workers in args.workers:
                began = time.perf_counter()
                serve, close = by_deephyper(method, workers)
                took = time.perf_counter() - began
                rows.append(row(f"DeepHyper, {method}", workers, took, serve, args.tasks))
                close()
    if "ray" in args.runtimes:
        engine.shutdown()
    versions = {name: version(name) for name in ("jax", "ray", "deephyper") if name in ("jax", *args.runtimes)}
    print(
        json.dumps({"benchmark": "runtime_overhead", **vars(args), "rows": rows, "cores": os.cpu_count(), **versions})
    )


if __name__ == "__main__":
    main()
