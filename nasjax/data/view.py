"""How an image file becomes a sample of one size: squashed, its middle, or a random cut of it.

A JPEG is decoded at half, a quarter or an eighth of its size where what is wanted of it is still no larger than what is
decoded: the DCT gives the smaller picture for less than the larger one.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from nasjax.data.area import resize
from nasjax.data.image_file import File, opened, picture_of, read_image

Fit = Literal["squash", "crop"]
_ALPHA = "fill what is transparent with a colour"
_TRIES = 10  # at a random cut
_ORIENTATION = 0x0112  # tag of EXIF


class Cut(NamedTuple):
    """A random resized crop (Szegedy et al. 2015, "Going deeper with convolutions", section 6)."""

    scale: tuple[float, float] = (0.08, 1.0)  # part of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height; uniform in its logarithm


class View(NamedTuple):
    """The form of samples u8[height, width, channels], and how an image of another size is brought to it.

    fit: "squash" averages by area, whatever the image's ratio of sides. "crop" enlarges or shrinks it bilinearly until
      its shorter side is 1 / part of the sample's, and keeps the middle.
    """

    height: int
    width: int
    channels: int
    fit: Fit = "squash"
    part: float = 0.875  # 224 of 256


def read_view(path: File, view: View, cut: Cut | None = None, seed: tuple[int, int] = (0, 0)) -> np.ndarray:
    """An image file as a sample, u8[height, width, channels].

    Args:
      path: of the file.
      view: the sample's form.
      cut: a random cut in the place of what `view.fit` says.
      seed: of the cut, two numbers below 2**64; it depends on nothing else.

    Raises ValueError for what `image_file` refuses.
    """
    from PIL import Image

    if cut is None and view.fit == "squash":
        return resize(read_image(path, view.channels)[None], view.height, view.width)[0]
    mode = "L" if view.channels == 1 else "RGB"
    with opened(path, _ALPHA) as image:
        plain = image.format == "JPEG" and image.mode in ("L", "RGB") and image.getexif().get(_ORIENTATION, 1) == 1
        picture = image if plain else picture_of(image, _ALPHA)
        width, height = picture.size
        box: tuple[float, float, float, float] | None
        if cut is None:
            box, wanted = middle(height, width, view)
        else:
            left, top, right, bottom = box = random_box(height, width, cut, seed)
            wanted = (
                math.ceil(width * view.width / (right - left)),
                math.ceil(height * view.height / (bottom - top)),
            )
        if plain:
            picture.draft(None, wanted)
        if picture.size != (width, height):
            across, down = picture.size[0] / width, picture.size[1] / height
            box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        elif cut is not None:  # beyond its border the cut sees nothing, as when it is cut first and resized then
            picture, box = picture.crop(box), None
        pixels = picture.convert(mode).resize((view.width, view.height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(pixels).reshape(view.height, view.width, view.channels)


def middle(height: int, width: int, view: View) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """The box (left, top, right, bottom) of the middle in an image, and its (width, height) once it is resized.

    As torchvision's Resize and CenterCrop round: the longer side is cut to whole pixels, the offset rounded.
    """
    side = round(min(view.height, view.width) / view.part)
    short = min(height, width)
    across, down = (side if length == short else int(side * length / short) for length in (width, height))
    across, down = max(across, view.width), max(down, view.height)
    left, top = round((across - view.width) / 2), round((down - view.height) / 2)
    x, y = width / across, height / down
    return (left * x, top * y, (left + view.width) * x, (top + view.height) * y), (across, down)


def random_box(height: int, width: int, cut: Cut, seed: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of a random cut, in whole pixels of an image.

    After ten boxes that do not lie in the image it is the largest in the middle whose ratio is allowed.
    """
    raw = np.random.Philox(key=np.array(seed, np.uint64)).random_raw(2 * _TRIES + 2)
    draws = (raw >> np.uint64(11)).astype(float) * 2.0**-53
    low, high = (math.log(ratio) for ratio in cut.ratio)
    for first, second in draws[: 2 * _TRIES].reshape(-1, 2):
        area = height * width * (cut.scale[0] + (cut.scale[1] - cut.scale[0]) * first)
        ratio = math.exp(low + (high - low) * second)
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(draws[-2] * (width - across + 1)), int(draws[-1] * (height - down + 1))
            return left, top, left + across, top + down
    across, down = width, height
    if width / height < cut.ratio[0]:
        down = round(width / cut.ratio[0])
    elif width / height > cut.ratio[1]:
        across = round(height * cut.ratio[1])
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def form_of_view(view: View) -> tuple[int, int, int]:
    """The sample's shape."""
    return view.height, view.width, view.channels
