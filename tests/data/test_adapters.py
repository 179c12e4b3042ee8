"""Data sets of other libraries, by stand-ins with their methods."""

import numpy as np
import pytest
from PIL import Image
from tools.other_libraries import ClassLabel, Columns, Pairs

from nasjax import from_huggingface, from_torchvision
from nasjax.data.npz import arrays_source

RANDOM = np.random.default_rng(0)


def pictures(count, mode="RGB", size=(5, 4)):
    pixels = RANDOM.integers(0, 256, (count, *size, 3), np.uint8)
    return [Image.fromarray(one).convert(mode) for one in pixels]


def columns(images, labels, names=("rust", "spot", "healthy"), image="image", label="label"):
    features = {image: object(), label: ClassLabel(list(names)) if names else object()}
    return Columns(features, [{image: one, label: other} for one, other in zip(images, labels, strict=True)])


def test_a_hugging_face_data_set_keeps_its_names_and_parts():
    images = pictures(9)
    whole = {"train": columns(images[:6], [0, 2] * 3), "validation": columns(images[6:8], [2, 0])}
    arrays = from_huggingface({**whole, "test": columns(images[8:], [0])})
    np.testing.assert_array_equal(arrays["x"], np.stack([np.asarray(one) for one in images[:6]]))
    assert arrays["class_names"].tolist() == ["rust", "healthy"]  # no image shows a spot
    assert [len(arrays[name]) for name in ("x_valid", "y_valid", "x_test", "y_test")] == [2, 2, 1, 1]
    source = arrays_source(arrays, "it", target="ask")
    assert source.class_names == ("rust", "healthy") and source.valid().y.tolist() == [1, 0]
    alone = from_huggingface(columns(images[:2], ["b", "a"], None, "img", "what"), image="img", label="what")
    assert set(alone) == {"x", "y"} and alone["y"].tolist() == ["b", "a"]
    assert from_huggingface(columns(images[:2], [0.5, 1.5], None))["y"].dtype == float


@pytest.mark.parametrize("name", ["valid", "val", "dev"])
def test_a_part_to_validate_on_has_several_names(name):
    """Left out silently, it would have been drawn from the training part instead."""
    parts = {"train": columns(pictures(2), [0, 1]), name: columns(pictures(3), [0, 1, 0])}
    assert len(from_huggingface(parts)["y_valid"]) == 3
    with pytest.raises(ValueError, match=f"two parts to validate on, {name} among them"):
        from_huggingface({**parts, "validation": columns(pictures(1), [0])})


def test_a_torchvision_data_set_keeps_its_names_and_parts():
    images = pictures(5, "L")
    arrays = from_torchvision(Pairs(images[:4], [1, 0, 1, 0], ["zero", "one"]), Pairs(images[4:], [1]))
    assert arrays["x"].shape == (4, 5, 4, 1) and arrays["class_names"].tolist() == ["zero", "one"]
    assert arrays["x_test"].shape == (1, 5, 4, 1) and arrays["y_test"].tolist() == [1] and "x_valid" not in arrays
    plain = from_torchvision(Pairs([np.asarray(one) for one in images], [0.5] * 5))
    assert plain["x"].shape == (5, 5, 4, 1) and "class_names" not in plain


def test_gray_and_coloured_images_together_are_rgb():
    gray, colour = pictures(1, "L"), pictures(1)
    x = from_torchvision(Pairs(gray + colour, [0, 1]))["x"]
    np.testing.assert_array_equal(x[0], np.asarray(gray[0])[..., None].repeat(3, -1))
    with pytest.raises(ValueError, match="x_test: image 0 is coloured, but all training images are gray"):
        from_torchvision(Pairs(gray, [0]), Pairs(colour, [0]))


def test_images_of_different_sizes_are_asked_about():
    pair = Pairs(pictures(1) + pictures(1, size=(8, 8)), [0, 1])
    with pytest.raises(ValueError, match="x: image 1 is 8x8 pixels, image 0 is 5x4; give size=N"):
        from_torchvision(pair)
    assert from_torchvision(pair, size=3)["x"].shape == (2, 3, 3, 3)


REFUSED = {
    "no such column": (lambda: from_huggingface(columns(pictures(1), [0]), label="labels"), "no column 'labels'"),
    "no training part": (lambda: from_huggingface({"dev": columns(pictures(1), [0])}), r"no part train \(it has dev\)"),
    "tensors": (
        lambda: from_torchvision(Pairs([np.zeros((3, 4, 4), np.float32)], [0])),
        "image 0 is a ndarray",
    ),
    "print colours": (lambda: from_torchvision(Pairs(pictures(1, "CMYK"), [0])), "image 0: its mode is CMYK; convert"),
    "16 bits": (
        lambda: from_torchvision(Pairs([Image.fromarray(np.zeros((2, 2), np.uint16))], [0])),
        "image 0: its mode is I;16",
    ),
    "nothing": (lambda: from_torchvision(Pairs([], [])), "the data set is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused_in_a_line(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
