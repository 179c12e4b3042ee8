"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575), 224x224 pixels: folders of its files, or as TFDS prepared it.

Folders are train/ and val/ with a folder per class. TFDS's set is `imagenet2012`, in ArrayRecord files.

Nobody has the labels of its test images, so results are of its validation images: those are the test part here, and
50,000 of the training images validate, as in SPOS (Guo et al. 2020, section 4.1).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.data.file_stream import Reading, reading_of, stays
from nasjax.data.image_folder import image_folder
from nasjax.data.records import classes_of, opened_part
from nasjax.data.sources import DataSource, Source, Split
from nasjax.data.stream import images_of_records
from nasjax.data.view import View

_SIDE, _CLASSES, _VALID, _TFDS = 224, 1000, 50_000, "imagenet2012"
_PARTS = ("train", "validation")
_FORM = (
    "give --data_dir=FOLDER with train/CLASS/*.JPEG and val/CLASS/*.JPEG, or a TFDS folder with it: pip install "
    f"'nasjax[prepare]' && tfds build {_TFDS} --file_format=array_record --data_dir=FOLDER; "
    "--mode=inspect counts networks without data"
)


def _open(config: Any) -> Source:
    root = Path(config.data_dir).expanduser()
    if not config.data_dir or (root / _TFDS).is_dir():
        return _prepared(config.data_dir, config.resize or _SIDE, reading_of(config))
    source = image_folder(config.data_dir, config.resize or _SIDE, reading_of(config))
    if len(source.class_names) != _CLASSES:
        raise ValueError(
            f"{config.data_dir} has {len(source.class_names)} classes, imagenet {_CLASSES}; write "
            f"--dataset=image_folder --set data.resize={config.resize or _SIDE} --set data.fit=crop for a part of it"
        )
    if source.test is None and source.valid is not None:
        source = source._replace(test=source.valid, test_size=0, valid=None, valid_size=_VALID)
    return source


def _prepared(data_dir: str, side: int, reading: Reading) -> Source:
    """The set in a TFDS folder, "" = TFDS's default one. Raises FileNotFoundError where it is not prepared there."""
    import tensorflow_datasets as tfds  # only needed here

    try:
        info = tfds.data_source(_TFDS, data_dir=data_dir or None, download=False)["train"].dataset_info
        folder, names = str(info.data_dir), tuple(info.features["label"].names)
        counts = [(part, len(opened_part(folder, part))) for part in _PARTS]
    except Exception as error:  # TFDS has no single error for "not prepared", nor for "prepared in another file format"
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise FileNotFoundError(f"TFDS cannot read {_TFDS} ({reason}); {_FORM}") from error
    notes: list[str] = []
    begins = {"train": 0, "validation": counts[0][1]}
    streams = stays(sum(count for _, count in counts), (side, side), True, reading, notes)

    @functools.cache
    def images() -> Any:
        view = View(side, side, 3, reading.fit, reading.part)
        return images_of_records(folder, counts, view, readers=reading.readers, skip=reading.skip)

    def split(part: str) -> Split:
        y = classes_of(folder, part, notes)
        x = images()[begins[part] : begins[part] + len(y)]
        if streams:
            return Split(x, y)
        found = np.asarray(x)
        x.readers.close()
        return Split(found, y)

    return Source(
        class_names=names,
        pool=lambda: split("train"),
        test=lambda: split("validation"),
        test_size=0,
        valid_size=_VALID,
        notes=notes,
    )


SOURCE = DataSource(
    _open,
    "classification",
    shape=(_SIDE, _SIDE, 3),
    outputs=_CLASSES,
    size=1_281_167,
    photographs=True,
    folder=True,
    files=True,
)
