"""A worker: builds what it does once, then answers tasks. As a program, the process of `runtime.process`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from nasjax.runtime.devices import use
from nasjax.runtime.jax_settings import no_backend
from nasjax.runtime.pool import Message
from nasjax.types import Failure, Status, one_line


def main(fd: int, cpus: list[int], device: str = "") -> None:
    """Messages come and go through the socket `fd`; `cpus` are the cores to use, none = all; `device` as of `devices`.

    Receives (begin, arguments), answers ("ready", facts) or ("refused", kind of error, one line), then
    answers every (ticket, task) with (ticket, result), until the driver is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    connection = Connection(fd)
    begin, arguments = connection.recv()
    message, work = begun(begin, arguments, device)
    connection.send(message)
    while work is not None:
        try:
            ticket, task = connection.recv()
        except EOFError:
            return
        connection.send((ticket, answer(work, task)))


def begun(
    begin: Callable[..., Any], arguments: tuple[Any, ...], device: str = ""
) -> tuple[Message, Callable[[Any], Any] | None]:
    """A worker's first message, and its function task -> result; None where it could not be built."""
    try:
        use(device)
        facts, work = begin(*arguments)
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, (ValueError, FileNotFoundError)):
            return ("refused", type(error).__name__, str(error)), None
        kind = "ValueError" if no_backend(error) else type(error).__name__
        return ("refused", kind, one_line(error)), None
    return ("ready", facts), work


def answer(work: Callable[[Any], Any], task: Any) -> Any:
    """work(task), or a Failure where it raises, whose traceback is printed."""
    began = time.monotonic()
    try:
        return work(task)
    except Exception as error:
        traceback.print_exc()
        return Failure(Status.FAILED, one_line(error), seconds=time.monotonic() - began)


def _leave_with(parent: int) -> None:
    """Ends this process once its driver has ended."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(cpu) for cpu in sys.argv[2].split(",") if cpu], sys.argv[3])
