"""Writes a folder of JPEG files of many sizes in 100 classes from real pictures: CIFAR-10 on slides of nuclei.

    python benchmarks/make_jpegs.py OUT --cifar10=FOLDER --nuclei=FOLDER          # 20,000 files, about 3 minutes
    python benchmarks/make_jpegs.py OUT --cifar10=FOLDER --nuclei=FOLDER --count=500

A picture is a CIFAR-10 image, enlarged, somewhere on a cutting of a microscope slide; sides are 64 to 500 pixels, and
the quality of the JPEG is 75 to 95. Its class is the object (10) and the brightness of the slide (10, by deciles), so
that both must be seen: CIFAR's classes alone, or the slide's, are right in one of ten. OUT has train/, val/ and test/
(8 : 1 : 1) with a folder per class. One picture in fifty is turned, with the EXIF tag that says so, and one in fifty is
gray. FOLDER of CIFAR-10: the original python format, or six sheets of 100 x 100 images (data_batch_1.webp ..) and
labels.npz; of nuclei: *.png.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

OBJECTS, SLIDES, SIDES = 10, 10, (64, 500)
PARTS = (("train", 8), ("val", 1), ("test", 1))


def cifar10(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images u8[50000, 32, 32, 3] and classes [50000]."""
    if (folder / "labels.npz").exists():
        sheets = [np.asarray(Image.open(folder / f"data_batch_{i}.webp").convert("RGB")) for i in range(1, 6)]
        x = [sheet.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3) for sheet in sheets]
        return np.concatenate(x), np.load(folder / "labels.npz")["train_labels"].astype(int)
    batches = [pickle.loads((folder / f"data_batch_{i}").read_bytes(), encoding="bytes") for i in range(1, 6)]
    x = np.concatenate([batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches])
    return x, np.concatenate([batch[b"labels"] for batch in batches])


def slides(folder: Path) -> list[list[Image.Image]]:
    """The slides in groups of equal size, from dark to bright."""
    found = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    order = np.argsort([np.asarray(one).mean() for one in found], kind="stable")
    return [[found[i] for i in part] for part in np.array_split(order, SLIDES)]


def picture(random: np.random.Generator, thing: np.ndarray, slide: Image.Image) -> Image.Image:
    """One picture of the object on the slide."""
    width, height = (int(side) for side in random.integers(SIDES[0], SIDES[1] + 1, 2))
    part = random.uniform(0.3, 1.0)
    box_width, box_height = max(1, int(slide.width * part)), max(1, int(slide.height * part))
    left = int(random.integers(0, slide.width - box_width + 1))
    top = int(random.integers(0, slide.height - box_height + 1))
    whole = slide.crop((left, top, left + box_width, top + box_height)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    side = int(min(width, height) * random.uniform(0.5, 0.9))
    own = Image.fromarray(thing).resize((side, side), Image.Resampling.BICUBIC)
    whole.paste(own, (int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1))))
    return whole


def write(out: Path, count: int, cifar: Path, nuclei: Path) -> None:
    x, y = cifar10(cifar)
    groups = slides(nuclei)
    of_class = [np.flatnonzero(y == k) for k in range(OBJECTS)]
    shares = np.repeat([name for name, _ in PARTS], [share for _, share in PARTS])
    for n in range(count):
        random = np.random.default_rng(n)
        number = n % (OBJECTS * SLIDES)
        thing, slide = divmod(number, SLIDES)
        own = of_class[thing][n // (OBJECTS * SLIDES) * SLIDES + slide]  # no image twice
        whole = picture(random, x[own], groups[slide][int(random.integers(len(groups[slide])))])
        folder = out / shares[n // (OBJECTS * SLIDES) % len(shares)] / f"object{thing}_slide{slide}"
        folder.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if n % 50 == 7:  # as a camera held upright writes it
            whole, exif[0x0112] = whole.transpose(Image.Transpose.ROTATE_90), 6
        if n % 50 == 23:
            whole = whole.convert("L")
        whole.save(folder / f"{n:06d}.jpg", quality=int(random.integers(75, 96)), exif=exif)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--nuclei", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    given = parser.parse_args()
    write(given.out, given.count, given.cifar10, given.nuclei)
