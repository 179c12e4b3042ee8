"""The meaning of a user's arrays: the form of their samples, the units of their values, and names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

MANY = 16  # samples enough to show the range of a whole set; fewer may all be dark, or blank
_OWN = 8.0  # a set has at least this part of the range of another in the same units
_ONE = 64.0  # a few samples, likewise


def range_of(x: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value."""
    return float(x.min()), float(x.max())


def other_form(x: Any, dtype: np.dtype | str, shape: tuple[int, ...]) -> str:
    """How the form of samples differs from this type and shape [...]; "" where it does not.

    Floats of any precision mean the same. Integers are pixels of their own type: uint8 255 is not uint16 255.
    """
    dtype = np.dtype(dtype)
    if x.dtype != dtype and not (_floating(x.dtype) and _floating(dtype)):
        return f"is {x.dtype}, not {dtype}"
    if x.shape[1:] != tuple(shape):
        return f"is [{', '.join(map(str, ('N', *x.shape[1:])))}], not [{', '.join(map(str, ('N', *shape)))}]"
    return ""


def _floating(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def other_units(x: np.ndarray, low: float, high: float) -> str:
    """Why values seem to be in other units than values from `low` to `high`; "" where they may be in the same.

    Only the range is compared. With `MANY` samples it distinguishes 0..1 from 0..255 or -1..1, and 12 bits from 16, but
    not units of nearly the same range.
    """
    width, many = high - low, len(x) >= MANY
    if not width or not x.size:
        return ""
    smallest, largest = range_of(x)
    room = width if x.dtype.kind == "f" else (_OWN - 1) * width  # bright pictures in the same units
    beyond = largest > high + room or smallest < low - room or smallest < low - width / 4 < low >= 0
    narrow = largest - smallest < width / (_OWN if many else _ONE)
    if not many and (x.dtype.kind != "f" or largest == smallest):
        narrow = False  # a dark picture
    one_sided = many and low < -width / 20 and smallest >= 0
    if not (beyond or narrow or one_sided):
        return ""
    return f"holds {smallest:g}..{largest:g}, the training part {low:g}..{high:g}"


def names(values: Iterable[Any], where: str) -> tuple[str, ...]:
    """Names as text, from any array or list; bytes are decoded as UTF-8.

    Raises ValueError for bytes that are no UTF-8, and for what is no list of names.
    """
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{where} must be a list of names, got an array of shape {list(values.shape)}")
    try:
        return tuple(str(name, "utf-8") if isinstance(name, bytes) else str(name) for name in values.tolist())
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} holds bytes that are no UTF-8 ({error}); write them as text") from None
