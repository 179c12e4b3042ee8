"""Generated pictures that look like cell nuclei under a microscope: nothing is downloaded, and nothing is real.

Three of four are bright nuclei on a dark ground, as in fluorescence; the others are purple on a pale ground, as in
stained tissue. Nuclei are ellipses that may overlap, with a lit side, blur and noise; uneven light and specks too small
for a nucleus make the task harder.
"""

from __future__ import annotations

import numpy as np

from nasjax.data.sources import DataSource, Source, Split

SIZE, COUNT = 48, 300
_MOST = 9  # nuclei of a picture
_SPECKS = 6


def nuclei() -> Source:
    """300 images [48, 48, 3] and their masks; 60 are the test part and 60 validate."""

    def pool() -> Split:
        pairs = [picture(n) for n in range(COUNT)]
        return Split(np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs]))

    return Source(("nucleus",), pool, None, test_size=COUNT // 5, valid_size=COUNT // 5)


def picture(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture number n and its mask: uint8[48, 48, 3] and uint8[48, 48, 1] of 0 and 1.

    Raw Philox output and arithmetic without transcendental functions: the bits are the same on every machine.
    """
    raw = np.random.Philox(n).random_raw(8 + 8 * _MOST + 3 * _SPECKS + SIZE * SIZE)
    u = (raw >> np.uint64(11)).astype(np.float64) / 2**53  # uniform in [0, 1)
    scene, shapes, specks, grain = np.split(u, np.cumsum([8, 8 * _MOST, 3 * _SPECKS]))
    row, column = (np.arange(SIZE, dtype=np.float64) + 0.5)[:, None], (np.arange(SIZE, dtype=np.float64) + 0.5)[None]
    light, mask = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE), bool)
    for cx, cy, long, flat, turn, glow, sx, sy in shapes.reshape(_MOST, 8)[: 2 + int(scene[0] * (_MOST - 1))]:
        x, y = column - SIZE * cx, row - SIZE * cy
        t = 2 * turn - 1  # half the tangent of the angle
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        radius = 4 + 4 * long
        a, b = (x * cosine + y * sine) / radius, (y * cosine - x * sine) / (radius * (0.55 + 0.45 * flat))
        q = a * a + b * b  # 1 on the outline
        inside = q <= 1
        shade = (0.45 + 0.55 * glow) * (1 - 0.35 * q + 0.25 * ((sx - 0.5) * a + (sy - 0.5) * b))
        light = np.where(inside, np.maximum(light, shade), light)
        mask |= inside
    for cx, cy, glow in specks.reshape(_SPECKS, 3):
        x, y = column - SIZE * cx, row - SIZE * cy
        light = np.where(x * x + y * y <= 1.2, np.maximum(light, 0.3 + 0.5 * glow), light)
    light = _blur(_blur(light)) if scene[1] < 0.5 else _blur(light)
    fall = 0.25 * ((scene[2] - 0.5) * (column / SIZE) + (scene[3] - 0.5) * (row / SIZE))
    light = light * (0.5 + 0.5 * scene[4]) + fall + (0.08 + 0.1 * scene[5]) * (grain.reshape(SIZE, SIZE) - 0.5)
    if scene[6] < 0.75:  # fluorescence: gray
        colours = 0.06 + 0.12 * scene[7] + light[..., None] * np.ones(3)
    else:
        colours = 0.92 - light[..., None] * np.array([0.55, 0.75, 0.35])
    image = np.floor(colours.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return image, mask[..., None].astype(np.uint8)


def _blur(x: np.ndarray) -> np.ndarray:
    """The mean over 3x3 pixels; the border's neighbours are the border."""
    wide = np.pad(x, 1, mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


SOURCE = DataSource(
    lambda config: nuclei(),
    "segmentation",
    shape=(SIZE, SIZE, 3),
    outputs=1,
    size=COUNT - COUNT // 5,
    directionless=True,
)
