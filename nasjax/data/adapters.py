"""Data sets of other libraries as arrays: dicts with x, y and class_names, for `nasjax.fit`, `nasjax.search` or savez.

Neither library is imported: what is handed over has its methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nasjax.data.dataset import resize
from nasjax.data.image_file import pixels_of

_PARTS = {"train": "", "validation": "_valid", "valid": "_valid", "val": "_valid", "dev": "_valid", "test": "_test"}


def from_huggingface(data: Any, image: str = "image", label: str = "label", size: int | None = None) -> dict[str, Any]:
    """A `datasets.Dataset` of images as arrays, or a `DatasetDict` with its parts train, validation and test.

    Args:
      data: read row by row, whole; validation may also be called valid, val or dev, and other parts are left out.
      image: the column of images (PIL, 8 bits gray or RGB).
      label: the column of targets: a ClassLabel, text, integers or floats.
      size: side that all images are averaged to by area, in pixels; None = they are of one size.

    Returns:
      x, y, perhaps x_valid, y_valid, x_test, y_test; and class_names of a ClassLabel.

    Raises:
      ValueError: a column or the part train is missing, a part is there twice, or images are no such or of several
        sizes.

    Example:
      >>> fitted = nasjax.fit(**nasjax.from_huggingface(datasets.load_dataset("beans"), label="labels", size=32))
    """
    parts = dict(data.items()) if isinstance(data, Mapping) else {"train": data}
    if "train" not in parts:
        raise ValueError(f"the data set has no part train (it has {', '.join(parts)}); give one of them alone")
    given: dict[str, tuple[list[np.ndarray], list[Any]]] = {}
    for part, suffix in _PARTS.items():
        if part not in parts:
            continue
        if suffix in given:
            raise ValueError(f"the data set has two parts to validate on, {part} among them; leave one out")
        for column in (image, label):
            if column not in parts[part].features:
                raise ValueError(
                    f"the part {part} has no column {column!r} (it has {', '.join(parts[part].features)}); write "
                    "image=... and label=..."
                )
        rows = [(_pixels(row[image], i), row[label]) for i, row in enumerate(parts[part])]
        given[suffix] = ([one for one, _ in rows], [one for _, one in rows])
    names = getattr(parts["train"].features[label], "names", None)
    return _arrays(given, names, size)


def from_torchvision(data: Any, test: Any = None, valid: Any = None, size: int | None = None) -> dict[str, Any]:
    """Torchvision's data sets of images and classes, or any with `len` and items (image, target), as arrays.

    Args:
      data: the training part, made without a transform (or with one that gives PIL images); read whole. Its `classes`
        name the classes.
      test, valid: further parts.
      size: as of `from_huggingface`.

    Returns:
      As `from_huggingface`. Raises ValueError as that.

    Example:
      >>> train, test = (torchvision.datasets.MNIST("data", train=part) for part in (True, False))
      >>> fitted = nasjax.fit(**nasjax.from_torchvision(train, test))
    """
    given: dict[str, tuple[list[np.ndarray], list[Any]]] = {}
    for suffix, part in (("", data), ("_valid", valid), ("_test", test)):
        if part is not None:
            rows = [
                (_pixels(image, i), target) for i, (image, target) in enumerate(map(part.__getitem__, range(len(part))))
            ]
            given[suffix] = ([one for one, _ in rows], [one for _, one in rows])
    return _arrays(given, getattr(data, "classes", None), size)


def _arrays(
    given: Mapping[str, tuple[list[np.ndarray], list[Any]]], names: Iterable[str] | None, size: int | None
) -> dict[str, Any]:
    """The arrays of parts: images and targets by suffix; `names` of numbered classes, of which those in y are kept."""
    if not given[""][0]:
        raise ValueError("the data set is empty")
    channels = max(one.shape[2] for one in given[""][0])
    arrays: dict[str, Any] = {}
    for suffix, (images, labels) in given.items():
        arrays[f"x{suffix}"] = _stacked(images, channels, size, f"x{suffix}")
        arrays[f"y{suffix}"] = np.array(labels)
    y = arrays["y"]
    if names is not None and y.dtype.kind in "iu":
        known = list(names)
        arrays["class_names"] = np.array([str(known[k]) for k in np.unique(y)])
    return arrays


def _pixels(image: Any, number: int) -> np.ndarray:
    """One image as uint8[H, W, C]."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return image if image.ndim == 3 else image[..., None]
    if not hasattr(image, "getbands"):
        raise ValueError(
            f"image {number} is a {type(image).__name__}, no PIL image and no uint8 array; leave out a transform such "
            "as ToTensor"
        )
    try:
        return pixels_of(image)
    except ValueError as error:
        raise ValueError(f"image {number}: {error}") from None


def _stacked(images: list[np.ndarray], channels: int, size: int | None, where: str) -> np.ndarray:
    """[N, H, W, channels] of gray and RGB images: gray ones become RGB where the training images have such."""
    for number, one in enumerate(images):
        if one.shape[2] > channels:
            raise ValueError(
                f"{where}: image {number} is coloured, but all training images are gray; convert it to gray"
            )
        if size is None and one.shape[:2] != images[0].shape[:2]:
            raise ValueError(
                f"{where}: image {number} is {one.shape[0]}x{one.shape[1]} pixels, image 0 is "
                f"{images[0].shape[0]}x{images[0].shape[1]}; give size=N, the side that all shall have"
            )
    whole = (np.broadcast_to(one, (*one.shape[:2], channels)) for one in images)
    return np.stack([one if size is None else resize(np.asarray(one)[None], size, size)[0] for one in whole])
