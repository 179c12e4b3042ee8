"""Reads one image or mask file: what it says of its pixels is honoured, or the file is refused.

Honoured: EXIF orientation (the picture as a viewer shows it), palettes, bilevel and other files of less than 8 bits.
Refused, since their values cannot be read unambiguously as 8 bits gray or RGB: more than 8 bits a channel, signed or
floating values, transparent pixels, colours for print, channels without a name, and several pictures in a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.data.records import Record

File = Path | Record  # what holds an image
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# Image formats that are not read: an error names them, so that no file of a folder is silently left out.
_FOREIGN = (
    ".apng", ".avif", ".dcm", ".dib", ".dng", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".pbm", ".pcx",
    ".pgm", ".pnm", ".ppm", ".tga",
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP")  # of Pillow, which may have more
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa")  # 8 bits, of known colours
_BITS, _SAMPLES, _FORMAT = 258, 277, 339  # tags of TIFF


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, by name; hidden files are none.

    Raises ValueError where an image is of a format that is not read.
    """
    files = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and not p.is_dir())
    for path in files:
        if path.suffix.lower() in _FOREIGN:
            raise ValueError(f"{path} is of a format that is not read; convert it to one of {', '.join(SUFFIXES)}")
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def read_image(path: File, channels: int) -> np.ndarray:
    """An image file, upright, as uint8[H, W, channels], gray (1) or RGB (3).

    Raises ValueError for what is refused; see the top of this file.
    """
    if channels not in (1, 3):
        raise ValueError(f"{path}: this model reads {channels} channels; give an .npz with x, an image has 1 or 3")
    picture = _picture(path, "fill what is transparent with a colour")
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def pixels_of(image: Any) -> np.ndarray:
    """A PIL image, upright, as uint8[H, W, C]: gray (1) as it is, else RGB (3).

    Raises ValueError for what is refused of files; see the top of this file.
    """
    from PIL import ImageOps

    if image.mode not in _MODES:
        raise ValueError(f"its mode is {image.mode}; convert it to 8 bits a channel, gray (L) or RGB")
    picture = ImageOps.exif_transpose(image)
    if _transparent(picture):
        raise ValueError("it has transparent pixels; fill what is transparent with a colour")
    pixels = np.asarray(picture.convert("L" if _gray(picture) else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def channels_of(path: Path) -> int:
    """1 where the head of an image file says gray, 3 otherwise (a palette counts as colours).

    Raises ValueError where it is no image.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            return 1 if _gray(image) else 3
    except Exception as error:  # Pillow has no single error for a damaged file
        raise ValueError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error


def read_mask(path: Path) -> np.ndarray:
    """A mask file, upright, as gray levels uint8[H, W, 1]; `foreground` makes 0 and 1 of those of a whole set.

    Raises ValueError for what is refused (see the top of this file), for colours, and for a palette whose numbers and
    colours disagree on the background, or on which pixels are equal.
    """
    picture = _picture(path, "write the mask as gray, 0 and 255, and leave the alpha channel out")
    pixels = np.asarray(picture.convert("RGB"))
    mask = pixels[..., :1]
    if (pixels != mask).any():
        raise ValueError(f"{path} is a coloured mask; write 0 for background and 255 for foreground, as gray")
    if picture.mode == "P":
        colours = np.reshape(picture.getpalette("RGB"), (-1, 3))
        colours = colours[colours.any(1)]
        numbers = np.asarray(picture)[..., None]
        if ((numbers > 0) != (mask > 0)).any() or len(np.unique(colours, axis=0)) < len(colours):
            raise ValueError(
                f"{path} has a palette whose colours tell other classes apart than its numbers do; write 0 for "
                "background and 255 for foreground, as gray"
            )
    return mask


def foreground(levels: Mapping[int, Path], where: Path) -> int:
    """The one level besides 0 in a set of masks; `levels` are all that occur, each with a file that has it.

    Raises ValueError where there are more, or none.
    """
    found = sorted(levels)
    instead = "write 0 for background and 255 for foreground, in all of them"
    if len(several := [level for level in found if level]) > 1:
        one, other = (f"{levels[level]} holds {level}" for level in several[:2])
        shown = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        raise ValueError(f"{one}, {other}: the masks have more than two values, they hold {shown}; {instead}")
    if len(found) < 2:
        what = "foreground" if several else "background"
        raise ValueError(f"all masks of {where} are {what}, every pixel is {found[0]}; {instead}")
    return several[0]


@contextmanager
def opened(path: File, instead_of_alpha: str) -> Iterator[Any]:
    """An image file whose head was read and is not refused; of its pixels none. Errors in the block name the file."""
    from PIL import Image

    source: Any = path
    try:
        if isinstance(path, Path):
            with path.open("rb") as file:
                head = file.read(25)
        else:
            source = path.open()
            head = source.getvalue()[:25]
        with Image.open(source, formats=_FORMATS) as image:
            if problem := _refusal(image, head):
                raise ValueError(problem)
            if image.format == "BMP" and "BGRX" in (image.tile[0].args or ()):  # Pillow drops the fourth byte
                fourth = np.frombuffer(path.read_bytes(), np.uint8, offset=image.tile[0].offset)[3::4]
                if fourth.min() < fourth.max():
                    raise ValueError(f"it has transparent pixels; {instead_of_alpha}")
            yield image
    except Exception as error:  # Pillow has no single error for a damaged file
        reason = " ".join(str(error).split()).replace(repr(source), "it")
        raise ValueError(f"{path} cannot be read as an image: {reason}") from error


def picture_of(image: Any, instead_of_alpha: str) -> Any:
    """The picture of an opened file, upright. Raises ValueError where it is transparent."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(image)  # reads the pixels
    if _transparent(picture):
        raise ValueError(f"it has transparent pixels; {instead_of_alpha}")
    return picture


def _picture(path: File, instead_of_alpha: str) -> Any:
    """The one picture of a file, upright, in one of `_MODES` and opaque."""
    with opened(path, instead_of_alpha) as image:
        return picture_of(image, instead_of_alpha)


def _gray(image: Any) -> bool:
    return image.mode in ("1", "L", "LA", "La")


def _transparent(picture: Any) -> bool:
    return picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255


def _refusal(image: Any, head: bytes) -> str:
    """What is wrong with an opened image, "" where nothing is; `head` are the file's first 25 bytes.

    Pillow cuts 16 bits a channel down to 8, drops channels and takes signed values for unsigned silently.
    """
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":
        return f"it has {pages} pictures; write each to a file of its own"
    deep = head[24] if image.format == "PNG" else 8
    if image.format == "TIFF":
        tags = image.tag_v2
        deep = max(_all(tags.get(_BITS, 1)))
        if any(kind not in (1, 4) for kind in _all(tags.get(_FORMAT, 1))):
            return "its values are signed or floating; convert it to unsigned values of 8 bits"
        samples, known = tags.get(_SAMPLES, 1), len(image.getbands())
        if samples != known:
            return f"it has {samples} channels, which are not all gray, RGB or alpha; write those alone, or an .npz"
    if deep > 8 or image.mode.startswith("I") or image.mode == "F":
        what = f"{deep} bits a channel" if deep > 8 else f"mode {image.mode}"
        return f"it has {what}; convert it to 8 bits a channel"
    if image.mode not in _MODES:
        return f"its colours are {image.mode}; convert it to RGB"
    return ""


def _all(values: Any) -> tuple[int, ...]:
    return values if isinstance(values, tuple) else (values,)
