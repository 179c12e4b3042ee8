"""Checks targets where the task defines their numbers: masks are 0 and 1, tokens are numbers of words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nasjax.data.sources import Source, Split

_HOW = "write 0 for background and 1 for foreground (0 and 255 serve as well where they are integers)"


def meant(source: Source, task: str, where: str) -> Source:
    """A user's source whose targets have the meaning that the task gives them; `where` names it in errors.

    Its parts raise ValueError as `masks` and `tokens` say; those of other tasks are as they are.
    """
    outputs = len(source.class_names)

    def part(read: Callable[[], Split], suffix: str) -> Callable[[], Split]:
        checks = {
            "segmentation": lambda split: masks(split, outputs, f"{where}: y{suffix}"),
            "language": lambda split: tokens(split, outputs, where, suffix),
        }
        return lambda: checks[task](read())

    if task not in ("segmentation", "language"):
        return source
    return source._replace(
        pool=part(source.pool, ""),
        valid=source.valid and part(source.valid, "_valid"),
        test=source.test and part(source.test, "_test"),
    )


def masks(part: Split, outputs: int, where: str) -> Split:
    """A part with masks of 0 and 1.

    Args:
      part: images [N, H, W, C] and masks [N, H, W] or [N, H, W, outputs]: bool; integers, 0 and 1 or 0 and 255; or
        float, the share of foreground, 0..1.
      outputs: masks of an image.
      where: what y is called in errors.

    Returns:
      Masks [N, H, W, outputs], uint8 0 and 1, or float32 0..1.

    Raises:
      ValueError: another shape, type or other values; nothing but background, or nothing but foreground.
    """
    x, y = np.asarray(part.x), np.asarray(part.y)
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{where} must hold numbers, got {y.dtype}; {_HOW}")
    shape = (*x.shape[:3], outputs)
    if y.shape != shape and (outputs > 1 or y.shape != shape[:3]):
        raise ValueError(f"{where} must be {list(shape)}, a mask for each image and class name; got {list(y.shape)}")
    if y.dtype.kind == "f":
        low, high = float(y.min()), float(y.max())  # NaN where any is
        if not (low >= 0 and high <= 1):
            found = f"values from {low:g} to {high:g}" if np.isfinite(y).all() else "NaN or infinite values"
            advice = "divide it by 255" if low >= 0 and 1 < high <= 255 else _HOW
            raise ValueError(f"{where} holds {found}, but a mask of floats is the share of foreground, 0..1: {advice}")
        mask = y.astype(np.float32)
    else:
        levels = set(np.unique(y).tolist())
        if levels - {0, 1} and levels - {0, 255}:
            shown = ", ".join(map(str, sorted(levels)[:6])) + (", ..." if len(levels) > 6 else "")
            raise ValueError(f"{where} holds {shown}; {_HOW}")
        mask = (y > 0).astype(np.uint8)
    if (mask > 0.5).all() or not (mask > 0).any():
        raise ValueError(f"{where} holds nothing but {'foreground' if mask.any() else 'background'}; {_HOW}")
    return Split(x, mask if mask.ndim == 4 else mask[..., None])


def tokens(part: Split, outputs: int, where: str, suffix: str) -> Split:
    """The part. Raises ValueError unless x and y are windows of tokens [N, T], integers from 0 to below `outputs`."""
    x, y = np.asarray(part.x), np.asarray(part.y)
    for name, found in ((f"x{suffix}", x), (f"y{suffix}", y)):
        if found.dtype.kind not in "iu" or found.ndim != 2 or found.shape != x.shape or not found.size:
            raise ValueError(
                f"{where}: {name} must be tokens, integers of shape [N, T] as x; got {found.dtype} {list(found.shape)}"
            )
        if found.min() < 0 or found.max() >= outputs:
            raise ValueError(
                f"{where}: {name} holds tokens from {found.min()} to {found.max()}, but class_names has {outputs} "
                f"words, numbered 0..{outputs - 1}"
            )
    return Split(x.astype(np.int32), y.astype(np.int32))
