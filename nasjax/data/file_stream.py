"""Whether the images of files are read at once or at every step, and how."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nasjax.data.image_file import opened
from nasjax.data.stream import FITS, Images, images
from nasjax.data.view import Fit, View


class Reading(NamedTuple):
    """How image files are read; the fields are those of `DataConfig`."""

    fit: Fit = "squash"
    part: float = 0.875
    stream: Literal["auto", "true", "false"] = "false"
    readers: int | None = None
    skip: bool = False


PLAIN = Reading()


def fit_of(config: Any) -> Fit:
    """How a `DataConfig` brings images to one size."""
    return config.fit or ("crop" if config.name == "imagenet" else "squash")


def reading_of(config: Any) -> Reading:
    """What a `DataConfig` says."""
    return Reading(fit_of(config), config.crop_part, config.stream, config.readers, config.skip_corrupt)


def streamed(
    files: Callable[[], Sequence[str]], root: Path, side: int | None, reading: Reading, notes: list[str]
) -> Callable[[], Images] | None:
    """What gives the images of all files of a set where they stay in files; None where they are read at once.

    Args:
      files: those of all parts.
      root: the folder that they are in.
      side: of the samples, in pixels; None = images are of one size.
      reading: how.
      notes: is given a line where a stream was chosen by size.

    Raises ValueError where a setting has no effect, or a set that does not fit has no side.
    """
    all_of = files() if reading.stream == "auto" else ()
    form = (side, side) if side is not None else _size(Path(all_of[0])) if all_of else (0, 0)
    if not stays(len(all_of), form, side is not None, reading, notes):
        return None
    if side is None:
        raise ValueError("data.stream=true needs --set data.resize=N, the side that all images shall have (224, say)")
    view = View(side, side, 3, reading.fit, reading.part)
    return functools.cache(lambda: images(files(), root, view, readers=reading.readers, skip=reading.skip))


def stays(count: int, form: tuple[int, int], sized: bool, reading: Reading, notes: list[str]) -> bool:
    """Whether images stay where they are.

    Args:
      count: of them, for `auto`.
      form: their height and width.
      sized: whether all are brought to it.
      reading, notes: as of `streamed`, as are errors.
    """
    size = count * form[0] * form[1] * 3 if reading.stream == "auto" else 0
    told = f"{count:,} images of {form[0]}x{form[1]} are {size / 2**30:.1f} GiB"
    if size > FITS and not sized:
        raise ValueError(
            f"{told}: write --set data.resize=N, the side that all shall have, and they stay in their files; or "
            "--set data.stream=false to read them at once"
        )
    if size > FITS:
        notes.append(
            f"{told}: they stay in their files and are read at every step; --set data.stream=false reads them at once"
        )
    if reading.stream == "true" or size > FITS:
        return True
    if reading.skip or reading.readers is not None:
        name = "skip_corrupt" if reading.skip else "readers"
        raise ValueError(f"data.{name} has no effect on images that are read at once; write --set data.stream=true")
    return False


def _size(file: Path) -> tuple[int, int]:
    """Height and width of an image."""
    with opened(file, "") as image:
        return image.height, image.width
