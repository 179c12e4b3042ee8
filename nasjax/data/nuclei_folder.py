"""A user's folder of microscope images and masks of nuclei, for example the Data Science Bowl 2018."""

from __future__ import annotations

from nasjax.data.images_and_masks import ASPECT, SIZE, images_and_masks
from nasjax.data.sources import DataSource

SOURCE = DataSource(
    lambda config: images_and_masks(config.data_dir, "nucleus", config.resize or SIZE, config.aspect or ASPECT),
    "segmentation",
    shape=(SIZE, SIZE, 3),
    outputs=1,
    directionless=True,
    folder=True,
    aspect=ASPECT,
)
