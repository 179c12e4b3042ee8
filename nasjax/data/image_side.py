"""How large the images of a data set are, by its settings or by a look at one of them; nothing is read whole."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.data.image_file import SUFFIXES
from nasjax.data.sources import DataSource


def side_of(name: str, source: DataSource, data_dir: str = "", resize: int | None = None) -> int | None:
    """The shorter side of the images as networks will read them, in pixels; None where it is not known.

    Of an .npz the head of x tells it, of a folder its first image. What is wrong with either is told when it is read.

    Args:
      name: of the data set.
      source: of this name.
      data_dir, resize: of its settings.
    """
    if source.shape is not None and len(source.shape) != 3:
        return None
    if resize is not None:
        return resize
    if source.shape is not None:
        return min(source.shape[:2])
    try:
        if name.endswith(".npz"):
            return _of_arrays(Path(data_dir).expanduser() / name)
        return _of_first(Path(data_dir).expanduser()) if source.folder and data_dir else None
    except Exception:  # whatever a damaged file does
        return None


def _of_arrays(file: Path) -> int | None:
    """Of x [N, H, W], [N, H, W, C] or, where the second is as small as a number of colours, [N, C, H, W]."""
    with zipfile.ZipFile(file) as archive, archive.open("x.npy") as head:
        version = np.lib.format.read_magic(head)
        read: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape: tuple[int, ...] = read(head)[0]
    if len(shape) not in (3, 4):
        return None
    return min(shape[2:] if len(shape) == 4 and shape[1] <= 4 else shape[1:3])


def _of_first(root: Path) -> int | None:
    """Of the first image file below a folder."""
    from PIL import Image

    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                with Image.open(Path(folder) / name) as image:
                    return min(image.size)
    return None
