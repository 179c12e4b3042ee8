"""A user's targets, one per sample: classes by number or by name, or values to predict."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from nasjax.data.units import names

Target = Literal["ask", "class", "value"]
_CHOICE = "write --set data.target=class for classes, --set data.target=value for values to predict"
_MOST = 0.5  # more different numbers than this part of the samples are hardly classes


class Targets(NamedTuple):
    """What the targets of a data set are.

    read(y, where) -> i32[N] numbers of classes, or f64[N] values as the user has them. Raises ValueError.
    """

    names: tuple[str, ...]  # of the classes, or of the one value
    values: bool
    read: Callable[[np.ndarray, str], np.ndarray]


def targets(y: np.ndarray, class_names: Any, target: Target, where: str) -> Targets:
    """The meaning of the training targets `y`.

    Args:
      y: [N]. Text is classes. Integers are classes, unless `target` says that they are values. Floats are values.
        `target` says what whole floats are that recur, and integers that differ in most samples: they may be either.
        Text that differs in most samples counts as classes only where `target` says so.
      class_names: of numbered classes, by ascending number; of text in the order that is wanted; of values one name.
        None = the numbers, the sorted texts, "value".
      target: what the user says: "class", "value" or "ask".
      where: what y is called in errors.

    Raises:
      ValueError: y is nothing of the kind, has fewer than two different targets, or does not fit the names.
    """
    y = _checked(y, where)
    if is_value(y, target, where):
        given = ("value",) if class_names is None else names(class_names, f"{where}: class_names")
        if len(given) != 1:
            raise ValueError(f"{where} holds values, but there are {len(given)} class_names; give one name, or none")
        _different(y, where, "values")
        return Targets(given, True, lambda part, part_where: _numbers(part, part_where))
    known = _different(_whole(y), where, "classes")
    found = names(known, where)
    given = found if class_names is None else names(class_names, f"{where}: class_names")
    if len(given) != len(found):
        raise ValueError(f"{len(given)} class_names, but {where} holds {len(found)} classes")
    order = found
    if y.dtype.kind == "U":
        if set(given) != set(found):
            raise ValueError(f"{where} holds {sorted(set(found) ^ set(given))[0]!r} or class_names does, but not both")
        order = given
    number = {name: k for k, name in enumerate(order)}

    def read(part: np.ndarray, part_where: str) -> np.ndarray:
        labels = [str(label) for label in _whole(_checked(part, part_where)).tolist()]
        if unknown := [label for label in labels if label not in number]:
            raise ValueError(f"{part_where} holds {unknown[0]}, a class that the training part does not have")
        return np.array([number[label] for label in labels], np.int32)

    return Targets(given, False, read)


def is_value(y: np.ndarray, target: Target, where: str) -> bool:
    """Whether these targets are values. Raises ValueError where that is not known, or cannot be."""
    kind = _checked(y, where).dtype.kind
    if kind == "U":
        if target == "value":
            raise ValueError(f"{where} holds text, which is no value; leave data.target out, or give numbers")
        if target == "ask" and _many(y):  # numbers with one "n/a" among them are read as text
            found = next((one for one in y.tolist() if not _number(one)), "")
            raise ValueError(
                f"{where} holds {len(np.unique(y))} different texts in {len(y)} samples (one is {found!r}): write "
                "--set data.target=class if they are classes; values are numbers in every sample"
            )
        return False
    whole = kind != "f" or bool((y == np.round(y)).all())
    if target != "ask":
        if target == "class" and not whole:
            raise ValueError(f"{where} holds fractions, which number no classes; write --set data.target=value")
        return target == "value"
    if kind == "f":
        if whole and not _many(y):
            raise ValueError(f"{where} holds whole numbers as {y.dtype}: classes or values? {_CHOICE}")
        return True
    if _many(y):
        raise ValueError(f"{where} holds {len(np.unique(y))} different numbers in {len(y)} samples: {_CHOICE}")
    return False


def _many(y: np.ndarray) -> bool:
    """Whether most samples have a target of their own."""
    return len(np.unique(y)) > max(2, _MOST * len(y))


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def task_of(y: np.ndarray, target: Target, where: str) -> str:
    """The task whose targets these are. Raises ValueError as `is_value`."""
    return "regression" if is_value(y, target, where) else "classification"


def _checked(y: np.ndarray, where: str) -> np.ndarray:
    """[N] integers, finite floats or text."""
    if y.dtype.kind in "OS":
        what = "objects" if y.dtype.kind == "O" else "bytes"
        raise ValueError(f"{where} holds {what}; write y.astype(str) for names of classes, y.astype(float) for values")
    if y.ndim != 1 or y.dtype.kind not in "iufU":
        raise ValueError(f"{where} must be integers, floats or text of shape [N], got {y.dtype} {list(y.shape)}")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"{where} holds NaN or infinite values; leave those samples out")
    return y


def _whole(y: np.ndarray) -> np.ndarray:
    """Classes as integers or text."""
    return y if y.dtype.kind != "f" or (y != np.round(y)).any() else y.astype(np.int64)


def _numbers(y: np.ndarray, where: str) -> np.ndarray:
    if _checked(y, where).dtype.kind == "U":
        raise ValueError(f"{where} holds text, but y values; give numbers")
    return y.astype(np.float64)


def _different(y: np.ndarray, where: str, what: str) -> np.ndarray:
    found = np.unique(y)
    if len(found) < 2:
        raise ValueError(f"{where} holds fewer than two {what}")
    return found
