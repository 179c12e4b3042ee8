"""A user's table of image files: a CSV with the columns file and label, and perhaps split."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nasjax.data.file_stream import PLAIN, Reading, reading_of, streamed
from nasjax.data.image_set import Form, form_of, read_images
from nasjax.data.labels import Target, targets, task_of
from nasjax.data.sources import DataSource, Source, Split

_HOW = "the first line names the columns: file,label or file,label,split"
_SPLITS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_REAL = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?")  # 007 is a name


class Listed(NamedTuple):
    """The rows of a CSV."""

    files: list[Path]
    labels: np.ndarray  # [N] integers where all are, floats where all are numbers, else text
    splits: list[str]  # "train", "valid" or "test"
    ignored: tuple[str, ...]  # columns


def listed(path: Path, folder: str = "") -> Listed:
    """Reads a CSV in UTF-8; relative files are relative to `folder`, or to the CSV where that is "".

    Raises:
      FileNotFoundError: there is no such CSV, or a file in it does not exist.
      ValueError: a column is missing, or a row is not complete, names a file twice or an unknown split.
    """
    if not path.is_file():
        hint = " (a relative CSV is relative to --data_dir; give its whole path)" if folder else ""
        raise FileNotFoundError(f"no such file: {path}{hint}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a CSV in UTF-8: {error}") from None
    head = [name.strip().lower() for name in lines[0]] if lines else []
    for name in ("file", "label"):
        if head.count(name) != 1:
            raise ValueError(f"{path} has no column {name!r} (it has {', '.join(head) or 'nothing'}); {_HOW}")
    base = Path(folder).expanduser() if folder else path.parent
    files: dict[Path, int] = {}
    labels, splits = [], []
    for number, row in enumerate(lines[1:], 2):
        if len(row) != len(head):
            raise ValueError(f"{path}: row {number} has {len(row)} columns, the first line {len(head)}")
        cells = {name: cell.strip() for name, cell in zip(head, row, strict=True)}
        if not cells["file"] or not cells["label"]:
            raise ValueError(f"{path}: row {number} has no {'label' if cells['file'] else 'file'}")
        file = base / cells["file"]
        if file in files:
            raise ValueError(f"{path}: rows {files[file]} and {number} name the same file; keep one")
        if not file.is_file():
            where = "--data_dir" if folder else "the CSV's folder, or to --data_dir=FOLDER"
            raise FileNotFoundError(f"{path}: row {number}: no such file: {file}; files are relative to {where}")
        split = cells.get("split", "train").lower()
        if split not in _SPLITS:
            raise ValueError(f"{path}: row {number} has the split {cells['split']!r}; write train, valid or test")
        files[file] = number
        labels.append(cells["label"])
        splits.append(_SPLITS[split])
    ignored = tuple(name for name in head if name not in ("file", "label", "split"))
    return Listed(list(files), _typed(labels), splits, ignored)


def _typed(labels: Sequence[str]) -> np.ndarray:
    if labels and all(map(_INTEGER.fullmatch, labels)):
        return np.array(labels, np.int64)
    if labels and all(map(_REAL.fullmatch, labels)):
        return np.array(labels, np.float64)
    return np.array(labels, str)


def file_list(
    path: Path,
    folder: str = "",
    target: Target = "ask",
    resize: int | None = None,
    reading: Reading = PLAIN,
) -> Source:
    """The images of a CSV as a data set.

    Labels are read as `labels.targets` says: names or numbers of classes, or values. Without rows of the split test a
    sixth of the images is the test part, without such to validate another sixth (a tenth beside a test part).

    Args:
      path: of the CSV.
      folder: what its files are relative to; "" = the CSV's own folder.
      target: see `labels.targets`.
      resize: side of all images, in pixels; None = they are of one size.
      reading: how, and whether images stay in their files.

    Raises:
      As `listed` and `labels.targets`, and ValueError where no row is for training. When read: as `image_set`.
    """
    rows = listed(path, folder)
    index = {part: [i for i, split in enumerate(rows.splits) if split == part] for part in ("train", "valid", "test")}
    if not index["train"]:
        raise ValueError(f"{path} has no rows to train on; {_HOW}")
    known = targets(rows.labels[index["train"]], None, target, f"{path}: label")
    for part in ("valid", "test"):
        if index[part]:  # before a search, not after it
            known.read(rows.labels[index[part]], f"{path}: split {part}")
    notes = [f"{path}: columns {', '.join(rows.ignored)} are not read"] if rows.ignored else []
    forms: list[Form] = []

    def files(part: str) -> list[Path]:
        return [rows.files[i] for i in index[part]]

    def split(part: str) -> Split:
        y = known.read(rows.labels[index[part]], f"{path}: split {part}")
        if stream is not None:
            return Split(stream()[np.array(index[part])], y)  # type: ignore[arg-type]
        if not forms:
            forms.append(form_of(files("train"), resize, notes, reading.fit, reading.part))
        return Split(read_images(files(part), forms[0], notes), y)

    stream = streamed(lambda: [*map(str, rows.files)], Path(folder or path.parent), resize, reading, notes)
    count, own_test = len(index["train"]), bool(index["test"])
    return Source(
        class_names=known.names,
        pool=lambda: split("train"),
        test=(lambda: split("test")) if own_test else None,
        test_size=0 if own_test else count // 6,
        valid_size=0 if index["valid"] else count // 10 if own_test else count // 6,
        valid=(lambda: split("valid")) if index["valid"] else None,
        notes=notes,
        values=known.values,
    )


def _path(config: Any) -> Path:
    return Path(config.data_dir, config.name).expanduser()


def _task(config: Any) -> str:
    rows = listed(_path(config), config.data_dir)
    train = [i for i, split in enumerate(rows.splits) if split == "train"]
    return task_of(rows.labels[train], config.target, f"{_path(config)}: label")


SOURCE = DataSource(
    lambda config: file_list(_path(config), config.data_dir, config.target, config.resize, reading_of(config)),
    "classification",
    folder=True,
    files=True,
    task_of=_task,
)
