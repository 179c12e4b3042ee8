"""Many image files as one array: all of one size and one number of channels, or a line that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nasjax.data.dataset import resize
from nasjax.data.image_file import channels_of, read_image
from nasjax.data.view import Fit, View, read_view


class Form(NamedTuple):
    """What the images of a data set have in common."""

    height: int
    width: int
    channels: int  # 1 gray, 3 RGB
    example: Path  # an image of this size
    resized: bool  # to it
    fit: Fit = "squash"  # how, see `view.View`
    part: float = 0.875


def form_of(
    files: Sequence[Path], side: int | None, notes: list[str], fit: Fit = "squash", part: float = 0.875
) -> Form:
    """The form of the training images.

    Args:
      files: all of them; of each the head is read, and one is read whole.
      side: of all images afterwards, in pixels; None = they are of one size already.
      notes: is given a line where gray files are read as RGB, since others are coloured.
      fit, part: how they are brought to that side, see `view.View`.

    Raises ValueError for what `image_file` refuses.
    """
    gray = [path for path in files if channels_of(path) == 1]
    channels = 1 if len(gray) == len(files) else 3
    if gray and channels == 3:
        notes.append(f"{len(gray)} of {len(files)} training images are gray ({gray[0]}): all are read as RGB")
    first = read_image(files[0], channels)
    height, width = (side, side) if side else first.shape[:2]
    return Form(height, width, channels, files[0], side is not None, fit, part)


def read_images(files: Sequence[Path], form: Form, notes: list[str]) -> np.ndarray:
    """The images of files, uint8 [N, *form].

    `notes` is given a line where images that are not square are made so.

    Raises:
      ValueError: an image has another size, and none was asked for; one is coloured where the training images are gray;
        and whatever `image_file` refuses.
    """
    x = np.empty((len(files), *form[:3]), np.uint8)
    stretched = []
    for i, path in enumerate(files):
        if form.channels == 1 and channels_of(path) == 3:
            raise ValueError(
                f"{path} is coloured, but all training images are gray; convert it, or some of those to RGB"
            )
        if form.resized and form.fit == "crop":
            x[i] = read_view(path, View(*form[:3], form.fit, form.part))
            continue
        image = read_image(path, form.channels)
        if form.resized:
            if image.shape[0] * form.width != image.shape[1] * form.height:
                stretched.append(f"{path} is {image.shape[0]}x{image.shape[1]}")
            image = resize(image[None], form.height, form.width)[0]
        elif image.shape != x.shape[1:]:
            raise ValueError(
                f"{path} is {image.shape[0]}x{image.shape[1]} pixels, {form.example} {form.height}x{form.width}; write "
                "--set data.resize=N with the side that all shall have (32, say): they are averaged by area to NxN"
            )
        x[i] = image
    if stretched:
        counted = f"{len(stretched)} of {len(files)} images"
        notes.append(f"{counted} are no squares and are stretched to squares ({stretched[0]})")
    return x
