"""A user's own arrays: an .npz with x and y."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nasjax.data.sources import DataSource, Source, Split


def npz(path: Path) -> Source:
    """A user's file: x and y, optionally x_test and y_test.

    Args:
      path: an .npz with x [N, H, W] or [N, H, W, C], uint8 or float in any range, and y int[N], any values (class k is
        the k-th smallest). Without x_test a sixth of the images is the test part, and another sixth validates.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an .npz, a key is missing, or an array has a wrong type, rank, length or value.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; --dataset=FILE.npz needs a file with arrays x and y")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile:
        raise ValueError(f"{path} is not an .npz file; write one with numpy.savez(path, x=images, y=labels)") from None
    if missing := {"x", "y"} - members:
        raise ValueError(f"{path} has no {sorted(missing)[0]!r} (it has {', '.join(sorted(members)) or 'nothing'})")
    if len({"x_test", "y_test"} & members) == 1:
        raise ValueError(f"{path} has one of x_test and y_test; give both or neither")
    return _source(lambda key: _array(path, key), members, str(path))


def arrays_source(arrays: Mapping[str, np.ndarray], where: str) -> Source:
    """Arrays in memory as a data set of images and classes, under the rules of `npz`; `where` names them in errors."""
    return _source(arrays.__getitem__, set(arrays), where)


def _source(read: Callable[[str], np.ndarray], members: set[str], where: str) -> Source:
    own_test = "x_test" in members
    y = _labels(read("y"), f"{where}: y")
    n, values = len(y), np.unique(y)
    if len(values) < 2:
        raise ValueError(f"{where}: y holds fewer than two classes")
    names = [str(name) for name in read("class_names")] if "class_names" in members else [str(v) for v in values]
    if len(names) != len(values):
        raise ValueError(f"{where}: {len(names)} class_names, but y holds {len(values)} classes")

    def split(suffix: str) -> Split:
        x = _images(read("x" + suffix), f"{where}: x{suffix}")
        labels = _labels(read("y" + suffix), f"{where}: y{suffix}")
        if len(x) != len(labels):
            raise ValueError(f"{where}: x{suffix} has {len(x)} images, but y{suffix} has {len(labels)} labels")
        y = np.searchsorted(values, labels).clip(max=len(values) - 1)
        if (unknown := labels[values[y] != labels]).size:
            raise ValueError(f"{where}: y{suffix} holds {unknown[0]}, a class that y does not have")
        return Split(x, y.astype(np.int32))

    return Source(
        class_names=tuple(names),
        pool=lambda: split(""),
        test=(lambda: split("_test")) if own_test else None,
        test_size=0 if own_test else n // 6,
        valid_size=n // 10 if own_test else n // 6,
    )


def _array(path: Path, key: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]
    except Exception as error:  # object arrays, a truncated member, a name that is no array
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path}: cannot read {key} as a plain array ({reason})") from error


def _labels(y: np.ndarray, where: str) -> np.ndarray:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(f"{where} must be integers of shape [N], got {y.dtype} {list(y.shape)}")
    return y


def _images(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(f"{where} must be [N, H, W] or [N, H, W, C], got {list(x.shape)}")
    if x.dtype != np.uint8:
        if x.dtype.kind != "f":
            raise ValueError(f"{where} must be uint8 or float, got {x.dtype}; use .astype('uint8')")
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ValueError(f"{where} holds NaN or infinite values")
    return x if x.ndim == 4 else x[..., None]


SOURCE = DataSource(lambda config: npz(Path(config.data_dir, config.name).expanduser()), "classification", folder=True)
