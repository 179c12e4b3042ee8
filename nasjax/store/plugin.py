"""A user's own files (`--plugin=FILE.py`): run once, known by their sha256, copied into the workdirs that need them."""

from __future__ import annotations

import hashlib
import shlex
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from nasjax.store import started

_RUN: dict[str, Path] = {}  # sha256 -> the file that was run in this process


def use(*files: str | Path) -> str:
    """Runs plugins, which register what they have, in this order; those that were run last are not run again.

    Returns:
      Their digest: the sha256 of each, with commas.

    Raises:
      ValueError: there is no such file, or it raises: with the file, the line and the reason.
    """
    sources = [_source(file) for file in files]
    digests = [hashlib.sha256(source).hexdigest() for source in sources]
    if list(_RUN)[-len(files) :] != digests:  # another file may have registered the same names since
        for file, digest in zip(files, digests, strict=True):
            _run(Path(file), digest)
    return ",".join(digests)


def _source(file: str | Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"--plugin={file}: {error.strerror or error}") from error


def _run(path: Path, digest: str) -> None:
    _RUN.pop(digest, None)
    name = f"nasjax_plugin_{digest[:12]}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--plugin={path} is no Python file; its name must end in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise ValueError(f"--plugin={where(error, path)}") from error
    _RUN[digest] = path


def where(error: BaseException, path: Path | str) -> str:
    """The file, the line in it and the reason of an error that a user's file raised, as one line."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == Path(path)]
    place = f"{path}:{lines[-1].lineno} in {lines[-1].name}" if lines else f"{path}"
    return f"{place}: {text if isinstance(error, ValueError) else f'{type(error).__name__}: {text}'}"


def copies(workdir: Path, digest: str) -> list[Path]:
    """Where a workdir has the plugins of a digest: plugin.py, plugin_2.py and so on."""
    count = len(digest.split(",")) if digest else 0
    return [workdir / ("plugin.py" if n == 1 else f"plugin_{n}.py") for n in range(1, count + 1)]


def keep(workdir: Path, digest: str) -> None:
    """Copies the plugins that were run into the workdir."""
    for copy, one in zip(copies(workdir, digest), digest.split(","), strict=False):  # "" has no copy
        if copy.exists() and hashlib.sha256(copy.read_bytes()).hexdigest() == one:
            continue
        source = _RUN[one].read_bytes()
        if hashlib.sha256(source).hexdigest() != one:
            raise ValueError(f"{_RUN[one]} has changed since it was run; start again")
        copy.write_bytes(source)


def files_of(digest: str) -> list[Path]:
    """The files of the plugins that were run in this process."""
    return [_RUN[one] for one in digest.split(",")] if digest else []


def require(workdir: Path, digest: str, changed: bool = False) -> None:
    """Raises ValueError where a workdir needs plugins that were not run; `changed`: any that were run will do."""
    if (changed and _RUN) or not digest or all(one in _RUN for one in digest.split(",")):
        return
    if _RUN:
        raise ValueError(
            f"{workdir} was made with another plugin than the one given; give {flags(workdir, digest)}, or "
            "--changed_plugin to resume with yours"
        )
    raise ValueError(f"{workdir} was made with a plugin; add {flags(workdir, digest)} (look at it first: it is run)")


def flags(workdir: Path, digest: str) -> str:
    """The flags that name a workdir's copies, as words for a shell; "" where it has none."""
    return " ".join(f"--plugin={shlex.quote(str(copy))}" for copy in copies(workdir, digest))


def command(workdir: Path, digest: str, mode: str) -> str:
    """What to type for a mode on a workdir, with its plugins where it has any."""
    words = (started.own(), flags(workdir, digest), f"--mode={mode} --workdir={shlex.quote(str(workdir))}")
    return " ".join(filter(None, words))
