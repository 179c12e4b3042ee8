"""Runtime `process`: worker processes on this machine, each given the next task as soon as it is free.

A worker that dies or takes too long is replaced; what it did is a `Failure`. The processes share the cores evenly, and
the memory of an accelerator. They end with the driver, however it ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as ready_of
from pathlib import Path
from typing import Any

from nasjax.types import Failure, Runtime, Status

MEMORY = 0.9  # of an accelerator, for all workers together
_STARTS = 3  # that may fail in a row


@dataclass
class _Worker:
    """One place for a process."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    connection: Connection | None = None
    ready: bool = False
    ticket: int | None = None
    task: Any = None
    timeout_s: float | None = None
    deadline: float | None = None  # from the moment at which the worker has the task


def process(begin: Callable[..., Any], arguments: tuple[Any, ...], *, workers: int, logs: Path) -> tuple[Runtime, Any]:
    """Starts worker processes.

    Args:
      begin: a function of a module, not of a script; called once in every worker with `arguments`, returns (facts,
        work); work(task) -> result. Arguments, tasks and results are pickled.
      arguments: of the function.
      workers: how many.
      logs: folder for what each worker prints, `worker0.log`, ...

    Returns:
      The Runtime, and the facts of the first worker, once it is ready.

    Raises:
      ValueError or FileNotFoundError: as the function raised it.
      OSError: the first worker died while it started.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    pool = [_Worker(number) for number in range(workers)]
    tickets, served, results = itertools.count(), {}, deque()  # type: ignore[var-annotated]
    failed_starts = 0

    def start(worker: _Worker) -> None:
        ours, theirs = Pipe()
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"worker{worker.number}.log").open("ab") as log:
            worker.process = subprocess.Popen(
                [sys.executable, "-m", "nasjax.runtime.worker", str(theirs.fileno()), _cores(worker.number, workers)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(workers),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        theirs.close()
        worker.connection, worker.ready = ours, False
        ours.send((begin, arguments))

    def stop(worker: _Worker) -> list[Any]:
        """Ends a worker's process and frees the worker; returns what it had still said."""
        said: list[Any] = []
        if worker.process is not None and worker.connection is not None:
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait()
            try:
                while worker.connection.poll():
                    said.append(worker.connection.recv())
            except (EOFError, OSError):
                pass
            worker.connection.close()
        worker.process = worker.connection = None
        worker.ready = False
        free(worker)
        return said

    def hand(worker: _Worker) -> None:
        """Sends a worker its task, once it is ready for one."""
        assert worker.connection is not None
        if worker.ready and worker.ticket is not None:
            worker.deadline = None if worker.timeout_s is None else time.monotonic() + worker.timeout_s
            with contextlib.suppress(OSError):  # it died; `wait` will see
                worker.connection.send((worker.ticket, worker.task))

    def free(worker: _Worker) -> None:
        worker.ticket = worker.task = worker.deadline = None

    def submit(task: Any, timeout_s: float | None = None) -> int:
        ticket = next(tickets)
        worker = min((one for one in pool if one.ticket is None), key=lambda one: (not one.ready, one.number))
        served[ticket] = worker.number
        worker.ticket, worker.task, worker.timeout_s = ticket, task, timeout_s
        if worker.process is None:
            start(worker)
        hand(worker)
        return ticket

    def heard(worker: _Worker) -> Any:
        """What a worker says; the facts of one that has just become ready, else None."""
        nonlocal failed_starts
        assert worker.connection is not None and worker.process is not None
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            code, was_ready, ticket = worker.process.wait(), worker.ready, worker.ticket
            stop(worker)
            why = f"its worker died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
            if ticket is not None:
                results.append((ticket, Failure(Status.LOST, why)))
            failed_starts += not was_ready
            if failed_starts >= _STARTS:
                raise OSError(f"worker processes die while they start; see {logs}/worker{worker.number}.log") from None
            return None
        match message:
            case ("refused", kind, text):
                raise {"ValueError": ValueError, "FileNotFoundError": FileNotFoundError}.get(kind, OSError)(text)
            case ("ready", facts):
                worker.ready, failed_starts = True, 0
                hand(worker)
                return facts
            case ticket, result:
                results.append((ticket, result))
                if worker.ticket == ticket:
                    free(worker)
        return None

    def wait() -> list[tuple[int, Any]]:
        while not results and any(worker.ticket is not None for worker in pool):
            deadlines = [worker.deadline for worker in pool if worker.deadline is not None]
            left = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            open_ = [worker.connection for worker in pool if worker.connection is not None]
            spoken = ready_of(open_, left)
            for worker in pool:
                if worker.connection in spoken:
                    heard(worker)
            for worker in pool:
                if worker.deadline is not None and time.monotonic() >= worker.deadline:
                    ticket, seconds = worker.ticket, worker.timeout_s
                    late = [message for message in stop(worker) if message[0] == ticket]
                    results.append((ticket, Failure(Status.TIMEOUT, f"took longer than {seconds:g} s")))
                    results.extend(late)
        ended = list(results)
        results.clear()
        return ended

    def cancel(ticket: int) -> None:
        for worker in pool:
            if worker.ticket == ticket:
                stop(worker)

    def close() -> None:
        for worker in pool:
            stop(worker)

    start(pool[0])
    try:
        while (facts := heard(pool[0])) is None:
            if pool[0].process is None:
                raise OSError(f"the first worker process died while it started; see {logs}/worker0.log")
    except BaseException:
        close()
        raise
    return Runtime(submit, wait, cancel, close, served.__getitem__, workers, time.monotonic), facts


def _cores(number: int, workers: int) -> str:
    """The cores of a worker: an even share, or one where workers outnumber them. "" = the system's choice."""
    if not hasattr(os, "sched_getaffinity"):
        return ""
    cores = sorted(os.sched_getaffinity(0))
    share = cores[number * len(cores) // workers : (number + 1) * len(cores) // workers]
    return ",".join(map(str, share or [cores[number % len(cores)]]))


def _environment(workers: int) -> dict[str, str]:
    """The driver's, with its module path and a share of an accelerator's memory."""
    own = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        own["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{MEMORY / workers:.3f}"
    return {**os.environ, **own}
