"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575): train/ and val/ with a folder per class, 224x224 pixels.

Nobody has the labels of its test images, so results are of its validation images: those are the test part here, and
50,000 of the training images validate, as in SPOS (Guo et al. 2020, section 4.1).
"""

from __future__ import annotations

from typing import Any

from nasjax.data.file_stream import reading_of
from nasjax.data.image_folder import image_folder
from nasjax.data.sources import DataSource, Source

_SIDE, _CLASSES, _VALID = 224, 1000, 50_000
_FORM = "give --data_dir=FOLDER with train/CLASS/*.JPEG and val/CLASS/*.JPEG"


def _open(config: Any) -> Source:
    if not config.data_dir:
        raise ValueError(f"imagenet is read from your folder: {_FORM}; --mode=inspect reads nothing")
    source = image_folder(config.data_dir, config.resize or _SIDE, reading_of(config))
    if len(source.class_names) != _CLASSES:
        raise ValueError(
            f"{config.data_dir} has {len(source.class_names)} classes, imagenet {_CLASSES}; write "
            f"--dataset=image_folder --set data.resize={config.resize or _SIDE} --set data.fit=crop for a part of it"
        )
    if source.test is None and source.valid is not None:
        source = source._replace(test=source.valid, test_size=0, valid=None, valid_size=_VALID)
    return source


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
