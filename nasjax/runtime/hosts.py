"""One run in several processes, one per host, whose devices divide each batch among them (`jax.distributed`).

All processes run the same command and compute the same; the first one writes. The others work in temporary copies of
the workdir, so none reads what another is writing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def join(coordinator: str, processes: int | None, process: int | None) -> bool:
    """Makes this process one of a run's; JAX must not have computed anything before.

    Args:
      coordinator: HOST:PORT, where process 0 listens; "auto" = what SLURM, Open MPI or a TPU pod says.
      processes: how many there are, with HOST:PORT.
      process: the number of this one, from 0, with HOST:PORT.

    Returns:
      Whether this is the first.

    Raises:
      ValueError: it cannot be done; the line says why.
    """
    import jax

    auto = coordinator == "auto"
    if auto != (processes is None and process is None) or (processes is None) != (process is None):
        raise ValueError("write --coordinator=HOST:PORT --processes=N --process=I, or --coordinator=auto alone")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ValueError(f"--process={process} must be from 0 to below --processes={processes}")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from `launch`
    try:
        if auto:
            jax.distributed.initialize()
        else:  # detection would add nothing but one GPU per process, on SLURM
            jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate")
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--coordinator={coordinator}: JAX cannot join the other processes: {error}") from error
    try:
        return jax.process_index() == 0
    except RuntimeError as error:
        if _addressless():
            raise ValueError(
                f"this machine's own name {socket.gethostname()!r} has no address, which JAX needs to reach the other "
                f"processes; add a line to /etc/hosts: 127.0.1.1 {socket.gethostname()}"
            ) from error
        raise


def _addressless() -> bool:
    """Whether this machine's own name cannot be resolved."""
    try:
        socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return True
    return False


@contextmanager
def own_workdir(path: Path, record: dict[str, Any]) -> Iterator[Path]:
    """The folder in which this process works: `path` for the first process, a temporary copy for any other.

    Args:
      path: the workdir, in a folder that all hosts see.
      record: JSON in which the processes must agree, "command" and "machine" apart: their settings and data.

    Raises:
      ValueError: they do not, or see different workdirs.
    """
    import jax

    if jax.process_count() == 1:
        yield path
        return
    agree("settings, data or versions", {k: v for k, v in record.items() if k not in ("command", "machine")})
    agree(f"what lies in {path}", sorted((str(p.relative_to(path)), p.stat().st_size) for p in _files(path)))
    with tempfile.TemporaryDirectory() as folder:
        own = path
        if jax.process_index():
            own = Path(folder) / path.name
            for file in _files(path):
                (own / file.relative_to(path)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, own / file.relative_to(path))
        agree("the start", None)  # the first waits until the others have their copies
        yield own


def agree(what: str, value: Any) -> None:
    """Waits for all processes of the run. Raises ValueError in each if a JSON value is not the same in all."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    all_digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    if (differ := np.flatnonzero((all_digests != all_digests[0]).any(1))).size:
        raise ValueError(
            f"the processes differ in {what} (process {differ[0]} from process 0); give all the same command, versions "
            "and data, and a --workdir that all hosts see"
        )


def _files(path: Path) -> list[Path]:
    """The files that a run may read in its workdir."""
    return [p for p in path.rglob("*") if p.is_file() and p.name not in (".lock", "report.html")]
