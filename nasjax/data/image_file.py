"""Reading one image or mask file of whatever format Pillow knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, by name; hidden files are none."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image file as uint8[H, W, channels], gray (1) or RGB (3); transparency is dropped.

    Raises ValueError for what cannot be read so, files of 16 bits a channel among them.
    """
    if channels not in (1, 3):
        raise ValueError(f"{path}: this model reads {channels} channels; give an .npz with x, an image has 1 or 3")
    pixels = _pixels(path, "L" if channels == 1 else "RGB")
    return pixels.reshape(*pixels.shape[:2], channels)


def read_mask(path: Path) -> np.ndarray:
    """A mask file as uint8[H, W, 1]: 0 is background, and the one other value that it may hold is foreground, 1.

    Raises ValueError for what cannot be read so, or holds colours or more values.
    """
    pixels = _pixels(path, "RGB")
    mask = pixels[..., :1]
    if (pixels != mask).any():
        raise ValueError(f"{path} is a coloured mask; write 0 for background and 255 for foreground")
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if (values > 0).sum() > 1:
        shown = ", ".join(map(str, values[:4].tolist())) + (", ..." if len(values) > 4 else "")
        raise ValueError(
            f"{path} is no mask of two values, it holds {shown}; write 0 for background and 255 for the rest"
        )
    return (mask > 0).astype(np.uint8)


def _pixels(path: Path, mode: str) -> np.ndarray:
    from PIL import Image

    try:
        with path.open("rb") as file:
            head = file.read(25)
        with Image.open(path) as image:
            # Pillow cuts a PNG of 3 x 16 bits down to 8 without a word: byte 24 tells its bits.
            deep = head[:4] == b"\x89PNG" and head[24:] == b"\x10"
            if deep or image.mode.startswith("I;16") or image.mode in ("I", "F"):
                what = "16 bits a channel" if deep else f"mode {image.mode}"
                raise ValueError(f"it has {what}; convert it to 8 bits a channel")
            return np.asarray(image.convert(mode))
    except Exception as error:  # Pillow has no one error for a damaged file
        raise ValueError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error
