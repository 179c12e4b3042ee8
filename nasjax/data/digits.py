"""The embedded handwritten digits."""

from __future__ import annotations

from importlib import resources

import numpy as np

from nasjax.data.sources import DataSource, Source, Split


def digits() -> Source:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn ships (UCI, CC BY 4.0; see DIGITS_LICENSE.txt).

    The file keeps the original values 0..16; images are handed out as value * 15, so that 0..240 shows as a picture.
    """

    def pool() -> Split:
        with resources.files("nasjax.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
            return Split(arrays["x"] * np.uint8(15), arrays["y"].astype(np.int32))

    return Source(tuple("0123456789"), pool, None, test_size=297, valid_size=300)


SOURCE = DataSource(lambda config: digits(), "classification", shape=(8, 8, 1), outputs=10, size=1500)
