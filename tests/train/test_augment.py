"""Whitening, crops and flips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.train import augment as module
from nasjax.train.augment import Augment, whiten

augment = jax.jit(module.augment, static_argnums=2)
random_crop = jax.jit(module.random_crop, static_argnums=(2, 3))
random_flip = jax.jit(module.random_flip)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (200, 8, 8, 2))


def offsets(crops, enlarged, size=8):
    """Where each crop lies in its enlarged image: [(top, left)]; fails unless it lies somewhere."""
    span = enlarged.shape[1] - size + 1
    found = []
    for crop, whole in zip(np.asarray(crops), np.asarray(enlarged), strict=True):
        places = [(i, j) for i in range(span) for j in range(span)]
        errors = [np.abs(whole[i : i + size, j : j + size] - crop).max() for i, j in places]
        assert min(errors) < 1e-5
        found.append(places[int(np.argmin(errors))])
    return found


@pytest.mark.parametrize(("mode", "size", "span"), [("upsample", 10, 3), ("pad", 1, 3), ("upsample", 11, 4)])
def test_a_crop_is_a_random_window_of_the_enlarged_image(images, mode, size, span):
    if mode == "upsample":
        enlarged = jax.image.resize(images, (200, size, size, 2), "bilinear")
    else:
        enlarged = jnp.pad(images, ((0, 0), (size, size), (size, size), (0, 0)))
    crops = random_crop(KEY, images, mode, size)
    places = offsets(crops, enlarged)
    counts = np.array([places.count((i, j)) for i in range(span) for j in range(span)])
    expected = 200 / span**2
    assert ((counts - expected) ** 2 / expected).sum() < 2.5 * span**2  # chi squared; also, every window occurs
    assert counts.min() > 0


def test_default_sizes_follow_the_height(images):
    np.testing.assert_array_equal(random_crop(KEY, images), random_crop(KEY, images, "upsample", 10))
    np.testing.assert_array_equal(random_crop(KEY, images, "pad"), random_crop(KEY, images, "pad", 1))
    assert module.random_crop(KEY, images, "none") is images


def test_an_image_need_not_be_square():
    x = jax.random.normal(KEY, (5, 8, 6, 1))
    crops = random_crop(KEY, x, "upsample", 10)
    enlarged = np.asarray(jax.image.resize(x, (5, 10, 8, 1), "bilinear"))
    for crop, whole in zip(np.asarray(crops), enlarged, strict=True):
        assert min(np.abs(whole[i : i + 8, j : j + 6] - crop).max() for i in range(3) for j in range(3)) < 1e-5


def test_a_constant_image_stays_constant_and_padding_is_zero():
    x = jnp.full((20, 8, 8, 1), 3.0)
    np.testing.assert_allclose(random_crop(KEY, x, "upsample", 12), 3.0, rtol=1e-6)
    padded = np.asarray(random_crop(KEY, x, "pad", 2))
    assert set(np.unique(padded)) == {0.0, 3.0}
    assert (padded[:, 2:-2, 2:-2] == 3).all()


def test_a_flip_mirrors_about_half_of_the_images_and_undoes_itself(images):
    once = random_flip(KEY, images)
    mirrored = (once == images[:, :, ::-1]).all((1, 2, 3))
    assert ((once == images).all((1, 2, 3)) ^ mirrored).all()
    assert 70 < mirrored.sum() < 130
    np.testing.assert_array_equal(random_flip(KEY, once), images)


def test_flips_and_crops_of_one_key_are_independent(images):
    enlarged = jax.image.resize(images, (200, 11, 11, 2), "bilinear")
    flipped = np.asarray((random_flip(KEY, images) != images).any((1, 2, 3)))
    for coordinate in zip(*offsets(random_crop(KEY, images, "upsample", 11), enlarged), strict=True):
        odd = np.array(coordinate) % 2 == 1
        assert 70 < (odd == flipped).sum() < 130


@pytest.mark.parametrize("crop", ["upsample", "pad", "none"])
def test_augment_is_a_crop_and_then_a_flip(images, crop):
    both = augment(KEY, images, Augment(crop=crop))
    np.testing.assert_allclose(both, random_flip(KEY, random_crop(KEY, images, crop)), atol=1e-6)
    only = augment(KEY, images, Augment(crop=crop, flip=False))
    np.testing.assert_allclose(only, random_crop(KEY, images, crop), atol=1e-6)


def test_an_image_depends_on_the_key_and_its_number_alone(images):
    whole = augment(KEY, images, Augment())
    np.testing.assert_array_equal(augment(KEY, images[:9], Augment()), whole[:9])
    np.testing.assert_array_equal(augment(KEY, images[50:60], Augment(), jnp.arange(50, 60)), whole[50:60])
    same = jnp.broadcast_to(images[:1], (64, 8, 8, 2))
    assert len(np.unique(np.asarray(augment(KEY, same, Augment())), axis=0)) > 10  # 18 outcomes
    assert (augment(jax.random.key(8), images, Augment()) != whole).any((1, 2, 3)).mean() > 0.8


def test_a_population_is_a_vmap(images):
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(lambda key: augment(key, images[:4], Augment()))(keys)
    for key, batch in zip(keys, many, strict=True):
        np.testing.assert_allclose(batch, augment(key, images[:4], Augment()), atol=1e-6)


def test_whitened_images_have_mean_zero_and_deviation_one():
    x = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    fractions = (x / 255).astype(np.float32)
    mean, std = fractions.mean((0, 1, 2)), fractions.std((0, 1, 2))
    white = whiten(jnp.asarray(x), mean, std)
    assert white.dtype == jnp.float32
    np.testing.assert_allclose(white.mean((0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(white.std((0, 1, 2)), 1.0, atol=1e-5)
    np.testing.assert_allclose(whiten(jnp.asarray(fractions), mean, std), white, atol=1e-5)
    np.testing.assert_array_equal(whiten(jnp.asarray(x[0]), mean, std), white[0])


def test_wrong_use_says_what_to_write():
    with pytest.raises(ValueError, match="choose upsample, pad, resized, none"):
        Augment(crop="zoom")
    with pytest.raises(ValueError, match="must not be negative"):
        Augment(crop_size=-1)
    with pytest.raises(ValueError, match="give at least 8"):
        random_crop(KEY, jnp.zeros((2, 8, 8, 1)), "upsample", 6)
    with pytest.raises(ValueError, match="whitened float images"):
        augment(KEY, jnp.zeros((2, 8, 8, 1), jnp.uint8), Augment())
