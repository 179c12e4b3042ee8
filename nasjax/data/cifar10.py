"""CIFAR-10 (Krizhevsky 2009), from a folder in the original python format or through TensorFlow Datasets.

Both give the images in their original order, so that a seed gives the same split with either.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.data.sources import DataSource, Source, Split

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_PREPARE = (
    "give --data_dir=FOLDER in the original python format (data_batch_1 .. test_batch), or prepare it for TFDS: "
    "pip install 'nasjax[prepare]' && tfds build cifar10 --file_format=array_record"
)


def cifar10(data_dir: str = "") -> Source:
    """50,000 training images [32, 32, 3] and the official test set of 10,000.

    Args:
      data_dir: `cifar-10-batches-py` or its parent; or a TFDS data folder; "" = the TFDS default folder.

    Raises (when read):
      FileNotFoundError: no data there; the message says how to prepare it.
      ValueError: a file has not the expected content.
    """
    root = Path(data_dir).expanduser()
    folders = [d for d in (root, root / FOLDER) if data_dir and (d / _TRAIN[0]).exists()]
    if folders:
        return Source(
            CLASS_NAMES, lambda: _folder(folders[0], _TRAIN), lambda: _folder(folders[0], ("test_batch",)), 0, 5000
        )
    if data_dir and not (root / "cifar10").is_dir():
        raise FileNotFoundError(f"no CIFAR-10 in {root}; {_PREPARE}")
    return Source(CLASS_NAMES, lambda: _tfds("train", data_dir), lambda: _tfds("test", data_dir), 0, 5000)


def _folder(folder: Path, files: tuple[str, ...]) -> Split:
    xs, ys = [], []
    for name in files:
        try:
            with open(folder / name, "rb") as file:
                batch = _ArrayUnpickler(file, encoding="bytes").load()
            x, y = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], np.int32)
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} has no {name}; {_PREPARE}") from None
        except Exception as error:  # a pickle can go wrong in a dozen ways
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"{folder / name} is not a CIFAR-10 batch in the original format ({reason})") from error
        if x.dtype != np.uint8 or x.shape != (len(y), 3072) or not np.isin(y, range(10)).all():
            raise ValueError(f"{folder / name}: expected data uint8 [N, 3072] and labels 0..9, got {x.dtype} {x.shape}")
        xs.append(np.ascontiguousarray(x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)))  # stored channels first
        ys.append(y)
    return Split(np.concatenate(xs), np.concatenate(ys))


def _uint8_dtype(name: str | bytes, *_: Any) -> np.dtype:
    """Replaces numpy.dtype, as a batch holds nothing but pixels. (NumPy 2.4 warns about the old call, too.)"""
    if name not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"refused an array of type {name!r}")
    return np.dtype(np.uint8, copy=True)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads uint8 arrays, containers, numbers and strings; a pickle that asks for anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # the same function, in whichever module this NumPy has it
        if module == "numpy" and name in ("ndarray", "dtype"):
            return np.ndarray if name == "ndarray" else _uint8_dtype
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def _tfds(split: str, data_dir: str) -> Split:
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    try:
        source = tfds.data_source("cifar10", split=split, data_dir=data_dir or None, download=False)
        examples = sorted((source[i] for i in range(len(source))), key=lambda example: example["id"])
    except Exception as error:  # TFDS has no single error for "not prepared", nor for "prepared in another file format"
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise FileNotFoundError(f"TFDS cannot read cifar10 ({reason}); {_PREPARE}") from error
    # Sorted by id ("train_00042"), the original order: TFDS shuffles when it prepares.
    return Split(
        np.stack([example["image"] for example in examples]),
        np.array([example["label"] for example in examples], np.int32),
    )


SOURCE = DataSource(
    lambda config: cifar10(config.data_dir),
    "classification",
    shape=(32, 32, 3),
    outputs=10,
    size=50_000,
    photographs=True,
    folder=True,
)
