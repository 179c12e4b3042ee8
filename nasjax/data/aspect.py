"""Images of any shape as squares of one size: padded, cropped or squashed; and predictions of squares put back.

Padding and cropping keep the ratio of an image's sides, so that what is round stays round. The public UNet++ code on
nuclei squashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nasjax.data.dataset import nearest, resize

ASPECTS = ("pad", "crop", "squash")


def square(image: np.ndarray, size: int, aspect: str) -> np.ndarray:
    """An image [H, W, C] as [size, size, C] of the same type.

    "pad": by area until its longer side fits, in the middle of its own mean colour. "crop": its middle square by area.
    "squash": all of it by area, whatever its sides.
    """

    def mean(image: np.ndarray) -> np.ndarray:
        colour = image.mean((0, 1), dtype=np.float64)
        return np.rint(colour) if image.dtype.kind == "u" else colour

    return _square(image, size, aspect, resize, mean)


def square_mask(mask: np.ndarray, size: int, aspect: str) -> np.ndarray:
    """A mask [H, W, 1] as [size, size, 1], each pixel the one at its centre, beside its image's `square`.

    What is padded is background, 0.
    """
    return _square(mask, size, aspect, nearest, lambda mask: 0)


def _square(image: np.ndarray, size: int, aspect: str, scaled: Callable[..., Any], fill: Callable[..., Any]) -> Any:
    """`square` by a function that scales [1, H, W, C], and one that gives the colour around what is padded."""
    height, width = image.shape[:2]
    if aspect == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if aspect != "pad" or height == width:
        return scaled(image[None], size, size)[0]
    out = np.empty((size, size, image.shape[2]), image.dtype)
    out[:] = fill(image)
    small = scaled(image[None], *_inner(height, width, size))[0]
    _middle(out, small.shape)[:] = small
    return out


def pieces(height: int, width: int, aspect: str) -> list[tuple[int, int, int, int]]:
    """The parts of an image (top, left, height, width) that are predicted, each by its `square`: together all of it.

    One, but where networks see crops: then squares of the shorter side, evenly spaced along the longer one.

    Example:
      >>> pieces(10, 25, "crop")
      [(0, 0, 10, 10), (0, 8, 10, 10), (0, 15, 10, 10)]
    """
    if aspect != "crop":
        return [(0, 0, height, width)]
    side, long = min(height, width), max(height, width)
    count = -(-long // side)
    starts = [round(i * (long - side) / max(count - 1, 1)) for i in range(count)]
    return [(0, start, side, side) if width > height else (start, 0, side, side) for start in starts]


def unpadded(found: np.ndarray, height: int, width: int, aspect: str) -> np.ndarray:
    """What of a prediction [size, size] of an image's `square` belongs to the image itself."""
    if aspect != "pad" or height == width:
        return found
    return _middle(found, _inner(height, width, found.shape[0]))


def _inner(height: int, width: int, size: int) -> tuple[int, int]:
    """The sides of an image whose longer one is `size`; the shorter one is a pixel at least."""
    longest = max(height, width)
    return max(1, round(height * size / longest)), max(1, round(width * size / longest))


def _middle(of: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The middle of an array, a view [shape[0], shape[1], ...]."""
    top, left = (of.shape[0] - shape[0]) // 2, (of.shape[1] - shape[1]) // 2
    return of[top : top + shape[0], left : left + shape[1]]
