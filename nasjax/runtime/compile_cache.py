"""XLA's cache of compiled programs, shared by processes.

JAX writes an entry in place, so a killed process leaves an incomplete one. Each worker therefore writes to a folder of
its own and shares complete entries by hard links.
"""

from __future__ import annotations

import atexit
import glob
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

_OWN = "worker-"
_ENTRY = "*-cache"


def keep_compiled(choice: str) -> None:
    """XLA's persistent cache of compiled programs: "on", in the user's cache folder, "off", or a folder.

    Raises ValueError for a folder that cannot be made.
    """
    import jax

    if choice == "off":
        return
    folder = Path.home() / ".cache" / "nasjax" / "xla" if choice == "on" else Path(choice)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if choice != "on":
            raise ValueError(f"--compile_cache={choice}: {error.strerror or error}") from error
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def own_cache(shared: Path) -> Callable[[], None]:
    """Lets this process compile into a folder of its own, which starts with the entries of `shared`.

    Returns:
      publish(): gives the shared folder what was compiled since; to be called while nothing compiles.
    """
    import jax

    machine = f"-{socket.gethostname()}"  # of others, which may see the folder too, no process is known here
    for left in shared.glob(f"{_OWN}*{glob.escape(machine)}"):  # by workers that were killed
        pid = left.name.removeprefix(_OWN).removesuffix(machine)
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = shared / f"{_OWN}{os.getpid()}{machine}"
    folder.mkdir(parents=True, exist_ok=True)
    _link(shared, folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return lambda: _link(folder, shared)


def _link(source: Path, target: Path) -> None:
    known = {entry.name for entry in target.glob(_ENTRY)}
    for entry in source.glob(_ENTRY):
        if entry.name not in known:
            try:
                os.link(entry, target / entry.name)
            except OSError:  # another process was faster, or the file system has no links: then it is compiled again
                continue


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
