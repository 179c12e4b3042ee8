"""Runtime `ray`: workers that are actors of a Ray cluster, on this machine or on many.

Ray starts processes, says which machine has room, and carries tasks and results. What is tried again, and how often,
is decided by the search that uses the runtime: Ray itself restarts and retries nothing, since it would run the same
work twice. What workers share beside tasks lies in the workdir, which must be a folder that all machines see.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasjax.runtime.actor import Actor, Driver, unlike, versions
from nasjax.runtime.jax_settings import handed_on
from nasjax.runtime.pool import Message, pool
from nasjax.runtime.process import log_of, memory
from nasjax.types import Failure, Runtime, Status, one_line

_STORE = 2**28  # bytes of shared memory of a Ray that we start: only tasks and results pass through it
_ANSWER_S = 10.0  # for an address to answer
_PREFIXES = ("JAX_", "XLA_", "LIBTPU_", "NVIDIA_TF32_")  # of variables that decide what JAX computes
_PATIENCE_S = 60.0  # after which a worker that has not started is reported


@dataclass(frozen=True)
class RayConfig:
    """Settings of `--runtime=ray`.

    Attributes:
      address: HOST:PORT of a cluster, or "auto" for the one of this machine; None = that of the variable RAY_ADDRESS,
        else Ray is started here and ends with the run.
      num_cpus: CPUs of a worker; None = an even share. Its threads keep to that many cores.
      num_gpus: GPUs of a worker, or a part of one; None = an even share, at most one. Its share of the memory follows.
      dashboard: whether a Ray that is started here has its web page, where Ray was installed with it.
    """

    address: str | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    dashboard: bool = True

    def __post_init__(self) -> None:
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                "ray:// is Ray's client; run the command on a machine of the cluster with --ray_address=auto"
            )
        if self.num_cpus is not None and self.num_cpus <= 0:
            raise ValueError(f"num_cpus must be positive, got {self.num_cpus:g}")
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            if value is not None and (value < 0 or (value > 1 and value != int(value))):
                raise ValueError(f"{name} must be a whole number or a part of one, got {value:g}")


def ray(
    begin: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    workers: int,
    logs: Path,
    settings: RayConfig = RayConfig(),
    agree: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Runtime, Any]:
    """Starts or joins Ray, and starts workers there.

    Args:
      begin: as of `runtime.process`; every machine must be able to import it.
      arguments: of the function.
      workers: how many.
      logs: folder in the workdir for what each worker prints, `worker0.log`, ...; all machines must see it.
      settings: where, and how much a worker has.
      agree: names of facts, in which all workers must be like the first, since machines may differ.
      say: receives lines for the user.

    Returns:
      The Runtime, and the facts of the first worker, once it is ready. Its `close` leaves Ray, and ends it where it was
      started here. A Ray that the program had already joined is used, and left as it is.

    Raises:
      ValueError: Ray is not installed or cannot be joined; a machine has other versions or does not see `logs`; the
        workers do not fit into a Ray started here, or do not agree; there are TPUs; or as `begin` raised it.
      FileNotFoundError: as `begin` raised it.
      OSError: workers die while they start.
    """
    engine, logs = imported(), logs.absolute()
    with ExitStack() as stack:
        own = stack.enter_context(joined(engine, settings, say))
        cpus, gpus = placed(engine, workers, settings, own, say)
        variables, driver = environment(gpus), _driver(logs)
        if not own:
            _look(engine, cpus, gpus, variables, driver)
        worker = engine.remote(Actor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": variables},
        )

        def start(number: int) -> _Link:
            handle = worker.remote()
            ref = handle.begin.remote(begin, arguments, driver, str(log_of(logs, number)), cpus)
            return _Link(engine, number, handle, ref)

        def heard(links: Sequence[_Link], seconds: float | None) -> list[tuple[_Link, Message]]:
            return _heard(engine, links, seconds, say)

        runtime, facts = pool(start, heard, workers=workers, logs=str(log_of(logs, "{}")), agree=agree)
        stack.callback(runtime.close)
        return runtime._replace(close=stack.pop_all().close), facts
    raise AssertionError  # an ExitStack may swallow exceptions, this one does not


@dataclass(eq=False)
class _Link:
    """An actor and what it does; a `Link`."""

    engine: Any
    number: int
    handle: Any
    ref: Any  # of its answer; None = it is idle
    ticket: int | None = None  # of its task; None = it is starting
    since: float | None = field(default_factory=time.monotonic)  # None = it has started, or its delay was reported

    def send(self, ticket: int, task: Any) -> None:
        self.ticket, self.ref = ticket, self.handle.answer.remote(task)

    def stop(self) -> list[Message]:
        said = []
        if self.ref is not None and self.engine.wait([self.ref], timeout=0)[0]:
            said.append(self.message())
        self.engine.kill(self.handle, no_restart=True)
        return said

    def message(self) -> Message:
        """Its message, once its answer is there."""
        errors = self.engine.exceptions
        ref, self.ref, self.since = self.ref, None, None
        try:
            result = self.engine.get(ref)
        except errors.RayTaskError as error:  # an error of the transfer: errors of the work itself are Failures
            text = one_line(error.cause or error)
            return ("refused", "OSError", text) if self.ticket is None else (self.ticket, Failure(Status.FAILED, text))
        except errors.RayError as error:
            return "died", why(error), _preempted(error)
        return result if self.ticket is None else (self.ticket, result)


def _heard(
    engine: Any, links: Sequence[_Link], seconds: float | None, say: Callable[[str], None]
) -> list[tuple[_Link, Message]]:
    by_ref = {link.ref: link for link in links if link.ref is not None}
    end = math.inf if seconds is None else time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        starting = [link for link in links if link.ref is not None and link.since is not None]
        part = min(left, _PATIENCE_S) if starting else left
        ready = engine.wait(list(by_ref), timeout=None if part == math.inf else max(0.0, part))[0]
        if ready:  # with all others that are ready
            ready = engine.wait(list(by_ref), num_returns=len(by_ref), timeout=0)[0]
        if ready or time.monotonic() >= end:
            return [(by_ref[ref], by_ref[ref].message()) for ref in ready]
        for link in starting:
            if link.since is not None and time.monotonic() - link.since >= _PATIENCE_S:
                link.since = None
                say(f"worker {link.number} has been starting for {_PATIENCE_S:g} s; waiting for a machine with room")


def why(error: Any) -> str:
    """A worker's death in one line."""
    if _preempted(error):
        return "its worker died: the machine was preempted"
    text = " ".join(str(error).split())
    for mark in ("Worker exit detail:", "The actor is dead because", "The node"):
        if mark in text:
            text = text[text.index(mark) :].removeprefix("Worker exit detail: ")
            break
    text = text.partition(" Some common causes")[0]  # a list of guesses
    return f"its worker died ({type(error).__name__}: {text})"[:300]


def _preempted(error: Any) -> bool:
    return bool(getattr(error, "preempted", False))


def resources(nodes: Sequence[dict[str, float]], workers: int, settings: RayConfig) -> tuple[float, float]:
    """CPUs and GPUs of a worker: as set, else even shares of what the machines have. Raises ValueError for TPUs."""
    if any(node.get("TPU", 0) for node in nodes):
        raise ValueError("runtime ray cannot share a TPU among workers; use --runtime=inline on a TPU host")
    gpus = settings.num_gpus
    if gpus is None:
        gpus = share([node.get("GPU", 0) for node in nodes], workers, most=1)
    cpus = settings.num_cpus
    if cpus is None:
        cpus = share([node.get("CPU", 0) for node in nodes if node.get("GPU", 0) >= gpus], workers) or 1.0
    return cpus, gpus


def placed(
    engine: Any, workers: int, settings: RayConfig, own: bool, say: Callable[[str], None]
) -> tuple[float, float]:
    """`resources` of the cluster's machines, reported by `say`; ValueError where an own Ray has too little room."""
    nodes = [node["Resources"] for node in engine.nodes() if node["Alive"]]
    cpus, gpus = resources(nodes, workers, settings)
    room = sum(_fitting(node, cpus, gpus) for node in nodes)
    each = f"with {cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    if room < workers and own:
        raise ValueError(f"this machine has room for {room} of {workers} workers {each}; use fewer workers")
    say(f"Ray: workers {each}: {workers}, machines: {len(nodes)}")
    if room < workers:
        say(f"{room} of the workers fit now; the others wait for machines")
    return cpus, gpus


def share(capacities: Sequence[float], workers: int, most: float = math.inf) -> float:
    """The largest number of units that each of the workers can have at a time: a whole one, or 1/n; 0 of nothing.

    Args:
      capacities: units of each machine; a worker takes all of its units from one.
      workers: how many.
      most: units of a worker.

    Example:
      >>> share([8, 4], workers=3), share([1, 1], workers=4), share([], workers=2)
      (4.0, 0.5, 0.0)
    """
    largest = int(max(capacities, default=0))
    if largest < 1:
        return 0.0
    for units in range(int(min(largest, most)), 0, -1):
        if sum(capacity // units for capacity in capacities) >= workers:
            return float(units)
    parts = next(n for n in range(2, workers + 1) if n * sum(map(int, capacities)) >= workers)
    return math.floor(10_000 / parts) / 10_000  # Ray counts in these


def _fitting(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Workers that a machine has room for."""
    counts = [node.get("CPU", 0) / cpus] + ([node.get("GPU", 0) / gpus] if gpus else [])
    return int(min(counts) + 1e-6)


def imported() -> Any:
    """The module of Ray. Raises ValueError where it is not installed."""
    try:
        import ray as engine
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ValueError(f"runtime ray needs Ray: pip install 'nasjax[ray]' ({one_line(error)})") from error
    return engine


@contextmanager
def joined(engine: Any, settings: RayConfig, say: Callable[[str], None]) -> Iterator[bool]:
    """Whether Ray was started here; it, or the connection, ends with the block."""
    if engine.is_initialized():
        yield False
        return
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    _reached(address)
    own: dict[str, Any] = {"include_dashboard": settings.dashboard, "object_store_memory": _STORE}
    kept = signal.getsignal(signal.SIGTERM)
    try:
        context = engine.init(
            address=address, log_to_driver=False, logging_level="error", **(own if address == "local" else {})
        )
    except Exception as error:  # a machine too busy to start Ray within its 30 s raises no narrower one
        what = "start Ray" if address == "local" else f"join Ray at {address}"
        raise ValueError(f"cannot {what}: {one_line(error)}") from error
    finally:
        if kept is not None and signal.getsignal(signal.SIGTERM) is not kept:  # Ray puts its own in place
            signal.signal(signal.SIGTERM, kept)
    try:
        if url := context.dashboard_url:
            say(f"Ray's dashboard: http://{url}")
        yield address == "local"
    finally:
        engine.shutdown()


def _reached(address: str) -> None:
    """Raises ValueError where nothing answers at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except OSError as error:
        raise ValueError(
            f"no Ray answers at {address} ({error.strerror or error}); start it there with `ray start --head`"
        ) from error


def environment(gpus: float) -> dict[str, str]:
    """Variables of a worker: the driver's that concern JAX, its module path, and a share of a GPU's memory."""
    chosen = handed_on({name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)})
    installed = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    paths = [path for path in map(os.path.abspath, filter(None, sys.path)) if not _within(path, installed)]
    if 0 < gpus < 1:
        chosen |= memory(1 / gpus)
    return {**chosen, "PYTHONPATH": os.pathsep.join([*paths, "${PYTHONPATH}"])}


def _within(path: str, folders: Sequence[Path]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _driver(logs: Path) -> Driver:
    """This process's versions, and a file in the workdir by which a machine recognises the folder."""
    logs.mkdir(parents=True, exist_ok=True)
    file = logs / ".shared"
    if not file.exists():
        file.write_text(secrets.token_hex())
    return Driver(versions(), str(file), file.read_text())


def _look(engine: Any, cpus: float, gpus: float, variables: dict[str, str], driver: Driver) -> None:
    """Raises ValueError where a machine that may have workers differs from this one, before anything is tried."""
    probe = engine.remote(unlike)
    bound = engine.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    refs = {
        node["NodeID"]: probe.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=bound(node["NodeID"], soft=False),
            runtime_env={"env_vars": variables},
        ).remote(driver)
        for node in engine.nodes()
        if node["Alive"] and _fitting(node["Resources"], cpus, gpus)
    }
    found = []
    for node, ref in refs.items():
        try:
            found.append(engine.get(ref))
        except engine.exceptions.RayError as error:
            if node not in [other["NodeID"] for other in engine.nodes() if other["Alive"]]:
                continue  # it went meanwhile, as it may at any time
            reason = one_line(getattr(error, "cause", None) or error)
            raise ValueError(f"a machine of the cluster cannot run nasjax: {reason}") from error
    if wrong := next((line for line in found if line), None):
        raise ValueError(wrong)
