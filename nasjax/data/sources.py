"""A data set before it is read: its parts, its task, and the form of its samples.

A source says what it holds and reads it only when asked, part by part, so that a search never opens the test part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Split(NamedTuple):
    """Samples and targets of one part."""

    # Images [N, H, W, C], uint8, uint16 or float32 in the user's range, or a `stream.Images`; windows of tokens
    # i32[N, T]
    x: np.ndarray
    y: np.ndarray  # classes i32[N]; values f64[N]; masks uint8[N, H, W, 1]; the next tokens i32[N, T]


class Source(NamedTuple):
    """A data set that has not been read yet."""

    class_names: tuple[str, ...]  # of the outputs: classes, channels of the mask, words
    pool: Callable[[], Split]  # all samples to train on, and to validate on where `valid` is None
    test: Callable[[], Split] | None  # None: no test part of its own; `test_size` samples of the pool are used
    test_size: int  # samples, 0 where `test` is given
    valid_size: int  # default number of validation samples, 0 where `valid` is given
    valid: Callable[[], Split] | None = None  # a validation part of its own
    notes: Sequence[str] = ()  # what a user should know of the parts read so far
    values: bool = False  # y are values in the user's units, which `load` standardises


class DataSource(NamedTuple):
    """A data set by name, as the catalog lists it."""

    open: Callable[[Any], Source]  # of a DataConfig. Raises ValueError or FileNotFoundError with what to do
    task: str  # its task
    shape: tuple[int, ...] | None = None  # of one sample, known without reading; None = unknown until read
    outputs: int | None = None  # likewise
    characters: int | None = None  # likewise, of a text as characters
    size: int | None = None  # samples to train and validate on, likewise
    photographs: bool = False  # crops of 5/4 and mirror images are the same picture; false for digits
    directionless: bool = False  # quarter turns, mirror images and other colours are the same picture, as in microscopy
    folder: bool = False  # --data_dir names its folder
    aspect: str = ""  # what `data.aspect` is where it is not given; "" = it has no effect
    arrays: bool = False  # a user's own: data.channels and data.same_units say what they mean
    files: bool = False  # each image is a file: data.fit and data.stream say how it is read
    # DataConfig -> the task, where the targets and data.target decide. Reads the targets; raises as `open`
    task_of: Callable[[Any], str] | None = None
