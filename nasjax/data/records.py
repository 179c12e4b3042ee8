"""Images that TensorFlow Datasets has prepared, read at random by its `data_source`, without TensorFlow.

A record stands where an image file would: it has a name, and bytes that are a JPEG or PNG. Only sets in ArrayRecord
files can be read so.
"""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_CLASSES = ".nasjax_classes_{}.npy"  # of a part, kept beside its records: reading them means reading all images


class Record(NamedTuple):
    """The image of one example, as `data.image_file` reads a file's."""

    folder: str  # of the prepared set
    place: str  # "train/17": the part, and the number of the example in it

    def __str__(self) -> str:
        part, _, number = self.place.partition("/")
        return f"image {number} of {part} in {self.folder}"

    def read_bytes(self) -> bytes:
        part, _, number = self.place.partition("/")
        found: bytes = opened_part(self.folder, part)[int(number)]["image"]
        return found

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.read_bytes())


@functools.cache
def builder(folder: str) -> Any:
    """TFDS's description of a prepared set. Errors as TFDS has them."""
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder)


@functools.cache
def opened_part(folder: str, part: str) -> Any:
    """The examples of a part: a sequence of {"image": bytes, "label": int, ...}."""
    import tensorflow_datasets as tfds

    return builder(folder).as_data_source(part, decoders={"image": tfds.decode.SkipDecoding()})


def classes_of(folder: str, part: str, notes: list[str]) -> np.ndarray:
    """The class of every example of a part, i32[N].

    They stand in the records, so the first time all of them are read; then they are kept in a file beside them, where
    the folder can be written, and `notes` is given a line.
    """
    kept, examples = Path(folder) / _CLASSES.format(part), opened_part(folder, part)
    try:
        found: np.ndarray = np.load(kept, allow_pickle=False)
        if found.shape == (len(examples),) and found.dtype == np.int32:
            return found
    except (OSError, ValueError):
        pass
    found = np.fromiter((examples[number]["label"] for number in range(len(examples))), np.int32, len(examples))
    try:
        written = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(written, found)
        written.replace(kept)
        notes.append(f"the classes of {len(examples):,} images were read from {folder} and are kept in {kept.name}")
    except OSError as error:
        notes.append(f"the classes of {len(examples):,} images will be read again the next time: {error}")
    return found
