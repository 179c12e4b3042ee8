"""CIFAR-10: the original python format, the restricted unpickler, TFDS, and facts of the real images."""

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tools.make_cifar_folder import convert, python2_pickle, write

from nasjax.data.cifar10 import cifar10
from nasjax.data.dataset import DataConfig
from nasjax.problem.data import load, load_test

REAL = Path(os.environ.get("NASJAX_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cifar10"


@pytest.fixture
def tiny(tmp_path):
    """The original layout with 4 images a file, and the images: x uint8 [24, 32, 32, 3], y [24]; test last."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (24, 32, 32, 3), np.uint8), rng.integers(0, 10, 24)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {name: (x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4]) for i, name in enumerate(names)}
    write(tmp_path / "cifar-10-batches-py", files)
    return tmp_path, x, y


def config(data_dir, **options):
    return DataConfig("cifar10", str(data_dir), valid_size=5, **options)


def test_a_folder_reads_back_what_was_written(tiny):
    folder, x, y = tiny
    for place in (folder, folder / "cifar-10-batches-py"):  # the parent, or the folder itself
        source = cifar10(str(place))
        np.testing.assert_array_equal(source.pool().x, x[:20])
        np.testing.assert_array_equal(source.pool().y, y[:20])
        test = load_test(config(place))
        np.testing.assert_array_equal(test.x, x[20:])
        np.testing.assert_array_equal(test.y, y[20:])
    data = load(config(folder))
    assert (len(data.train.y), len(data.valid.y), data.classes, data.class_names[3]) == (15, 5, 10, "cat")


def test_a_search_does_not_open_the_test_batch(tiny):
    folder = tiny[0]
    (folder / "cifar-10-batches-py" / "test_batch").unlink()
    assert len(load(config(folder)).train.y) == 15
    with pytest.raises(FileNotFoundError, match="has no test_batch; give --data_dir"):
        load_test(config(folder))


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_wants_to_run_something_is_refused(tiny):
    folder = tiny[0]
    batch, marker = folder / "cifar-10-batches-py" / "data_batch_3", folder / "marker"
    for protocol in (0, 2, 4):
        batch.write_bytes(pickle.dumps(Evil(marker), protocol))
        with pytest.raises(ValueError, match=r"data_batch_3 is not .* refused to load (posix|nt)\.system"):
            load(config(folder))
    assert not marker.exists()
    pickle.loads(batch.read_bytes())  # this is what would have happened
    assert marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle({b"labels": [0]}), "not a CIFAR-10 batch in the original format .KeyError: b'data'"),
        (python2_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}), "expected data"),
        (python2_pickle({b"data": np.zeros((1, 3000), np.uint8), b"labels": [0]}), "expected data"),
        (python2_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), "expected data"),
        (python2_pickle({b"data": np.zeros((9, 3072), np.uint8), b"labels": [0] * 9})[:-9000], "original format"),
        (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [0]}, 4), "refused an array of type .*f8"),
        (b"", "not a CIFAR-10 batch in the original format"),
    ],
)
def test_a_damaged_batch_is_named(tiny, content, message):
    folder = tiny[0]
    (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load(config(folder))
    assert "data_batch_1" in str(error.value)


def test_arrays_pickled_by_python_3_are_read_too(tiny):
    folder, x, _ = tiny
    rows = x[:4].transpose(0, 3, 1, 2).reshape(4, 3072)
    content = pickle.dumps({b"data": rows, b"labels": [1, 2, 3, 4]}, 4)
    (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    pool = cifar10(str(folder)).pool()
    np.testing.assert_array_equal(pool.x, x[:20])
    assert pool.y[:4].tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_tfds_gives_the_original_order():
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=20):
        data, test = load(config("")), load_test(config(""))
        examples = tfds.data_source("cifar10", split="train", download=False)
        examples = sorted((examples[i] for i in range(20)), key=lambda example: example["id"])
        pool = cifar10().pool()
    assert data.train.x.shape == (15, 32, 32, 3)
    assert data.train.x.dtype == np.uint8
    assert len(test.y) == 20
    np.testing.assert_array_equal(pool.x, np.stack([example["image"] for example in examples]))
    assert pool.y.tolist() == [example["label"] for example in examples]


@pytest.mark.parametrize("folder", ["", "cifar10"])  # nothing there at all; a TFDS folder without data in it
def test_missing_data_says_how_to_get_it(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError, match=r"--data_dir=FOLDER .* tfds build cifar10") as error:
        load(config(tmp_path))
    assert "nasjax[prepare]" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real CIFAR-10 in {REAL}; set NASJAX_DATA")
def test_facts_of_the_real_images():
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        convert(REAL, folder)
        source = cifar10(folder)
        train, test = source.pool(), load_test(DataConfig("cifar10", folder))
        data = load(DataConfig("cifar10", folder, train_limit=2000, resize=16))
    assert np.bincount(train.y).tolist() == [5000] * 10
    assert np.bincount(test.y).tolist() == [1000] * 10
    np.testing.assert_allclose(train.x.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)
    assert (data.train.x.shape, data.valid.x.shape) == ((2000, 16, 16, 3), (5000, 16, 16, 3))
    sheet = np.asarray(Image.open(REAL / "data_batch_2.webp").convert("RGB"))
    np.testing.assert_array_equal(train.x[10000 + 307], sheet[3 * 32 : 4 * 32, 7 * 32 : 8 * 32])
