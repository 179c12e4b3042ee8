"""Colour jitter, lighting and random cuts on the device, beside NumPy, Pillow and, where it is, torchvision."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nasjax.train import photometric
from nasjax.train.augment import Augment, random_resized_crop, require_suited

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.random((6, 5, 3)).astype(np.float32)
IMAGE[0] = IMAGE[0, :, :1]  # grays have no hue
FACTORS = (1.3, 0.6, 1.4, -0.2)


def gray(x):
    return x @ np.array([0.299, 0.587, 0.114])


def turned(x, turn):
    def one(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)

    return np.apply_along_axis(one, -1, x)


REFERENCE = (
    lambda x, f: np.clip(f * x, 0, 1),
    lambda x, f: np.clip(f * x + (1 - f) * gray(x).mean(), 0, 1),
    lambda x, f: np.clip(f * x + (1 - f) * gray(x)[..., None], 0, 1),
    turned,
)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_jitter_is_four_changes_in_an_order(order):
    expected = functools.reduce(lambda x, n: REFERENCE[n](x, FACTORS[n]), order, IMAGE.astype(float))
    found = photometric.jittered(jnp.asarray(IMAGE), jnp.array(FACTORS), jnp.array(order))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    only = photometric.jittered(jnp.asarray(IMAGE), jnp.array(FACTORS), jnp.array(order), (True, False, False, False))
    np.testing.assert_allclose(only, REFERENCE[0](IMAGE, FACTORS[0]), atol=1e-6)


def test_jitter_is_that_of_torchvision():
    functional = pytest.importorskip("torchvision.transforms.functional")
    torch = pytest.importorskip("torch")
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    x = torch.from_numpy(IMAGE).permute(2, 0, 1)
    for name, factor in zip(names, FACTORS, strict=True):
        x = getattr(functional, name)(x, factor)
    found = photometric.jittered(jnp.asarray(IMAGE), jnp.array(FACTORS), jnp.arange(4))
    np.testing.assert_allclose(found, x.permute(1, 2, 0).numpy(), atol=1e-3)  # its weights of gray have four digits


def test_amounts_lie_within_the_strengths():
    keys = jax.random.split(jax.random.key(0), 500)
    found = np.asarray(jax.vmap(lambda key: photometric.amounts(key, (0.4, 0.2, 1.5, 0.1)))(keys))
    low, high = np.array([0.6, 0.8, 0.0, -0.1]), np.array([1.4, 1.2, 2.5, 0.1])
    assert (found >= low - 1e-6).all() and (found <= high + 1e-6).all()
    np.testing.assert_allclose(found.min(0), low, atol=0.03)
    np.testing.assert_allclose(found.max(0), high, atol=0.03)


def test_lighting_adds_the_principal_colours():
    weights = np.array([0.1, -0.2, 0.05], np.float32)
    values = np.array([0.2175, 0.0188, 0.0045])
    first, second, third = [-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]
    colour = sum(w * v * np.array(u) for w, v, u in zip(weights, values, (first, second, third), strict=True))
    np.testing.assert_allclose(photometric.lit(jnp.asarray(IMAGE), jnp.asarray(weights)), IMAGE + colour, atol=1e-6)


@pytest.mark.slow
def test_every_image_has_its_own_colours_whatever_the_batch():
    x = jnp.asarray(RANDOM.integers(0, 256, (4, 3, 3, 3)), jnp.uint8).at[1].set(7)
    x, cfg = x.at[2].set(7), Augment(jitter=(0.4, 0.4, 0.4, 0.2), lighting=0.1)
    found = photometric.colours(jax.random.key(0), x, cfg)
    np.testing.assert_allclose(photometric.colours(jax.random.key(0), x[:3], cfg), found[:3], atol=1e-6)
    assert np.abs(found[1] - found[2]).max() > 0.001
    assert np.array_equal(photometric.colours(jax.random.key(0), x, Augment()), x.astype(jnp.float32) / 255)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"jitter": (0.4, 0.4, 0.4)}, "jitter is four strengths"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "at most 0.5"),
        ({"lighting": -1.0}, "lighting is a deviation"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale is two parts"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio is two ratios"),
    ],
)
def test_colours_and_cuts_that_are_none_are_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        Augment(**changes)


def test_colours_of_what_has_none_are_refused():
    with pytest.raises(ValueError, match=r"recipe\.augment\.jitter=0,0,0,0"):
        require_suited(Augment(lighting=0.1), (8, 8, 1), "recipe.augment")
    with pytest.raises(ValueError, match="8 or 16 bits"):
        photometric.colours(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), Augment(lighting=0.1))


@pytest.mark.slow
def test_a_random_resized_cut_is_that_of_pillow():
    """Where it lies is found by its corners: the picture is its own coordinates."""
    y, x = np.mgrid[:32, :48].astype(np.float32)
    picture = np.stack([x, y, np.sin(x / 9) * 20], -1)
    cfg = Augment(crop="resized", crop_scale=(0.2, 0.6))
    found = np.asarray(random_resized_crop(jax.random.key(1), jnp.asarray(picture)[None].repeat(3, 0), cfg))
    for image in found:
        (left, right), (top, bottom) = np.polyfit(np.arange(10, 38), image[16, 10:38, 0], 1), (0, 0)
        across = left * 48
        begin = right - left / 2 + 0.5
        slope, offset = np.polyfit(np.arange(8, 24), image[8:24, 24, 1], 1)
        top, bottom = offset - slope / 2 + 0.5, offset - slope / 2 + 0.5 + slope * 32
        box = tuple(round(float(edge)) for edge in (begin, top, begin + across, bottom))
        bands = [
            Image.fromarray(picture[..., n]).resize((48, 32), Image.Resampling.BILINEAR, box=box) for n in range(3)
        ]
        np.testing.assert_allclose(image, np.stack([np.asarray(band) for band in bands], -1), atol=0.05)
        area = (box[2] - box[0]) * (box[3] - box[1]) / (32 * 48)
        assert 0.15 < area < 0.65
