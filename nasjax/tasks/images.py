"""Images that a user hands to a trained model: a file, a folder of files, or arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.data import image_file
from nasjax.data.dataset import resize
from nasjax.data.image_file import SUFFIXES, channels_of, read_image
from nasjax.data.npz import images
from nasjax.data.units import other_form, other_units
from nasjax.data.view import View, read_view


def image_files(source: Path) -> list[Path]:
    """The image files that `source` names: itself, or all in the folder, by name.

    Raises:
      ValueError: there is no such file or folder, or no image in it.
    """
    if source.is_dir():
        files = image_file.image_files(source)
        if not files:
            inside = [path for path in sorted(source.iterdir()) if path.is_dir() and image_file.image_files(path)]
            if inside:
                raise ValueError(f"--input={source} has images only in its folders; give one, such as {inside[0]}")
            raise ValueError(f"--input={source} has no image files ({', '.join(SUFFIXES)})")
        return files
    _present(source)
    if source.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--input={source} is no image ({', '.join(SUFFIXES)}) and no .npz with an array x")
    return [source]


def open_images(source: Path, model: Any) -> tuple[list[str], Iterator[np.ndarray]]:
    """Names and images [H, W, C] of a file, of all files of a folder, or of an .npz with x [N, H, W] or [N, H, W, C].

    Images of files have their own size, or are cut as those of the training were; arrays have the model's size. They
    are read one by one.

    Args:
      source: where the images lie.
      model: a `nasjax.model.Model`; its shape, dtype, channels and range say what arrays must be.

    Raises:
      ValueError: nothing can be read there, or it does not fit the model.
    """
    if source.suffix == ".npz" and not source.is_dir():
        x = _arrays(source, model)
        return [str(i) for i in range(len(x))], iter(x)
    files = image_files(source)
    if model.dtype != "uint8":
        raise ValueError(
            f"--input={source}: this model was trained on {model.dtype} arrays; give --input=FILE.npz with x"
        )

    coloured = [path.name for path in files if model.shape[2] == 1 and channels_of(path) == 3]
    if coloured:
        model.told(
            f"{len(coloured)} of {len(files)} images are in colour and are read as gray, which the network was trained "
            f"on ({coloured[0]})"
        )

    def read(path: Path) -> np.ndarray:
        if model.crop_part is None:
            image = read_image(path, model.shape[2])
        else:
            height, width, channels = model.shape
            image = read_view(path, View(height, width, channels, "crop", model.crop_part))
        _require_units(f"--input={path}:", image[None], model)
        return image

    return [path.name for path in files], map(read, files)


def read_images(source: Path, model: Any) -> tuple[list[str], np.ndarray]:
    """Names and images [N, *shape] as `open_images` finds them, resized by area, of which `model.told` hears."""
    height, width, _ = model.shape
    names, found = open_images(source, model)
    parts, others = [], []
    for name, image in zip(names, found, strict=True):
        if image.shape[:2] != (height, width):
            others.append(f"{name} was {image.shape[0]}x{image.shape[1]}")
        parts.append(resize(image[None], height, width))
    if others:
        model.told(
            f"{len(others)} of {len(names)} images were resized by area to {height}x{width}, the size that the network "
            f"was trained on ({others[0]})"
        )
    return names, np.concatenate(parts)


def _present(source: Path) -> None:
    if not source.is_file():
        raise ValueError(f"--input={source}: no such file or folder; give an image, a folder of images or an .npz")


def _arrays(source: Path, model: Any) -> np.ndarray:
    _present(source)
    try:
        with np.load(source, allow_pickle=False) as arrays:
            given = arrays["x"]
    except Exception as error:  # no archive, no member x, object arrays
        reason = " ".join(str(error).split())
        raise ValueError(f"--input={source} cannot be read as an .npz with an array x: {reason}") from error
    height, width, channels = model.shape
    first = model.channels == "first"
    form = ", ".join(map(str, ("N", channels, height, width) if first else ("N", height, width, channels)))
    other = f"--input={source}: x must be {model.dtype} [{form}], got {given.dtype} {given.shape}"
    try:
        x = images(given, f"--input={source}: x", model.channels)
    except ValueError as error:
        raise (error if "NaN" in str(error) else ValueError(other)) from None
    if other_form(x, model.dtype, model.shape):
        raise ValueError(other)
    _require_units(f"--input={source}: x", x, model)
    return x


def _require_units(what: str, x: np.ndarray, model: Any) -> None:
    if model.range is not None and (reason := other_units(x, *model.range)):
        raise ValueError(f"{what} {reason}; give it in the same units, or say that it is: --set data.same_units=true")
