"""An image file as a sample: its middle, a random cut of it, and what is refused. Pillow alone is the reference."""

import numpy as np
import pytest
from PIL import Image

from nasjax.data.view import Cut, View, middle, random_box, read_view

VIEW = View(32, 32, 3, "crop")


def smooth(height, width):
    """A picture without fine detail, u8[height, width, 3]."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return (255 * np.stack([x, y, (x + y) / 2], -1)).astype(np.uint8)


@pytest.fixture
def jpeg(tmp_path):
    def written(height=150, width=201, name="a.jpg", **options):
        Image.fromarray(smooth(height, width)).save(tmp_path / name, quality=95, **options)
        return tmp_path / name

    return written


@pytest.mark.parametrize("size", [(150, 201), (201, 150), (40, 400), (20, 20)])
def test_the_middle_is_that_of_the_whole_image_resized(jpeg, size):
    path = jpeg(*size)
    whole = Image.open(path).convert("RGB")
    side = round(32 / 0.875)
    scale = side / min(whole.size)
    whole = whole.resize(
        [side if n == min(whole.size) else int(n * scale) for n in whole.size], Image.Resampling.BILINEAR
    )
    left, top = (round((n - 32) / 2) for n in whole.size)
    expected = np.asarray(whole.crop((left, top, left + 32, top + 32))).astype(int)
    difference = np.abs(read_view(path, VIEW) - expected)
    assert difference.max() <= (1 if min(size) < 2 * side else 8)  # a larger JPEG is decoded at a part of its size


def test_the_middle_of_the_published_sizes():
    """256 and 224 of 500 x 375."""
    box, resized = middle(375, 500, View(224, 224, 3, "crop"))
    assert resized == (341, 256)
    np.testing.assert_allclose(box, (58 * 500 / 341, 16 * 375 / 256, 282 * 500 / 341, 240 * 375 / 256))


def test_a_random_cut_is_the_part_of_the_file_resized(jpeg):
    path, cut, seed = jpeg(60, 70), Cut(), (7, 3)
    box = random_box(60, 70, cut, seed)
    part = Image.open(path).convert("RGB").crop(box).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read_view(path, VIEW, cut, seed), np.asarray(part))


def test_cuts_and_middles_are_those_of_torchvision(jpeg):
    """On the same boxes; its resizing of pictures is Pillow's, so the cut agrees to the bit, the middle to rounding."""
    functional = pytest.importorskip("torchvision.transforms.functional")
    for height, width in ((60, 70), (61, 47)):
        image = Image.open(path := jpeg(height, width)).convert("RGB")
        for n in range(4):
            left, top, right, bottom = random_box(height, width, Cut(), (7, n))
            expected = functional.resized_crop(image, top, left, bottom - top, right - left, [32, 32])
            np.testing.assert_array_equal(read_view(path, VIEW, Cut(), (7, n)), np.asarray(expected))
        middle = functional.center_crop(functional.resize(image, round(32 / VIEW.part)), [32, 32])
        assert np.abs(read_view(path, VIEW) - np.asarray(middle).astype(int)).max() <= 1


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(jpeg):
    path, cut = jpeg(800, 900), Cut((0.5, 1.0))
    part = Image.open(path).convert("RGB").crop(random_box(800, 900, cut, (1, 2)))
    expected = np.asarray(part.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_view(path, VIEW, cut, (1, 2)) - expected).mean() < 1.5


def test_random_boxes_have_the_areas_and_ratios_that_were_asked_for():
    cut = Cut((0.1, 0.5))  # a part that always fits into the image
    boxes = np.array([random_box(300, 400, cut, (5, n)) for n in range(2000)])
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 400).all() and (boxes[:, 3] <= 300).all()
    area, ratio = across * down / 120_000, across / down
    assert 0.099 < area.min() < 0.11 and abs(area.mean() - 0.3) < 0.01 and 0.49 < area.max() < 0.51
    assert ratio.min() > 0.74 and ratio.max() < 1.35 and abs(np.log(ratio).mean()) < 0.05
    centre = (boxes[:, 0] + boxes[:, 2]).mean() / 800
    assert abs(centre - 0.5) < 0.02
    assert random_box(300, 400, cut, (5, 0)) == tuple(boxes[0]) != random_box(300, 400, cut, (6, 0))


def test_a_part_that_no_box_has_is_the_largest_in_the_middle():
    assert random_box(10, 1000, Cut((1.0, 1.0)), (0, 0)) == (493, 0, 506, 10)
    assert random_box(1000, 9, Cut((1.0, 1.0)), (0, 0)) == (0, 494, 9, 506)


def test_the_direction_of_a_camera_is_honoured(jpeg):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = jpeg(150, 201, "turned.jpg", exif=exif)
    expected = np.asarray(Image.open(turned).convert("RGB").transpose(Image.Transpose.ROTATE_270))
    found = read_view(turned, VIEW).astype(int)
    assert np.abs(found.mean((0, 1)) - expected.mean((0, 1))).max() < 3
    plain = read_view(jpeg(150, 201), VIEW).astype(int)
    assert np.abs(np.rot90(plain, -1) - found).max() <= 8


def test_what_is_no_image_of_known_colours_is_refused_by_name(tmp_path):
    Image.fromarray(smooth(40, 40)).convert("CMYK").save(tmp_path / "print.jpg")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    for name, why in (("print.jpg", "its colours are CMYK; convert it to RGB"), ("cut.jpg", "cannot be read")):
        with pytest.raises(ValueError, match=why) as error:
            read_view(tmp_path / name, VIEW, Cut())
        assert name in str(error.value) and "\n" not in str(error.value)
