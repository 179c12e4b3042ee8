"""Images that stay in their files until a step needs them: they stand where an array u8[N, H, W, C] would.

The list of files is all that is kept. What is read, and with which cuts, is said by the training, as functions of keys;
nothing here is random and nothing has a position, so that a training goes on anywhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.data.readers import Readers, Request, names
from nasjax.data.records import builder
from nasjax.data.view import Cut, View, form_of_view

FITS = 4 * 2**30  # bytes of pixels; a larger set is read from its files at every step
_FEW = 64  # files of a request, where nothing else says how many


class Images:
    """Images of files, all in one form; `array[index]` chooses some of them and reads nothing.

    Attributes:
      shape, dtype, ndim: as of an array of them.
      readers: the processes that read them, of all parts of a data set together.
      index: i64[N], their numbers in the list of files.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, readers: Readers, index: np.ndarray, digest: str) -> None:
        self.readers, self.index, self._digest = readers, index, digest

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.index), *form_of_view(self.readers.view)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Any) -> Images:
        return Images(self.readers, self.index[which], self._digest)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, read. For few."""
        read = np.concatenate([np.array(part) for part in self.sequence(self._pieces())])
        return read if dtype is None else read.astype(dtype)

    def min(self) -> int:
        return 0

    def max(self) -> int:
        return 255

    def sequence(
        self,
        positions: Iterable[np.ndarray],
        cut: Cut | None = None,
        seeds: Iterable[tuple[int, int]] = (),
        most: int = 0,
    ) -> Iterator[np.ndarray]:
        """The images u8[B, H, W, C] at positions i[B], one array after the other, read ahead; see `Readers.sequence`.

        Args:
          positions: of each array's images, among these.
          cut: of all images, the fields of a `Cut`; None = their view.
          seeds: of each array's cuts.
          most: images of an array; 0 = `_FEW`.
        """
        of, own = iter(seeds), None if cut is None else Cut(*cut)
        requests = (Request(self.index[at], own, next(of) if own else (0, 0)) for at in positions)
        return self.readers.sequence(requests, most or _FEW)

    def pieces(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """All of them in turn: images u8[size, ...], their positions, and bool[size], which of them count.

        The last piece is filled up with its last image, which does not count again. Nor does a file that was skipped.
        """

        def positions() -> Iterator[np.ndarray]:
            for begin in range(0, len(self), size):
                yield np.minimum(np.arange(begin, begin + size), len(self) - 1)

        for begin, x in zip(range(0, len(self), size), self.sequence(positions(), most=size), strict=True):
            at = np.arange(begin, begin + size)
            counted = at < len(self)
            counted[self.readers.left_out] = False
            yield x, np.minimum(at, len(self) - 1), counted

    def joined(self, other: Images) -> Images:
        """These and others of the same data set."""
        return Images(self.readers, np.concatenate([self.index, other.index]), self._digest)

    def digest(self) -> bytes:
        """What tells these images from others: the files' names and sizes, the form, and which of them they are."""
        return self._digest.encode() + np.ascontiguousarray(self.index, "<i8").tobytes()

    def _pieces(self) -> Iterator[np.ndarray]:
        for begin in range(0, len(self), _FEW):
            yield np.arange(begin, min(begin + _FEW, len(self)))


def images(files: Sequence[Path | str], root: Path, view: View, *, readers: int | None, skip: bool) -> Images:
    """The images of files.

    Args:
      files: those of all parts of a data set.
      root: the folder that they lie in; where it lies does not tell a set from another.
      view: their form.
      readers: processes that read them; None = one for each core that this process may use, but one.
      skip: leave out files that cannot be read.

    Raises:
      ValueError: a file is empty.
    """
    digest, begins = hashlib.sha256(repr(tuple(view)).encode()), f"{root}/"
    for file in map(str, files):
        size = os.stat(file).st_size
        if not size and not skip:
            raise ValueError(f"{file} cannot be read as an image: it is empty (0 bytes); delete it, or copy it again")
        digest.update(f"{file.removeprefix(begins)}\0{size}\0".encode(errors="surrogateescape"))
    count = max(1, usable_cores() - 1) if readers is None else readers
    return Images(Readers(names(files), view, count, skip), np.arange(len(files)), digest.hexdigest())


def images_of_records(
    folder: str, parts: Sequence[tuple[str, int]], view: View, *, readers: int | None, skip: bool
) -> Images:
    """The images of a set that TFDS has prepared.

    Args:
      folder: of the set, for `data.records`.
      parts: (name, examples), one after the other.
      view, readers, skip: as of `images`.
    """
    places = (f"{part}/{number}" for part, count in parts for number in range(count))
    count = max(1, usable_cores() - 1) if readers is None else readers
    told = [tuple(view), *parts, builder(folder).info.full_name]
    digest = hashlib.sha256(repr(told).encode()).hexdigest()
    return Images(Readers(names(places, folder), view, count, skip), np.arange(sum(of for _, of in parts)), digest)


def usable_cores() -> int:
    """Cores that this process may use: a worker has a share of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def some_of(x: Images, most: int = 512) -> np.ndarray:
    """Images from all over the set, u8[at most `most`, H, W, C], by which its mean and deviation are estimated."""
    return np.asarray(x[np.linspace(0, len(x) - 1, min(most, len(x))).astype(int)])
