"""A worker process of `runtime.process`: builds what it does once, then answers tasks until its driver is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection

from nasjax.types import Failure, Status, one_line


def main(fd: int, cpus: list[int]) -> None:
    """Messages come and go through the socket `fd`; `cpus` are the cores to use, none = all.

    Receives (begin, arguments), answers ("ready", facts) or ("refused", kind of error, one line), then
    answers every (ticket, task) with (ticket, result).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's affair
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    connection = Connection(fd)
    begin, arguments = connection.recv()
    try:
        facts, work = begin(*arguments)
    except Exception as error:
        traceback.print_exc()
        text = str(error) if isinstance(error, (ValueError, FileNotFoundError)) else one_line(error)
        connection.send(("refused", type(error).__name__, text))
        return
    connection.send(("ready", facts))
    while True:
        try:
            ticket, task = connection.recv()
        except EOFError:
            return
        try:
            result = work(task)
        except Exception as error:
            traceback.print_exc()
            result = Failure(Status.FAILED, one_line(error))
        connection.send((ticket, result))


def _leave_with(parent: int) -> None:
    """Ends this process when its driver has."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(cpu) for cpu in sys.argv[2].split(",") if cpu])
