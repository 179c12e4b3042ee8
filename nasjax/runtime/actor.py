"""A worker of `runtime.ray`: checks that its machine matches the driver's, then works like any other."""

from __future__ import annotations

import os
import platform
import random
import socket
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.runtime.pool import Message
from nasjax.runtime.worker import answer, begun

_PACKAGES = ("nasjax", "jax", "jaxlib", "ray")
_CLAIMS: list[int] = []  # open files whose locks are this process's cores


class Driver(NamedTuple):
    """What must be the same on a worker's machine as on the driver's."""

    versions: dict[str, str]
    file: str  # in a folder that both must see
    content: str


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that must be equal for two processes to work together."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "from a folder"

    return {"python": platform.python_version(), **{name: of(name) for name in _PACKAGES}}


def unlike(driver: Driver) -> str | None:
    """Why this machine cannot work for a driver, in one line; None = it can."""
    here, own = socket.gethostname(), versions()
    if other := [name for name in own if own[name] != driver.versions.get(name)]:
        pairs = ", ".join(f"{name} {own[name]} (driver: {driver.versions.get(name)})" for name in other)
        return f"the machine {here} of the cluster has {pairs}; install the same versions everywhere"
    try:
        same = Path(driver.file).read_text() == driver.content
    except OSError:
        same = False
    if not same:
        folder = Path(driver.file).parents[1]
        return f"the machine {here} of the cluster does not see {folder}; give a --workdir in a folder that all share"
    return None


class Actor:
    """The class of the Ray actor, which does one thing at a time."""

    _work: Callable[[Any], Any] | None = None

    def begin(
        self, begin: Callable[..., Any], arguments: tuple[Any, ...], driver: Driver, log: str, cpus: float
    ) -> Message:
        """Builds the worker.

        Args:
          begin: of `runtime.ray`.
          arguments: of it.
          driver: what must be the same here.
          log: file for what this process prints from now on.
          cpus: that Ray counts for it.

        Returns:
          ("ready", facts), or ("refused", kind of error, one line).
        """
        if wrong := unlike(driver):
            return "refused", "ValueError", wrong
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for stream in (1, 2):
            os.dup2(file, stream)
        claim_cores(cpus)
        message, self._work = begun(begin, arguments)
        return message

    def answer(self, task: Any) -> Any:
        """The result of a task, or a Failure."""
        assert self._work is not None
        return answer(self._work, task)


def claim_cores(cpus: float) -> None:
    """Limits this process, and with it the threads that JAX starts, to as many cores as Ray counts for it (Linux).

    Ray counts cores but assigns none. The workers of a machine therefore claim cores by file locks, which vanish with
    the process: one lock per core, or several where workers share it.
    """
    if not hasattr(os, "sched_getaffinity"):
        return
    import fcntl

    cores = sorted(os.sched_getaffinity(0))
    number = max(1, int(cpus))
    if number >= len(cores):
        return
    folder = Path(tempfile.gettempdir()) / f"nasjax-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    mine: list[int] = []
    for place in range(max(1, round(1 / cpus))):  # workers on a core
        for core in cores:
            if len(mine) < number and core not in mine:
                file = os.open(folder / f"{core}-{place}", os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(file)
                    continue
                _CLAIMS.append(file)
                mine.append(core)
    others = [core for core in cores if core not in mine]  # where Ray was given more cores than the machine has
    os.sched_setaffinity(0, [*mine, *random.sample(others, number - len(mine))])
