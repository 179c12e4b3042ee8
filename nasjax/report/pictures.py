"""Images with their true and their predicted masks, of the best network so far and after retraining.

`pictures/best.npz` and `pictures/test.npz` of a workdir hold `image` u8[N, H, W, 3 or 1], `truth` u8[N, H, W],
`prediction` float[N, H, W] (probabilities) and `title`, a string. Only where there are such files are numpy and pillow
imported.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.report.elements import section
from nasjax.report.runs import Run

_KINDS = {"best": "Validation images, the best so far", "test": "Test images, after retraining"}
_MOST, _SIDE = 6, 192  # images of a file, pixels of a side on the page
_TRUE, _PREDICTED = (0, 158, 115), (230, 159, 0)  # Okabe & Ito 2008: bluish green, orange


class _Pictures(NamedTuple):
    """One file."""

    label: str  # of its run
    title: str
    image: Any
    truth: Any
    mask: Any  # bool[N, H, W]: probability above 1/2

    def iou(self, n: int) -> float:
        """Of one image; empty beside empty is 1."""
        union = int((self.mask[n] | self.truth[n]).sum())
        return int((self.mask[n] & self.truth[n]).sum()) / union if union else 1.0


def compared(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """The section of all runs' pictures, those of the same images side by side; "" where there are none."""
    cards = []
    for kind, title in _KINDS.items():
        found = [
            read
            for run, label in zip(runs, labels, strict=True)
            if (read := _read(run.folder / "pictures" / f"{kind}.npz", label)) is not None
        ]
        groups: dict[bytes, list[_Pictures]] = {}
        for pictures in found:
            groups.setdefault(pictures.image.tobytes() + pictures.truth.tobytes(), []).append(pictures)
        cards += [_grid(title, group, named=len(runs) > 1) for group in groups.values()]
    return section("Pictures", cards)


def _read(file: Path, label: str) -> _Pictures | None:
    """None where there is no such file, or not in the form of the module's docstring."""
    if not file.is_file():
        return None
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as arrays:
            image, truth, prediction = (arrays[name][:_MOST] for name in ("image", "truth", "prediction"))
            title = str(arrays["title"]) if "title" in arrays else ""
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None
    whole = image.ndim == 4 and image.dtype == np.uint8 and image.shape[-1] in (1, 3) and image.size > 0
    if not whole or not truth.shape == prediction.shape == image.shape[:3]:
        return None
    return _Pictures(label, title, image, truth > 0, prediction > 0.5)


def _grid(title: str, group: Sequence[_Pictures], *, named: bool) -> str:
    """A row per image: the image, the true outline, and the prediction of every run."""
    first = group[0]
    heads = ["image", "true mask", *(p.label if named else "prediction" for p in group)]
    cells = "".join(f'<div class="head">{escape(head)}</div>' for head in heads)
    for n in range(len(first.image)):
        image = _rgb(first.image[n])
        cells += _picture(image, f"image {n}") + _picture(
            _outlined(image, first.truth[n], _TRUE), f"image {n}, true mask"
        )
        for p in group:
            drawn = _outlined(_filled(image, p.mask[n], _PREDICTED), first.truth[n], _TRUE)
            told = f"IoU {100 * p.iou(n):.1f} %"
            cells += _picture(drawn, f"image {n}, prediction of {p.label}, {told}", told)
    means = "; ".join(
        f"{p.label if named else 'mean'} {100 * sum(p.iou(n) for n in range(len(p.image))) / len(p.image):.1f} %"
        for p in group
    )
    told = ". ".join(dict.fromkeys(p.title for p in group if p.title))
    caption = (
        f"{told + '. ' if told else ''}Green: the outline of the true mask. Orange: what the network takes for "
        "foreground (probability above 1/2). IoU: intersection over union of the two in this image; "
        f"over the images shown: {means}."
    )
    grid = f'<div class="pictures" style="--n:{len(heads)}">{cells}</div>'
    return f'<figure class="broad"><h3>{escape(title)}</h3>{grid}<figcaption>{escape(caption)}</figcaption></figure>'


def _rgb(image: Any) -> Any:
    import numpy as np

    return np.broadcast_to(image, (*image.shape[:2], 3))


def _filled(image: Any, mask: Any, colour: tuple[int, int, int]) -> Any:
    """The image with the mask half covered."""
    import numpy as np

    return np.where(mask[..., None], (image.astype(np.uint16) + np.array(colour, np.uint16)) // 2, image).astype(
        np.uint8
    )


def _outlined(image: Any, mask: Any, colour: tuple[int, int, int]) -> Any:
    """The image with the pixels of the mask that have a neighbour outside of it painted."""
    import numpy as np

    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where((mask & ~inside)[..., None], np.array(colour, np.uint8), image)


def _picture(pixels: Any, alt: str, told: str = "") -> str:
    """A PNG within the page, smaller where it is large."""
    from PIL import Image

    drawn = Image.fromarray(pixels.astype("uint8"))
    drawn.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    drawn.save(out, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    return f'<div><img alt="{escape(alt)}" src="{source}"><small>{escape(told)}</small></div>'
