"""Splits, limits and resizing; the digits and a user's .npz."""

from fractions import Fraction

import numpy as np
import pytest

from nasjax.data.dataset import DataConfig, resize
from nasjax.problem.data import load, load_test


def numbered(n):
    """n images that can be told apart: uint8 [n, 2, 2]; pixel (0, 0) is the image's number."""
    x = np.zeros((n, 2, 2), np.uint8)
    x[:, 0, 0] = np.arange(n)
    return x


def numbers(split):
    return split.x[:, 0, 0, 0].tolist()


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return str(tmp_path / "set.npz")

    return save


@pytest.fixture
def hundred(save):
    return save(x=numbered(100), y=np.arange(100) % 3)


def test_digits_are_the_1797_of_scikit_learn():
    data, test = load(DataConfig()), load_test(DataConfig())
    assert (data.name, data.classes, data.class_names) == ("digits", 10, tuple("0123456789"))
    assert [len(s.y) for s in (data.train, data.valid, test)] == [1200, 300, 297]
    assert data.train.x.shape == (1200, 8, 8, 1)
    assert data.train.x.dtype == np.uint8
    assert data.train.y.dtype == np.int32
    x = np.concatenate([data.train.x, data.valid.x, test.x])
    y = np.concatenate([data.train.y, data.valid.y, test.y])
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (x.sum(), x.max(), (x % 15).max()) == (561718 * 15, 240, 0)
    np.testing.assert_allclose(data.mean, [(data.train.x / 255).mean()], rtol=1e-6)
    np.testing.assert_allclose(data.std, [(data.train.x / 255).std()], rtol=1e-6)


def test_the_digits_split_never_changes():
    # Recorded once: a run of an older version, or on another NumPy, must see the same images.
    data = load(DataConfig())
    assert data.sha256 == "772cebfdeebff89a7cde0b56d965675b5bdac5865a9ad1f2d9974f0953de01b9"
    assert load_test(DataConfig()).y[:8].tolist() == [0, 4, 6, 9, 2, 0, 3, 5]


def test_parts_are_disjoint_and_cover_everything(hundred):
    data, test = load(DataConfig(hundred)), load_test(DataConfig(hundred))
    parts = [numbers(data.train), numbers(data.valid), numbers(test)]
    assert [len(p) for p in parts] == [68, 16, 16]
    assert sorted([*parts[0], *parts[1], *parts[2]]) == list(range(100))
    for part in (data.train, data.valid, test):
        assert (part.y == part.x[:, 0, 0, 0] % 3).all()


def test_a_split_is_a_function_of_its_seed(hundred):
    first, again, other = (load(DataConfig(hundred, split_seed=seed)) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    np.testing.assert_array_equal(first.train.x, again.train.x)
    assert set(numbers(first.valid)) != set(numbers(other.valid))
    assert numbers(load_test(DataConfig(hundred))) != numbers(load_test(DataConfig(hundred, split_seed=1)))


def test_the_test_part_is_the_same_whatever_the_sizes_and_limits(hundred):
    test = numbers(load_test(DataConfig(hundred)))
    for sizes in ({"valid_size": 40}, {"train_limit": 3}, {"valid_limit": 2}):
        config = DataConfig(hundred, **sizes)
        assert numbers(load_test(config)) == test
        data = load(config)
        assert not set(test) & {*numbers(data.train), *numbers(data.valid)}


def test_limits_take_the_first_images_and_leave_the_rest_unused(hundred):
    whole = load(DataConfig(hundred))
    few = load(DataConfig(hundred, train_limit=5, valid_limit=4))
    assert numbers(few.train) == numbers(whole.train)[:5]
    assert numbers(few.valid) == numbers(whole.valid)[:4]
    assert few.sha256 != whole.sha256
    assert few.mean != whole.mean  # of the images that are trained on
    assert len(load(DataConfig(hundred, train_limit=1000)).train.y) == 68
    assert len(load(DataConfig(hundred, valid_size=30)).valid.y) == 30


def test_resizing_is_an_area_average(hundred):
    x = np.random.default_rng(0).normal(size=(3, 8, 6, 2)).astype(np.float32)
    blocks = x.reshape(3, 4, 2, 3, 2, 2).mean((2, 4))
    np.testing.assert_allclose(resize(x, 4, 3), blocks, atol=1e-6)
    # Any ratio: 8 rows to 3 is 24 thin rows in blocks of 8; 6 columns to 4 is 12 in blocks of 3.
    thin = x.repeat(3, 1).repeat(2, 2)
    np.testing.assert_allclose(resize(x, 3, 4), thin.reshape(3, 3, 8, 4, 3, 2).mean((2, 4)), atol=1e-6)
    np.testing.assert_allclose(resize(x, 8, 6), x, atol=1e-6)
    np.testing.assert_array_equal(resize(np.array([[0, 1], [1, 1]], np.uint8)[None, :, :, None], 1, 1), [[[[1]]]])
    small = load(DataConfig(hundred, resize=1))
    assert small.train.x.shape == (68, 1, 1, 1)
    assert small.train.x.dtype == np.uint8
    assert load_test(DataConfig(hundred, resize=1)).x.shape == (16, 1, 1, 1)


def test_area_averages_of_bytes_are_exact():
    """Against fractions, ties to even: what a sum's order or a thread does to the last bit cannot change a byte."""
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 6, 1)).astype(np.uint8)

    def exact(image, height, width):
        def overlap(old, new, pixel, place):
            start, stop = Fraction(place * old, new), Fraction((place + 1) * old, new)
            return max(Fraction(0), min(stop, Fraction(pixel + 1)) - max(start, Fraction(pixel)))

        rows, columns = range(image.shape[0]), range(image.shape[1])
        area = Fraction(image.shape[0] * image.shape[1], height * width)
        sums = [
            sum(overlap(7, height, i, p) * overlap(6, width, j, q) * int(image[i, j, 0]) for i in rows for j in columns)
            for p in range(height)
            for q in range(width)
        ]
        return np.array([round(total / area) for total in sums]).reshape(height, width, 1)

    for size in ((5, 4), (2, 3), (7, 3), (9, 8)):
        np.testing.assert_array_equal(resize(x, *size), [exact(image, *size) for image in x])


def test_npz_float_images_any_labels_and_a_test_set_of_its_own(save):
    x = np.random.default_rng(0).normal(5.0, 2.0, (40, 4, 3, 2))
    y = np.array([7, -3, 100, 7] * 10)
    path = save(x=x, y=y, x_test=x[:6] + 1, y_test=np.array([100, 7, -3, 7, 7, 100]))
    data, test = load(DataConfig(path)), load_test(DataConfig(path))
    assert data.class_names == ("-3", "7", "100")
    assert (len(data.train.y), len(data.valid.y)) == (36, 4)
    assert data.train.x.dtype == np.float32
    np.testing.assert_allclose(data.mean, data.train.x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(data.std, data.train.x.std((0, 1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(test.x, (x[:6] + 1).astype(np.float32))
    assert test.y.tolist() == [2, 1, 0, 1, 1, 2]


def test_a_relative_npz_lies_in_data_dir(save, tmp_path):
    save(x=numbered(12), y=np.arange(12) % 2)
    assert len(load(DataConfig("set.npz", str(tmp_path))).train.y) == 8


def test_a_constant_channel_can_be_whitened(save):
    assert load(DataConfig(save(x=np.ones((12, 2, 2)), y=np.arange(12) % 2))).std == [1.0]


def test_a_search_does_not_open_test_images(save):
    broken = np.full((4, 2, 2), None)  # an object array: reading it fails
    path = save(x=numbered(20), y=np.arange(20) % 2, x_test=broken, y_test=np.arange(4) % 2)
    assert load(DataConfig(path)).classes == 2
    with pytest.raises(ValueError, match="x_test as a plain array"):
        load_test(DataConfig(path))


X, Y = numbered(20), np.arange(20) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has no 'y'"),
        ({"images": X, "y": Y}, r"has no 'x' \(it has images, y\)"),
        ({"x": X, "y": Y, "x_test": X}, "give both or neither"),
        ({"x": X[:, 0], "y": Y}, r"x must be \[N, H, W\] or \[N, H, W, C\], got \[20, 2\]"),
        ({"x": X, "y": Y[:19]}, "x has 20 images, but y has 19 labels"),
        ({"x": X, "y": Y[:, None]}, r"y must be integers, floats or text of shape \[N\], got int64 \[20, 1\]"),
        ({"x": X, "y": Y * 1.0}, "y holds whole numbers as float64: classes or values"),
        ({"x": X, "y": Y * 0}, "fewer than two classes"),
        ({"x": X.astype(int), "y": Y}, r"x must be uint8, uint16 or float, got int64 of 0..19; use"),
        ({"x": np.where(X == 3, np.nan, X), "y": Y}, "x holds NaN"),
        ({"x": X.astype(object), "y": Y}, "x as a plain array .*allow_pickle"),
        ({"x": X[:2], "y": Y[:2]}, "leaves none to test on"),
    ],
)
def test_npz_errors_name_the_trouble(save, arrays, message):
    with pytest.raises(ValueError, match=message) as error:
        load(DataConfig(save(**arrays)))
    assert "\n" not in str(error.value)


def test_npz_test_labels_must_be_known(save):
    path = save(x=X, y=Y, x_test=X[:1], y_test=np.array([5]))
    with pytest.raises(ValueError, match="y_test holds 5, a class that the training part does not have"):
        load_test(DataConfig(path))


def test_files_that_are_not_there_or_not_npz(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.npz"):
        load(DataConfig(str(tmp_path / "none.npz")))
    (tmp_path / "text.npz").write_text("x,y")
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        load(DataConfig(str(tmp_path / "text.npz")))


def test_wrong_config_says_what_to_write(hundred):
    with pytest.raises(ValueError, match=r"unknown dataset 'digit'; did you mean digits\?"):
        load(DataConfig("digit"))
    with pytest.raises(
        ValueError, match=r"choose from digits, cifar10, imagenet, .*nuclei_folder; or your own: FILE.npz"
    ):
        load(DataConfig("faces"))
    for field in ("valid_size", "train_limit", "valid_limit", "resize"):
        with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
            DataConfig(**{field: 0})
    with pytest.raises(ValueError, match="split_seed"):
        DataConfig(split_seed=-1)
    with pytest.raises(ValueError, match="valid_size=84 of 84 samples leaves none"):
        load(DataConfig(hundred, valid_size=84))
