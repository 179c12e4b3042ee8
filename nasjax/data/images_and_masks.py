"""A folder of images and their masks: `images/NAME.png` and `masks/NAME.png`, of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasjax.data.aspect import square, square_mask
from nasjax.data.image_file import foreground, image_files, read_image, read_mask
from nasjax.data.sources import Source, Split

SIZE = 96  # pixels; that of the public UNet++ code on these nuclei


ASPECT = "pad"


def images_and_masks(folder: str, class_name: str, size: int = SIZE, aspect: str = ASPECT) -> Source:
    """All pairs of the folder; a fifth is the test part and a fifth validates.

    A pair has the same name, suffix apart. Images are gray or RGB and become uint8 [size, size, 3] by area; masks have
    the size of their image and become uint8 [size, size, 1] of 0 and 1, each pixel the one at its centre. Both are
    turned upright first, each as its own EXIF orientation says.

    Args:
      folder: with images/ and masks/.
      class_name: of the foreground.
      size: side of all images, in pixels. A network that halves them d times wants a multiple of 2^d.
      aspect: what becomes of images that are not square, "pad", "crop" or "squash", as of `aspect.square`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: a pair is not complete or occurs twice, there are fewer than five. When read: a mask of another size
        than its image, masks that together hold more than 0 and one other value or only background or only foreground,
        and whatever `image_file` refuses.
    """
    root = Path(folder).expanduser()
    images, masks = (_by_name(root, part, folder) for part in ("images", "masks"))
    for one, other, part in ((images, masks, "masks"), (masks, images, "images")):
        if lonely := sorted(one.keys() - other.keys()):
            more = f" (and {len(lonely) - 1} others)" if len(lonely) > 1 else ""
            raise ValueError(f"{one[lonely[0]]} has no partner in {root / part}{more}; pairs have the same name")
    if len(images) < 5:
        raise ValueError(f"{root} has {len(images)} images; five are the fewest that can be split")

    def pool() -> Split:
        x = np.empty((len(images), size, size, 3), np.uint8)
        y = np.empty((len(images), size, size, 1), np.uint8)
        levels: dict[int, Path] = {}  # of all masks, with a file that has it
        for i, (name, path) in enumerate(images.items()):
            image, mask = read_image(path, 3), read_mask(masks[name])
            if image.shape[:2] != mask.shape[:2]:
                sides = [f"{pixels.shape[0]}x{pixels.shape[1]}" for pixels in (mask, image)]
                raise ValueError(f"{masks[name]} is of {sides[0]} pixels, its image of {sides[1]}; they must be equal")
            levels.update(dict.fromkeys(np.unique(mask).tolist(), masks[name]))
            x[i] = square(image, size, aspect)
            y[i] = square_mask(mask, size, aspect)
        y = (y == foreground(levels, root / "masks")).astype(np.uint8)
        if y.min() == y.max():
            what = "foreground" if y.any() else "background"
            raise ValueError(
                f"at {size}x{size} pixels all masks of {root / 'masks'} are {what}; set a larger data.resize"
            )
        return Split(x, y)

    return Source((class_name,), pool, None, test_size=len(images) // 5, valid_size=len(images) // 5)


def _by_name(root: Path, part: str, given: str) -> dict[str, Path]:
    """{name without suffix: file} of images/ or masks/, by name."""
    folder = root / part
    if not given or not folder.is_dir():
        where = f"there is no folder {folder}" if given else "--data_dir is missing"
        raise FileNotFoundError(f"{where}; give --data_dir=FOLDER with images/ and masks/, each with files of one name")
    files = image_files(folder)
    if not files:
        raise ValueError(f"{folder} has no image files")
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise ValueError(f"{found[path.stem]} and {path} have the same name; keep one")
        found[path.stem] = path
    return found
