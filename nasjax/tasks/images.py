"""Images that a user hands to a trained model: a file, a folder of files, or arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasjax.data.dataset import resize

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def image_files(source: Path) -> list[Path]:
    """The image files that `source` names: itself, or all in the folder, by name.

    Raises:
      ValueError: there is no such file or folder, or no image in it.
    """
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"--input={source} has no image files ({', '.join(SUFFIXES)})")
        return files
    if not source.is_file():
        raise ValueError(f"--input={source}: no such file or folder; give an image, a folder of images or an .npz")
    if source.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--input={source} is no image ({', '.join(SUFFIXES)}) and no .npz with an array x")
    return [source]


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image file as uint8[H, W, channels], gray or RGB. Raises ValueError for what cannot be read so."""
    from PIL import Image

    if channels not in (1, 3):
        raise ValueError(f"{path}: this model reads {channels} channels; give an .npz with x, an image has 1 or 3")
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                raise ValueError(f"it has mode {image.mode}; convert it to 8 bits a channel")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def read_images(source: Path, shape: tuple[int, ...], dtype: str) -> tuple[list[str], np.ndarray]:
    """Names and images [N, *shape] of a file, a folder, or an .npz with an array x [N, H, W] or [N, H, W, C].

    Image files are resized to the model's size by area, as the training images were.

    Args:
      source: where the images lie.
      shape: height, width and channels that the model reads.
      dtype: of the arrays that the model was trained on.

    Raises:
      ValueError: nothing can be read there, or it does not fit the model.
    """
    height, width, channels = shape
    if source.suffix == ".npz" and source.is_file():
        return _arrays(source, shape, dtype)
    if dtype != "uint8":
        raise ValueError(f"--input={source}: this model was trained on {dtype} arrays; give --input=FILE.npz with x")
    files = image_files(source)
    images = [resize(read_image(path, channels)[None], height, width)[0] for path in files]
    return [path.name for path in files], np.stack(images)


def _arrays(source: Path, shape: tuple[int, ...], dtype: str) -> tuple[list[str], np.ndarray]:
    try:
        with np.load(source, allow_pickle=False) as arrays:
            x = arrays["x"]
    except Exception as error:  # no archive, no member x, object arrays
        raise ValueError(f"--input={source} cannot be read as an .npz with an array x: {error}") from error
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[1:] != tuple(shape) or (x.dtype == np.uint8) != (dtype == "uint8"):
        raise ValueError(
            f"--input={source}: x must be {dtype} [N, {', '.join(map(str, shape))}], got {x.dtype} {x.shape}"
        )
    return [str(i) for i in range(len(x))], x.astype(dtype)
