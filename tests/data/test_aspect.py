"""Images that are not square: what is kept of them, and that predictions lie where their image was."""

import numpy as np
import pytest
from PIL import Image

from nasjax.data.aspect import pieces, square, square_mask, unpadded
from nasjax.data.dataset import DataConfig, nearest, resize
from nasjax.problem.data import load

WIDE = np.random.default_rng(0).integers(0, 256, (12, 24, 3), np.uint8)


def test_padding_keeps_the_ratio_of_the_sides_and_all_of_the_image():
    found = square(WIDE, 8, "pad")
    np.testing.assert_array_equal(found[2:6], resize(WIDE[None], 4, 8)[0])
    assert (found[[0, 1, 6, 7]] == np.rint(WIDE.mean((0, 1)))).all()
    mask = np.ones((24, 12, 1), np.uint8)
    np.testing.assert_array_equal(square_mask(mask, 8, "pad")[..., 0], np.tile([0, 0, 1, 1, 1, 1, 0, 0], (8, 1)))
    np.testing.assert_array_equal(unpadded(square_mask(mask, 8, "pad")[..., 0], 24, 12, "pad"), np.ones((8, 4)))


def test_cropping_keeps_the_ratio_of_the_sides_and_the_middle():
    middle = WIDE[:, 6:18]
    np.testing.assert_array_equal(square(WIDE, 8, "crop"), resize(middle[None], 8, 8)[0])
    mask = WIDE[..., :1]
    np.testing.assert_array_equal(square_mask(mask, 8, "crop"), nearest(middle[None, ..., :1], 8, 8)[0])


@pytest.mark.parametrize("aspect", ["pad", "crop", "squash"])
def test_square_images_are_the_same_whatever_is_chosen(aspect):
    image = WIDE[:, :12]
    np.testing.assert_array_equal(square(image, 8, aspect), resize(image[None], 8, 8)[0])
    np.testing.assert_array_equal(unpadded(image, 12, 12, aspect), image)


@pytest.mark.parametrize("size", [(10, 25), (25, 10), (7, 7), (5, 6)])
@pytest.mark.parametrize("aspect", ["pad", "crop", "squash"])
def test_the_pieces_of_an_image_are_all_of_it(size, aspect):
    covered = np.zeros(size, int)
    for top, left, height, width in pieces(*size, aspect):
        assert aspect != "crop" or height == width == min(size)
        covered[top : top + height, left : left + width] += 1
    assert covered.min() == 1 and covered.shape == size


def test_a_folder_keeps_the_ratios_unless_it_is_told_to_squash(tmp_path):
    """Ten images twice as wide as high, a bright disc in the middle of each."""
    rows, columns = np.mgrid[:16, :32]
    disc = (rows - 7.5) ** 2 + (columns - 15.5) ** 2 < 36
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for n in range(10):
            Image.fromarray(255 * disc.astype(np.uint8)).save(tmp_path / part / f"{n}.png")

    def sides(**aspect):
        mask = load(DataConfig("nuclei_folder", data_dir=str(tmp_path), resize=32, **aspect)).train.y[0, ..., 0]
        return mask.any(1).sum(), mask.any(0).sum()

    assert sides() == sides(aspect="pad") == (12, 12)
    assert sides(aspect="crop") == (24, 24)
    assert sides(aspect="squash") == (24, 12)


def test_where_it_has_no_effect_it_is_refused():
    with pytest.raises(ValueError, match=r"data.aspect has no effect on digits; leave it out"):
        load(DataConfig(aspect="crop"))
    with pytest.raises(ValueError, match="aspect must be one of pad, crop, squash; got 'stretch'"):
        DataConfig(aspect="stretch")
