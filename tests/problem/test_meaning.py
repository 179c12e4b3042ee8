"""Numbers carry their meaning: type, shape, channels and range of a data set's parts; names; parts that are empty."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import catalog, commands, register
from nasjax.data.dataset import DataConfig
from nasjax.data.npz import images
from nasjax.data.units import names, other_form, other_units
from nasjax.problem.data import load, load_test
from nasjax.problem.problem import Problem
from nasjax.train.augment import Augment, augment, require_suited, whiten

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
Y = np.arange(40) % 2


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "set.npz", **{"x": X, "y": Y, "y_test": Y, **arrays})
        return str(tmp_path / "set.npz")

    return save


def read_test(path, **settings):
    return load_test(DataConfig(path, **settings))


OTHER = {
    "uint8 beside floats": (X.astype(np.float32), X, r"x_test is uint8, not float32 as x"),
    "floats beside uint8": (X, X / 255, r"x_test is float32, not uint8 as x"),
    "uint16 beside uint8": (X, X.astype(np.uint16), r"x_test is uint16, not uint8 as x"),
    "another height": (X, X[:, :6], r"x_test is \[N, 6, 8, 1\], not \[N, 8, 8, 1\] as x"),
    "other channels": (X, X.repeat(3, -1), r"x_test is \[N, 8, 8, 3\], not \[N, 8, 8, 1\]"),
    "fractions": (X.astype(float), X / 255, r"x_test holds 0\.\.1, the training part 0\.\.255.*data\.same_units=true"),
    "bytes as floats": (X / 255, X.astype(float), r"x_test holds 0\.\.255, the training part 0\.\.1"),
    "-1..1 beside 0..1": (X / 255, X / 127.5 - 1, r"x_test holds -1\.\.1, the training part 0\.\.1"),
    "0..1 beside -1..1": (X / 127.5 - 1, X / 255, r"x_test holds 0\.\.1, the training part -1\.\.1"),
    "4 bits": (X, X // 16, r"x_test holds 0\.\.15, the training part 0\.\.255"),
    "12 bits": (X.astype(np.uint16) * 257, X.astype(np.uint16) * 16, r"x_test holds 0\.\.4080"),
    "blank": (X, X * 0, r"x_test holds 0\.\.0"),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_test_part_of_another_meaning_is_refused(save, name):
    x, x_test, message = OTHER[name]
    with pytest.raises(ValueError, match=message) as error:
        read_test(save(x=x, x_test=x_test))
    assert "\n" not in str(error.value)


def test_equal_meanings_are_read(save):
    for x, x_test in ((X / 255, X.astype(np.float32) / 255), (X, X[:1] * 0), (X / 9, X.astype(">f4") / 9)):
        assert len(read_test(save(x=x, x_test=x_test, y_test=Y[: len(x_test)])).y) == len(x_test)
    path = save(x=X.astype(float), x_test=X / 255)
    assert read_test(path, same_units=True).x.max() == 1
    wide = save(x_test=X.repeat(2, 1).repeat(2, 2))
    with pytest.raises(ValueError, match="x_test is"):
        read_test(wide)
    np.testing.assert_array_equal(read_test(wide, resize=8).x, X)  # asked for
    with pytest.raises(ValueError, match="x_test is"):
        read_test(save(x_test=X[:, :6]), resize=8)


def test_a_few_samples_may_be_dark_but_not_beyond():
    dark = np.zeros((2, 4, 4, 1), np.float32)
    assert not other_units(dark, 0, 255) and not other_units(dark.astype(np.uint8) + 1, 0, 255)
    assert other_units(np.linspace(0, 1, 32).reshape(2, 4, 4, 1), 0, 255)
    assert other_units(dark + 700, 0, 255) and not other_units(dark, 3, 3)


def test_forms():
    assert not other_form(np.zeros((2, 3)), "float32", (3,))
    assert not other_form(jnp.zeros((2, 3), jnp.bfloat16), "float32", (3,))
    assert other_form(np.zeros((2, 3), int), "uint8", (3,)) and other_form(np.zeros((2, 3)), "float32", (4,))


def test_uint16_is_read_and_whitened_as_the_same_floats(save):
    x = X.astype(np.uint16) * 13  # a camera of 12 bits
    told = []
    deep = load(DataConfig(save(x=x, x_test=x)), told.append)
    assert told and "uint16" in told[0]
    plain = load(DataConfig(save(x=x.astype(float), x_test=x)))
    assert deep.train.x.dtype == np.uint16 and plain.train.x.dtype == np.float32
    whitened = [whiten(jnp.asarray(d.train.x), d.mean, d.std) for d in (deep, plain)]
    np.testing.assert_allclose(*whitened, atol=1e-5)
    np.testing.assert_array_equal(images(x.astype(">u2"), "x"), x)
    small = load(DataConfig(save(x=x, x_test=x), resize=4)).train.x
    assert small.dtype == np.uint16 and small.max() > 255


@pytest.mark.parametrize(
    ("dtype", "factor", "advice"),
    [
        ("int64", 1, r"int64 of 0\.\.255; use \.astype\('uint8'\) for pixels that uint8 can hold, else"),
        ("int32", 16, r"int32 of 0\.\.4080; use \.astype\('uint16'\)"),
        ("int32", -1, r"int32 of -255\.\.0; use \.astype\('float32'\)"),
        ("uint32", 2**17, r"; use \.astype\('float32'\)"),
        ("bool", 1, r"bool; use \.astype\('float32'\)"),
        ("complex64", 1, r"must be uint8, uint16 or float, got complex64$"),
    ],
)
def test_no_advice_changes_values(dtype, factor, advice):
    x = X.copy()
    x[0, 0, 0], x[1, 0, 0] = 0, 255
    with pytest.raises(ValueError, match=advice):
        images((x.astype(np.int64) * factor).astype(dtype), "x")


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 32, 32), (1, 28, 28), (1, 16, 12), (12, 64, 64), (4, 6, 5)])
def test_what_looks_like_channels_first_is_asked_about(shape):
    x = RANDOM.integers(0, 256, (2, *shape)).astype(np.uint8)
    with pytest.raises(ValueError, match=r"--set data\.channels=first for \[N, C, H, W\], --set data\.channels=last"):
        images(x, "x")
    np.testing.assert_array_equal(images(x, "x", "first"), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(images(x, "x", "last"), x)


@pytest.mark.parametrize("shape", [(8, 8, 3), (16, 1, 1), (1, 16, 1), (9, 9, 200), (6, 7, 2), (3, 32, 3)])
def test_what_does_not_is_read(shape):
    assert images(np.zeros((2, *shape), np.uint8), "x").shape == (2, *shape)


def test_channels_and_units_are_of_a_users_arrays_only(save):
    first = load(DataConfig(save(x=X.transpose(0, 3, 1, 2), x_test=X), channels="first"))
    last = load(DataConfig(save(x_test=X)))
    np.testing.assert_array_equal(first.train.x, last.train.x)
    assert (first.channels, last.channels) == ("first", "last")
    for setting in ({"channels": "first"}, {"same_units": True}):
        with pytest.raises(ValueError, match="has no effect on digits"):
            load(DataConfig(**setting))
    with pytest.raises(ValueError, match="channels must be one of ask, last, first"):
        DataConfig(channels="middle")


def test_a_validation_part_of_ones_own(save):
    path = save(x_test=X, x_valid=X[:6], y_valid=Y[:6])
    data = load(DataConfig(path))
    assert (len(data.train.y), len(data.valid.y)) == (40, 6)
    with pytest.raises(ValueError, match="x_valid is float32"):
        load(DataConfig(save(x_test=X, x_valid=X / 255, y_valid=Y)))
    with pytest.raises(ValueError, match="one of x_valid and y_valid"):
        load(DataConfig(save(x_test=X, x_valid=X)))


def test_what_tests_is_not_trained_on_beside_a_validation_part(tmp_path):
    x = X.copy()
    x[:, 0, 0, 0] = np.arange(40)
    np.savez(tmp_path / "set.npz", x=x, y=Y, x_valid=X, y_valid=Y)
    config = DataConfig(str(tmp_path / "set.npz"))
    numbers = [part.x[:, 0, 0, 0].tolist() for part in (load(config).train, load_test(config))]
    assert sorted([*numbers[0], *numbers[1]]) == list(range(40)) and len(numbers[1]) == 6


@pytest.mark.parametrize("valid_size", [None, 1])
@pytest.mark.parametrize("number", [2, 4, 5])
def test_too_few_to_test_on_are_refused_before_anything_is_trained(tmp_path, number, valid_size):
    np.savez(tmp_path / "set.npz", x=X[:number], y=Y[:number])
    config = DataConfig(str(tmp_path / "set.npz"), valid_size=valid_size)
    for read in (load, load_test):
        with pytest.raises(ValueError, match="samples leaves none to test on; give more, or x_test and y_test"):
            read(config)


def test_names_are_text_whatever_they_came_as(save):
    for given in (np.array([b"cat", b"dog"]), np.array(["cat", "dog"]), [b"cat", "dog"], (np.bytes_(b"cat"), "dog")):
        assert names(given, "names")[0] == "cat"
    assert names(np.array(["é".encode()]), "names") == ("é",)
    assert names([3, 10], "names") == ("3", "10")
    assert load(DataConfig(save(x_test=X, class_names=np.array([b"cat", b"dog"])))).class_names == ("cat", "dog")
    with pytest.raises(ValueError, match="bytes that are no UTF-8"):
        names(np.array([b"\xff"]), "names")
    with pytest.raises(ValueError, match=r"must be a list of names, got an array of shape \[1, 1\]"):
        names([["a"]], "names")


@pytest.fixture
def registered():
    """Registers arrays as a data set; returns its settings."""

    def settings(task, **arrays):
        register(data="mine", load=lambda folder: arrays, data_task=task)
        return DataConfig("mine")

    yield settings
    catalog.DATA.pop("mine", None)
    catalog._OWN["data"].pop("mine", None)


def test_the_same_holds_for_a_plugins_arrays(registered):
    masks = (X > 99).astype(np.uint8)
    for task, y in (("classification", Y), ("segmentation", masks)):
        named = {"x": X, "y": y, "class_names": [b"a", b"b"][: 1 if task == "segmentation" else 2]}
        data = registered(task, **named)
        assert load(data).class_names[0] == "a"
        for change, message in (
            ({"x_test": X / 255, "y_test": y}, "x_test is float32, not uint8 as x"),
            ({"x_test": X[:, :6], "y_test": y[:, :6] if y.ndim > 1 else y}, r"x_test is \[N, 6, 8, 1\]"),
            ({"x_test": X // 16, "y_test": y}, "x_test holds"),
        ):
            data = registered(task, **named, **change)
            with pytest.raises(ValueError, match=message):
                load_test(data)
        for x, message in (
            (X.astype(int), r"use \.astype\('uint8'\)"),
            (X.transpose(0, 3, 1, 2), r"data\.channels=first"),
            (X.astype(object), "must be uint8, uint16 or float"),
            (np.where(X > 99, np.nan, 1.0), "NaN"),
        ):
            data = registered(task, **{**named, "x": x})
            with pytest.raises(ValueError, match=message):
                load(data)


def test_a_plugins_tokens_are_compared_too(registered):
    x = RANDOM.integers(0, 2, (40, 5))
    named = {"x": x, "y": x, "class_names": ["a", "b"], "x_valid": x, "y_valid": x, "y_test": x}
    assert load_test(registered("language", **named, x_test=x.astype(np.int32))).x.dtype == np.int32
    float_, short = r"x_test must be tokens.*float64", r"x_test is \[N, 4\]"
    for x_test, message in ((x * 1.0, float_), (x[:, :4], short)):
        data = registered("language", **{**named, "y_test": x[:, : x_test.shape[1]]}, x_test=x_test)
        with pytest.raises(ValueError, match=message):
            load_test(data)
    data = registered("language", **{**named, "x": x.astype(str), "x_test": x})
    with pytest.raises(ValueError, match="must be an array of numbers"):
        load(data)


@pytest.mark.parametrize("crop", ["pad", "upsample"])
def test_no_default_crop_leaves_an_image_blank(crop):
    """Padding is an eighth of each side: none beside a signal's width of 1."""
    for shape in ((16, 1), (3, 9)):
        x = jnp.ones((64, *shape, 1))
        out = np.asarray(jax.jit(augment, static_argnums=2)(jax.random.key(0), x, Augment(crop=crop)))
        assert (out.reshape(64, -1).mean(1) > 0.74).all(), shape
        assert (out == 0).any() == (crop == "pad")


def test_the_default_for_a_users_arrays_is_an_eighth_of_each_side(tmp_path):
    path = str(tmp_path / "set.npz")
    for method in ("random", "darts", "spos"):
        config = commands.configure(method, dataset=path)
        of = [config.retrain_recipe.augment, getattr(config, "augment", None) or config.recipe.augment]
        assert [(a.crop, a.crop_size, a.cutout) for a in of] == [("pad", None, 0)] * 2


@pytest.mark.parametrize(
    ("change", "shape", "message"),
    [
        ({"crop_size": 1}, (16, 1, 1), r"a\.crop_size=1 pads images of 16x1 .* --set a\.crop_size=none"),
        ({"crop_size": 5}, (8, 8, 1), "more than half of a side"),
        (
            {"cutout": 16},
            (8, 8, 1),
            r"a\.cutout=16 blanks more than half of images of 8x8 .* --set a\.cutout=5 or less",
        ),
        ({"cutout": 9}, (16, 1, 1), r"--set a\.cutout=8 or less"),
    ],
)
def test_a_crop_or_cutout_that_leaves_little_is_refused(change, shape, message):
    with pytest.raises(ValueError, match=message):
        require_suited(Augment("pad", **change), shape, "a")
    require_suited(Augment("pad", cutout=16), (32, 32, 3), "a")
    require_suited(Augment("pad", 4), (8, 8, 3), "a")
    require_suited(Augment("pad", 4, cutout=16), (35,), "a")


@pytest.mark.parametrize("method", ["random", "darts", "spos"])
def test_every_family_refuses_it_before_training(method):
    config = commands.configure(method)
    if method == "random":
        recipe = dataclasses.replace(config.recipe, augment=Augment("pad", 5))
        config = dataclasses.replace(config, recipe=recipe)
    else:
        config = dataclasses.replace(config, augment=Augment("pad", 5))
    with pytest.raises(ValueError, match=r"augment\.crop_size=5 pads images of 8x8"):
        catalog.method(method).make(Problem(config)).facts()


def test_the_test_part_is_not_trained_on(tmp_path):
    """The blog's protocol validates on what it tests on: training on the validation part too would train on that."""
    config = commands.configure("random")
    retrain = dataclasses.replace(config.retrain, part="all")
    data = dataclasses.replace(config.data, seed_protocol=True)
    config = dataclasses.replace(config, retrain=retrain, data=data)
    with pytest.raises(ValueError, match=r"tests on; write --set retrain\.part=train"):
        commands.retrain(config, tmp_path / "run", arch=None)
    assert not (tmp_path / "run").exists()
