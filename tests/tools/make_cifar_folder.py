"""Turns CIFAR-10 kept as lossless sheets into the folder that the authors distribute, so that its reader is exercised.

    python tests/tools/make_cifar_folder.py SRC DST

SRC holds data_batch_1..5.webp, test_batch.webp (100 x 100 tiles of 32x32) and labels.npz (train_labels, test_labels);
DST/cifar-10-batches-py is written: data_batch_1..5, test_batch and batches.meta, as Python 2 wrote them.
"""

import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck")


def python2_pickle(value):
    """Protocol 2 with byte strings, which Python 3 reads but cannot write; of bytes, int, list, dict, uint8 arrays."""
    return b"\x80\x02" + _dump(value) + b"."


def _dump(value):
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_dump, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_dump(key) + _dump(item) for key, item in value.items()) + b"u"
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _dump(0) + b"\x85" + _dump(b"b") + b"tR"
        dtype = b"cnumpy\ndtype\n(" + _dump(b"u1") + _dump(0) + _dump(1) + b"tR"
        dtype += b"(" + _dump(3) + _dump(b"|") + b"NNN" + _dump(-1) + _dump(-1) + _dump(0) + b"tb"
        shape = b"(" + b"".join(map(_dump, value.shape)) + b"t"
        return empty + b"(" + _dump(1) + shape + dtype + b"\x89" + _dump(value.tobytes()) + b"tb"
    raise TypeError(f"no byte-string pickle for {type(value).__name__}")


def batch(images, labels, label):
    """The content of one file; images uint8 [N, 32, 32, 3]."""
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)
    names = [b"%05d.png" % i for i in range(len(images))]
    return {b"data": rows, b"labels": [int(y) for y in labels], b"batch_label": label, b"filenames": names}


def write(folder, files, label_names=NAMES):
    """Writes {file name: (images, labels)} and batches.meta."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in files.items():
        (folder / name).write_bytes(python2_pickle(batch(images, labels, name.replace("_", " ").encode())))
    meta = {b"num_cases_per_batch": 10000, b"label_names": list(label_names), b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))


def convert(source, target):
    """SRC -> DST/cifar-10-batches-py; returns that folder."""
    folder = Path(target) / "cifar-10-batches-py"
    labels = np.load(Path(source) / "labels.npz")
    parts = np.concatenate([labels["train_labels"], labels["test_labels"]]).reshape(6, 10000)
    for name, part in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], parts, strict=True):
        sheet = np.asarray(Image.open(Path(source) / f"{name}.webp").convert("RGB"))
        images = sheet.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(10000, 32, 32, 3)
        write(folder, {name: (images, part)})
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(convert(*sys.argv[1:]))
