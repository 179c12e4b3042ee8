"""Images that a user hands to a trained model: a file, a folder of files, or arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nasjax.data import image_file
from nasjax.data.dataset import resize
from nasjax.data.image_file import SUFFIXES, read_image


def image_files(source: Path) -> list[Path]:
    """The image files that `source` names: itself, or all in the folder, by name.

    Raises:
      ValueError: there is no such file or folder, or no image in it.
    """
    if source.is_dir():
        files = image_file.image_files(source)
        if not files:
            raise ValueError(f"--input={source} has no image files ({', '.join(SUFFIXES)})")
        return files
    _present(source)
    if source.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--input={source} is no image ({', '.join(SUFFIXES)}) and no .npz with an array x")
    return [source]


def open_images(source: Path, shape: tuple[int, ...], dtype: str) -> tuple[list[str], Iterator[np.ndarray]]:
    """Names and images [H, W, C] of a file, of all files of a folder, or of an .npz with x [N, H, W] or [N, H, W, C].

    Images of files have their own size, arrays the model's. They are read one by one.

    Args:
      source: where the images lie.
      shape: height, width and channels that the model reads.
      dtype: of the arrays that the model was trained on.

    Raises:
      ValueError: nothing can be read there, or it does not fit the model.
    """
    if source.suffix == ".npz" and not source.is_dir():
        x = _arrays(source, shape, dtype)
        return [str(i) for i in range(len(x))], iter(x)
    files = image_files(source)
    if dtype != "uint8":
        raise ValueError(f"--input={source}: this model was trained on {dtype} arrays; give --input=FILE.npz with x")
    return [path.name for path in files], (read_image(path, shape[2]) for path in files)


def read_images(source: Path, shape: tuple[int, ...], dtype: str) -> tuple[list[str], np.ndarray]:
    """Names and images [N, *shape] as `open_images` finds them, resized by area, as the training images were."""
    height, width, _ = shape
    names, images = open_images(source, shape, dtype)
    return names, np.concatenate([resize(image[None], height, width) for image in images])


def _present(source: Path) -> None:
    if not source.is_file():
        raise ValueError(f"--input={source}: no such file or folder; give an image, a folder of images or an .npz")


def _arrays(source: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    _present(source)
    try:
        with np.load(source, allow_pickle=False) as arrays:
            x = arrays["x"]
    except Exception as error:  # no archive, no member x, object arrays
        reason = " ".join(str(error).split())
        raise ValueError(f"--input={source} cannot be read as an .npz with an array x: {reason}") from error
    if x.ndim == 3:
        x = x[..., None]
    fits = x.dtype == np.uint8 if dtype == "uint8" else x.dtype.kind == "f"
    if x.ndim != 4 or x.shape[1:] != tuple(shape) or not fits or not len(x):
        raise ValueError(
            f"--input={source}: x must be {dtype} [N, {', '.join(map(str, shape))}], got {x.dtype} {x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"--input={source}: x holds NaN or infinite values")
    return x.astype(dtype)
