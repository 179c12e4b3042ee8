"""A user's own file (`--plugin=FILE.py`): run once, known by its sha256, copied into the workdirs that need it."""

from __future__ import annotations

import hashlib
import shlex
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_RUN: dict[str, Path] = {}  # sha256 -> the file that was run in this process


def use(file: str | Path) -> str:
    """Runs a plugin, which registers what it has, and returns its sha256. A file that was run before is not run again.

    Raises:
      ValueError: there is no such file, or it raises: with the file, the line and the reason.
    """
    path = Path(file)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"--plugin={file}: {error.strerror or error}") from error
    digest = hashlib.sha256(source).hexdigest()
    if next(reversed(_RUN), None) == digest:
        return digest
    _RUN.pop(digest, None)  # another file may have registered the same names since: run it again
    name = f"nasjax_plugin_{digest[:12]}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--plugin={file} is no Python file; its name must end in .py")
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
    return digest


def where(error: BaseException, path: Path | str) -> str:
    """The file, the line in it and the reason of an error that a user's file raised, as one line."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == Path(path)]
    place = f"{path}:{lines[-1].lineno} in {lines[-1].name}" if lines else f"{path}"
    return f"{place}: {text if isinstance(error, ValueError) else f'{type(error).__name__}: {text}'}"


def keep(workdir: Path, digest: str) -> None:
    """Copies the plugin that was run into the workdir, as plugin.py."""
    copy = workdir / "plugin.py"
    if not digest or (copy.exists() and hashlib.sha256(copy.read_bytes()).hexdigest() == digest):
        return
    source = _RUN[digest].read_bytes()
    if hashlib.sha256(source).hexdigest() != digest:
        raise ValueError(f"{_RUN[digest]} has changed since it was run; start again")
    copy.write_bytes(source)


def file_of(digest: str) -> Path:
    """The file of a plugin that was run in this process."""
    return _RUN[digest]


def require(workdir: Path, digest: str, changed: bool = False) -> None:
    """Raises ValueError where a workdir needs a plugin that was not run; `changed`: any that was run will do."""
    if changed and _RUN:
        return
    if digest and digest not in _RUN:
        if _RUN:
            raise ValueError(
                f"{workdir} was made with another plugin than the one given; give --plugin={workdir}/plugin.py, or "
                "--changed_plugin to resume with yours"
            )
        raise ValueError(
            f"{workdir} was made with a plugin; add --plugin={workdir}/plugin.py (look at it first: it is run)"
        )


def command(workdir: Path, digest: str, mode: str) -> str:
    """What to type for a mode on a workdir, with its plugin where it has one."""
    place = shlex.quote(str(workdir))
    flag = f" --plugin={place}/plugin.py" if digest else ""
    return f"python -m nasjax.launch{flag} --mode={mode} --workdir={place}"
