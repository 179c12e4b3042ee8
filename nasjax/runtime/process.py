"""Runtime `process`: worker processes on this machine, each given the next task as soon as it is free.

The processes share the cores evenly. Each has one of the accelerators, and shares its memory where they outnumber them.
They end with the driver, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as ready_of
from pathlib import Path
from typing import Any

from nasjax.runtime import devices
from nasjax.runtime.jax_settings import handed_on
from nasjax.runtime.pool import Message, pool
from nasjax.types import Runtime

MEMORY = 0.9  # of an accelerator, for all workers together


@dataclass(eq=False)
class _Process:
    """A worker process and this end of its pipe; a `Link`."""

    process: subprocess.Popen[bytes]
    connection: Connection

    def send(self, ticket: int, task: Any) -> None:
        with contextlib.suppress(OSError):  # it died; `heard` will see
            self.connection.send((ticket, task))

    def stop(self) -> list[Message]:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        said: list[Message] = []
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll():
                said.append(self.connection.recv())
        self.connection.close()
        return said


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
      ValueError or FileNotFoundError: as the function raised it; ValueError: JAX does not start.
      OSError: workers die while they start.
    """
    variables = handed_on(os.environ)
    kind, count = devices.found(variables) if workers > 1 else ("", 1)

    def start(number: int) -> _Process:
        ours, theirs = Pipe()
        logs.mkdir(parents=True, exist_ok=True)
        with log_of(logs, number).open("ab") as log:
            started = subprocess.Popen(
                [
                    *(sys.executable, "-m", "nasjax.runtime.worker"),
                    *(str(theirs.fileno()), _cores(number, workers), devices.own(number, kind, count)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **variables,
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    **memory(devices.sharing(workers, kind, count)),
                },
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        theirs.close()
        ours.send((begin, arguments))
        return _Process(started, ours)

    return pool(start, _heard, workers=workers, logs=str(log_of(logs, "{}")))


def _heard(links: Sequence[_Process], seconds: float | None) -> list[tuple[_Process, Message]]:
    spoken = ready_of([link.connection for link in links], seconds)
    return [(link, _message(link)) for link in links if link.connection in spoken]


def _message(link: _Process) -> Message:
    try:
        return link.connection.recv()
    except (EOFError, OSError):
        code = link.process.wait()
        return "died", f"its worker died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


def log_of(logs: Path, number: int | str) -> Path:
    """The file of what a worker prints."""
    return logs / f"worker{number}.log"


def memory(workers: float) -> dict[str, str]:
    """The memory setting with which this many JAX processes share an accelerator, unless the user has chosen one."""
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    return {name: os.environ.get(name) or f"{MEMORY / workers:.3f}"}


def _cores(number: int, workers: int) -> str:
    """The cores of a worker: an even share, or one where workers outnumber them. "" = the system's choice."""
    if not hasattr(os, "sched_getaffinity"):
        return ""
    cores = sorted(os.sched_getaffinity(0))
    share = cores[number * len(cores) // workers : (number + 1) * len(cores) // workers]
    return ",".join(map(str, share or [cores[number % len(cores)]]))
