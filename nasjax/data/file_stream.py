"""Whether the images of files are read at once or at every step, and how."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

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

    Raises ValueError where a setting has no effect, or a stream has no side.
    """
    if reading.stream == "auto" and side is not None:
        size = len(files()) * side * side * 3
        if size > FITS:
            notes.append(
                f"{len(files()):,} images of {side}x{side} are {size / 2**30:.1f} GiB: they stay in their files and "
                "are read at every step; --set data.stream=false reads them at once"
            )
        wanted = size > FITS
    else:
        wanted = reading.stream == "true"
    if not wanted:
        if reading.skip or reading.readers is not None:
            name = "skip_corrupt" if reading.skip else "readers"
            raise ValueError(f"data.{name} has no effect on images that are read at once; write --set data.stream=true")
        return None
    if side is None:
        raise ValueError("data.stream=true needs --set data.resize=N, the side that all images shall have (224, say)")
    view = View(side, side, 3, reading.fit, reading.part)
    return functools.cache(lambda: images(files(), root, view, readers=reading.readers, skip=reading.skip))
