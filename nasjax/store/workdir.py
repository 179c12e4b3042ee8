"""The folder a run lives in: made, recognised, locked, or refused with the reason."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nasjax import __version__
from nasjax.settings import differences
from nasjax.store import checkpoint
from nasjax.store.plugin import flags

WORKERS = "workers"  # folder of what worker processes print
POINTS = "points"  # folder of networks with weights of the search, by trial
ARRAYS = "arrays-"  # what the file of a program's own data begins with
# Settings that may change until the first candidate, since a supernet is trained before it.
UNTIL_ASKED = ("max_params", "max_macs")


def environment() -> dict[str, Any]:
    """Versions and device, recorded with every result."""
    import jax

    device = jax.devices()[0]
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "device": f"{len(jax.devices())} x {_kind(device.platform, device.device_kind)}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": {
            "nasjax": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in names},
        },
    }


def _kind(platform: str, kind: str) -> str:
    """A device in words: "gpu NVIDIA H100", and "cpu" where the kind says no more than the platform."""
    return platform if kind.lower() == platform.lower() else f"{platform} {kind}"


@contextmanager
def opened(
    path: Path,
    record: dict[str, Any],
    *,
    defaults: dict[str, Any],
    may_change: Collection[str] = (),
    changed_plugin: bool = False,
) -> Iterator[Path]:
    """Makes or re-opens a workdir and keeps other runs out of it.

    Args:
      path: the folder; made if absent.
      record: the content of config.json; `record["config"]` must equal that of an existing run, except for
        `may_change` and, while there is no ledger, for UNTIL_ASKED.
      defaults: the settings of its preset; used for settings that an older version did not have.
      may_change: dotted names of the settings that a resumed search may alter.
      changed_plugin: the plugin's file may be another one as well.

    Raises:
      ValueError: the folder cannot be written, is not a workdir, is damaged, belongs to another configuration, or is
        in use.
    """
    file = path / "config.json"
    try:
        path.mkdir(parents=True, exist_ok=True)
        require(path)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"cannot write to --workdir {path}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{path} is in use by another run; wait for it or choose another --workdir") from None
        if file.exists():
            old = read(path)
            if changed_plugin and "order" in old["config"]["space"]:  # a space of the plugin may have other settings
                old["config"]["space"] = record["config"]["space"]
            old["config"] = _filled(old["config"], defaults)
            if (table := old["config"].get("table")) and table["percent"] is None:  # the table's checksum decides
                table["percent"] = record["config"]["table"]["percent"]
            early = () if (path / "ledger.jsonl").exists() else UNTIL_ASKED
            moved = ("data.data_dir",) if keeps(path, record["config"].get("data", {}).get("name", "")) else ()
            _compare(path, old, record, (*may_change, *early, *moved, *(("plugin",) if changed_plugin else ())))
            if not changed_plugin:
                _compare_meaning(path, old, record)
        with checkpoint.writing(path):
            checkpoint.write_json(file, record)
        yield path


def point(path: Path, number: int | str) -> Path:
    """The folder of a trial's network with the weights of the search, of "NUMBER-finetuned" of one trained on."""
    return path / POINTS / str(number)


def require(path: Path) -> None:
    """Raises ValueError for a folder that is not empty and no workdir."""
    if not path.is_dir() or (path / "config.json").exists():
        return
    own = (".lock", "config.tmp", WORKERS)
    if any(p.name not in own and not p.name.startswith(ARRAYS) for p in path.iterdir()):
        raise ValueError(f"{path} is not empty and is no workdir (no config.json); choose another --workdir")


def keeps(path: Path, name: str) -> bool:
    """Whether the data of this name are arrays that a workdir has in itself; the name tells what they hold."""
    return name.startswith(ARRAYS) and (Path(path) / name).is_file()


def _filled(tree: Any, defaults: Any) -> Any:
    """`tree`, completed from `defaults` at every depth."""
    if not (isinstance(tree, dict) and isinstance(defaults, dict)):
        return tree
    return {**defaults, **{name: _filled(value, defaults.get(name)) for name, value in tree.items()}}


def _without(tree: Any, names: Collection[str], where: str = "") -> Any:
    """A JSON tree without the values of these dotted names."""
    if not isinstance(tree, dict):
        return tree
    kept = {name: value for name, value in tree.items() if f"{where}{name}" not in names}
    return {name: _without(value, names, f"{where}{name}.") for name, value in kept.items()}


def read(path: Path) -> dict[str, Any]:
    """The config.json of a workdir. Raises ValueError if there is none or it is damaged."""
    file = path / "config.json"
    if not file.is_file():
        raise ValueError(f"{path} is no workdir (no config.json); give the --workdir of a search")
    try:
        record = json.loads(file.read_text())
        if not isinstance(record["config"], dict):
            raise KeyError("config")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{file} is damaged; move {path} away or choose another --workdir") from error
    return record


def strategy(path: Path) -> str:
    """How the candidates of the run in a workdir are evaluated, "" where none has begun. Errors as `read`."""
    return str(read(path).get("strategy", "")) if (path / "config.json").is_file() else ""


def _compare_meaning(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises ValueError where the code registered in a program or plugin has changed since the run began."""
    if old.get("versions") != new.get("versions"):
        return  # digests are those of a version of Python and JAX
    held, given = old.get("registered", {}), new.get("registered", {})
    changed = [f"the code of its {kind}" for kind in held if given.get(kind, held[kind]) != held[kind]]
    if old.get("networks") and new.get("networks") and old["networks"] != new["networks"]:
        changed.append(f"what the networks of --space={new['config']['space']['name']} compute")
    if changed:
        raise ValueError(
            f"{path} was begun with other registered code ({' and '.join(changed)} changed since); register what it "
            "was begun with, or choose another --workdir"
        )


def _compare(path: Path, old: dict[str, Any], new: dict[str, Any], may_change: tuple[str, ...]) -> None:
    if old.get("format") != new.get("format"):
        raise ValueError(
            f"{path} was begun by an older version of nasjax (format {old.get('format', 1)}), which computed other "
            "numbers; choose another --workdir"
        )
    kept = [_without(record["config"], may_change) for record in (old, new)]
    if kept[0].get("plugin", "") != kept[1].get("plugin", ""):
        own = flags(path, kept[0].get("plugin", ""))
        raise ValueError(
            f"{path} was begun with {'another plugin than the one given' if own else 'no plugin'}; give "
            f"{own or 'none'}, or --changed_plugin to resume with the new one"
        )
    kept += [{name: record.get(name) for name in ("dataset", "metric", "strategy", "chunk")} for record in (old, new)]
    if changed := differences(kept[0], kept[1]) + differences(kept[2], kept[3]):
        raise ValueError(
            f"{path} holds a run with other settings ({'; '.join(changed)}); "
            "give it the same settings or another --workdir"
        )
    jax = [record.get("jax", {}) for record in (old, new)]  # which an older version did not write
    if all(jax) and (changed := differences(jax[0]["numbers"], jax[1]["numbers"])):
        raise ValueError(
            f"{path} was begun under other settings of JAX ({'; '.join(changed)}), which change every number; resume "
            "under the same ones (jax.config.update, or variables in capitals), or choose another --workdir"
        )
    begun = [{name: record.get(name) for name in ("versions", "device", "machine")} for record in (old, new)]
    if all(jax):
        for record, one in zip(begun, jax, strict=True):
            record |= one["others"]
    if changed := differences(begun[0], begun[1]):
        print(f"warning: {path} was begun elsewhere or with other versions ({'; '.join(changed)})", file=sys.stderr)
