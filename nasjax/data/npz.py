"""A user's own arrays: an .npz with x and y."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.data.labels import Target, targets, task_of
from nasjax.data.sources import DataSource, Source, Split


def npz(path: Path, channels: str = "ask", target: Target = "ask") -> Source:
    """A user's file: x and y, optionally x_valid and y_valid, x_test and y_test, class_names.

    Args:
      path: an .npz with x [N, H, W] or [N, H, W, C], uint8, uint16 or float in any range, and y [N] as
        `labels.targets` says: numbers (class k is the k-th smallest) or names of classes, or values. Without x_test a
        sixth of the images is the test part, and without x_valid another sixth validates.
      channels: see `images`.
      target: see `labels.targets`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an .npz, a key is missing, or an array has a wrong type, rank, length or value.
    """
    members = _members(path)
    return _source(lambda key: _array(path, key), members, str(path), channels, target)


def _members(path: Path) -> set[str]:
    """The names of a file's arrays, x and y among them. Raises as `npz`."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; --dataset=FILE.npz needs a file with arrays x and y")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile:
        raise ValueError(f"{path} is not an .npz file; write one with numpy.savez(path, x=images, y=labels)") from None
    if missing := {"x", "y"} - members:
        raise ValueError(f"{path} has no {sorted(missing)[0]!r} (it has {', '.join(sorted(members)) or 'nothing'})")
    return members


def _task_of(config: Any) -> str:
    path = _path(config)
    _members(path)
    return task_of(_array(path, "y"), config.target, f"{path}: y")


def arrays_source(
    arrays: Mapping[str, np.ndarray], where: str, channels: str = "ask", target: Target = "class"
) -> Source:
    """Arrays in memory as a data set, under the rules of `npz`; `where` names them in errors."""
    return _source(arrays.__getitem__, set(arrays), where, channels, target)


def _source(read: Callable[[str], np.ndarray], members: set[str], where: str, channels: str, target: Target) -> Source:
    for part in ("_valid", "_test"):
        if len({"x" + part, "y" + part} & members) == 1:
            raise ValueError(f"{where} has one of x{part} and y{part}; give both or neither")
    own_test, own_valid = "x_test" in members, "x_valid" in members
    y = read("y")
    n = len(y) if y.ndim else 0
    known = targets(y, read("class_names") if "class_names" in members else None, target, f"{where}: y")
    notes: list[str] = []

    def split(suffix: str) -> Split:
        x = images(read("x" + suffix), f"{where}: x{suffix}", channels)
        if x.dtype == np.uint16:
            notes.append(f"{where}: x{suffix} is uint16: 65535 is white, and mean and deviation are the data's own")
        y = known.read(read("y" + suffix), f"{where}: y{suffix}")
        if len(x) != len(y):
            raise ValueError(f"{where}: x{suffix} has {len(x)} images, but y{suffix} has {len(y)} labels")
        return Split(x, y)

    return Source(
        class_names=known.names,
        pool=lambda: split(""),
        test=(lambda: split("_test")) if own_test else None,
        test_size=0 if own_test else n // 6,
        valid_size=0 if own_valid else n // 10 if own_test else n // 6,
        valid=(lambda: split("_valid")) if own_valid else None,
        notes=notes,
        values=known.values,
    )


def _array(path: Path, key: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]
    except Exception as error:  # object arrays, a truncated member, a member that is no array
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        instead = f"; save numbers, or names as {key}.astype(str)" if "Object arrays" in reason else ""
        raise ValueError(f"{path}: cannot read {key} as a plain array ({reason}){instead}") from error


def images(x: np.ndarray, where: str, channels: str = "ask") -> np.ndarray:
    """A user's images as [N, H, W, C], uint8, uint16 or float32; `where` names them in errors.

    Args:
      x: [N, H, W], or [N, H, W, C], uint8, uint16 or float.
      where: of the file or data set, and the array.
      channels: where the channels of [N, ...] stand: "last", "first" ([N, C, H, W]) or "ask", which refuses what looks
        like "first".

    Raises:
      ValueError: another type, rank or layout, no images, or values that are not finite.
    """
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(f"{where} must be [N, H, W] or [N, H, W, C], got {list(x.shape)}")
    if x.dtype.kind == "u" and x.dtype.itemsize <= 2:
        x = x.astype(x.dtype.newbyteorder("="), copy=False)
    elif x.dtype.kind == "f":
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ValueError(f"{where} holds NaN or infinite values")
    else:
        raise ValueError(f"{where} must be uint8, uint16 or float, got {x.dtype}{_instead(x)}")
    if x.ndim == 3:
        return x[..., None]
    if channels == "ask" and _looks_first(*x.shape[1:]):
        raise ValueError(
            f"{where} is {list(x.shape)}: are those {x.shape[1]} channels of {x.shape[2]}x{x.shape[3]} pixels? write "
            f"--set data.channels=first for [N, C, H, W], --set data.channels=last for [N, H, W, C]"
        )
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if channels == "first" else x


def _looks_first(one: int, two: int, three: int) -> bool:
    """Whether sides are more likely channels, height, width than height, width, channels: 3, 8, 8, not 8, 8, 3."""
    return three > 4 and (one <= 4 or (one < three and one != two))


def _instead(x: np.ndarray) -> str:
    """What to write in place of an array of this type, without changing its values."""
    if x.dtype.kind == "b":
        return "; use .astype('float32')"
    if x.dtype.kind not in "iu":
        return ""
    low, high = int(x.min()), int(x.max())
    if low < 0 or high > 65535:
        return f" of {low}..{high}; use .astype('float32')"
    kind = "uint8" if high <= 255 else "uint16"
    return f" of {low}..{high}; use .astype('{kind}') for pixels that {kind} can hold, else .astype('float32')"


def _path(config: Any) -> Path:
    return Path(config.data_dir, config.name).expanduser()


SOURCE = DataSource(
    lambda config: npz(_path(config), config.channels, config.target),
    "classification",
    folder=True,
    arrays=True,
    task_of=_task_of,
)
