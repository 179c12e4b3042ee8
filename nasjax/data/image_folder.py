"""A user's images, a folder per class: FOLDER/CLASS/*.png, or FOLDER/train/CLASS/*.png beside val/ and test/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasjax.data.file_stream import PLAIN, Reading, reading_of, streamed
from nasjax.data.image_file import image_files
from nasjax.data.image_set import Form, form_of, read_images
from nasjax.data.sources import DataSource, Source, Split

_PARTS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
_FORM = "give --data_dir=FOLDER with a folder of images per class, or with such folders in train/, val/ and test/"


def image_folder(folder: str, resize: int | None = None, reading: Reading = PLAIN) -> Source:
    """Images [N, H, W, C], uint8, and their folders as classes, by name.

    A folder called train, val (valid, validation) or test that has folders is a part, else a class. Without test/ a
    sixth of the images is the test part, without val/ another sixth validates (a tenth beside test/). Hidden files are
    none; other files that are no images are left out, and a line says so. Gray and coloured images together are RGB.

    Args:
      folder: where they lie.
      resize: side of all images, in pixels; None = they are of one size.
      reading: how, and whether images stay in their files.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: no folder per class, or one; a class without images; images beside the folders, or folders in them; a
        class that train/ does not have. When read: as `image_set`.
    """
    root = Path(folder).expanduser()
    if not folder or not root.is_dir():
        raise FileNotFoundError(f"{f'there is no folder {root}' if folder else '--data_dir is missing'}; {_FORM}")
    notes: list[str] = []
    parts: dict[str, Path] = {}
    for path in (path for path in _folders(root) if path.name.lower() in _PARTS and _folders(path)):
        part = _PARTS[path.name.lower()]
        if part in parts:
            raise ValueError(f"{parts[part]} and {path} are the same part; keep one")
        parts[part] = path
    if parts and "train" not in parts:
        raise ValueError(f"{root} has {next(iter(parts.values())).name}/ but no train/; {_FORM}")
    if parts and (others := [path.name for path in _folders(root) if path not in parts.values()]):
        raise ValueError(f"{root} has {others[0]}/ beside train/, which is no part; move it into train/ or away")
    if parts:
        _left_out(root, notes)
    found = {part: _classes(path, notes) for part, path in (parts or {"train": root}).items()}
    class_names = tuple(found["train"])
    if len(class_names) < 2:
        where = parts.get("train", root)
        raise ValueError(f"{where} has {len(class_names) or 'no'} folder{'s' * (not class_names)} of a class; {_FORM}")
    for part, classes in found.items():
        if new := sorted(set(classes) - set(class_names)):
            raise ValueError(
                f"{parts[part] / new[0]} is a class that train/ does not have; move it away or into train/"
            )

    def files(part: str) -> list[str]:
        folder = parts.get(part, root)
        return [f"{folder}/{name}/{file}" for name, own in found[part].items() for file in own]

    def split(part: str) -> Split:
        own = found[part]
        y = np.repeat([class_names.index(name) for name in own], [*map(len, own.values())]).astype(np.int32)
        if stream is None:
            return Split(read_images([*map(Path, files(part))], form(), notes), y)
        before = [other for other in found if [*found].index(other) < [*found].index(part)]
        begin = sum(len(names) for other in before for names in found[other].values())
        return Split(stream()[begin : begin + len(y)], y)  # type: ignore[arg-type]

    known: list[Form] = []

    def form() -> Form:
        if not known:
            known.append(form_of([*map(Path, files("train"))], resize, notes, reading.fit, reading.part))
        return known[0]

    stream = streamed(lambda: [file for part in found for file in files(part)], root, resize, reading, notes)
    count = sum(map(len, found["train"].values()))
    return Source(
        class_names=class_names,
        pool=lambda: split("train"),
        test=(lambda: split("test")) if "test" in parts else None,
        test_size=0 if "test" in parts else count // 6,
        valid_size=0 if "valid" in parts else count // 10 if "test" in parts else count // 6,
        valid=(lambda: split("valid")) if "valid" in parts else None,
        notes=notes,
    )


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(root: Path, notes: list[str]) -> dict[str, list[str]]:
    """{class: names of its image files}, both in order; a name takes a tenth of the memory of a path."""
    _left_out(root, notes)
    found = {}
    for path in _folders(root):
        if inner := _folders(path):
            raise ValueError(f"{inner[0]} is a folder in the folder of a class; move its images into {path}")
        files = image_files(path)
        if not files:
            raise ValueError(f"{path} has no image files; fill it or delete it")
        _note(path, files, notes)
        found[path.name] = [file.name for file in files]
    return found


def _left_out(root: Path, notes: list[str]) -> None:
    """Raises ValueError for images beside the folders; other files there are noted."""
    if stray := image_files(root):
        raise ValueError(f"{stray[0]} is an image in no folder of a class; move it into one or away")
    _note(root, [], notes)


def _note(folder: Path, images: list[Path], notes: list[str]) -> None:
    own = set(images)
    files = sorted(p for p in folder.iterdir() if p not in own and p.is_file() and not p.name.startswith("."))
    if files:
        more = f" and {len(files) - 1} others" if len(files) > 1 else ""
        notes.append(f"{files[0]}{more}: no images, left out")


SOURCE = DataSource(
    lambda config: image_folder(config.data_dir, config.resize, reading_of(config)),
    "classification",
    folder=True,
    files=True,
)
