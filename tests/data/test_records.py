"""ImageNet as TFDS prepares it: a small set in the same format, written and read without TensorFlow."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from nasjax.catalog import source
from nasjax.data.dataset import DataConfig, in_files, load, load_test
from nasjax.data.records import Record

COUNTS = {"train": 24, "validation": 6}
LABELS = {part: [7 * n % 1000 for n in range(count)] for part, count in COUNTS.items()}


def jpeg(part, n):
    file = io.BytesIO()
    pixels = np.random.default_rng(1000 * (part == "train") + n).integers(0, 256, (40 + n, 50, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A TFDS folder with an `imagenet2012` of 30 images."""
    import tensorflow_datasets as tfds
    from etils import epath

    folder = tmp_path_factory.mktemp("tfds")

    class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("5.1.0")
        pkg_dir_path, url_infos = epath.Path(folder), {}

        def _info(self):
            image, label = tfds.features.Image(encoding_format="jpeg"), tfds.features.ClassLabel(num_classes=1000)
            features = {"image": image, "label": label, "file_name": tfds.features.Text()}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {part: self._generate_examples(part) for part in COUNTS}

        def _generate_examples(self, part):
            for n, label in enumerate(LABELS[part]):
                yield n, {"image": jpeg(part, n), "label": label, "file_name": f"{n}"}

    Imagenet2012(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.slow
def test_a_set_that_tfds_prepared_is_read_as_files_are(prepared):
    """From records by processes, and at once; images and classes belong together, and TensorFlow is not imported."""
    config = {"name": "imagenet", "data_dir": str(prepared), "valid_size": 4, "resize": 32}
    told = []
    lazy = load(DataConfig(**config, stream="true", readers=2), source("imagenet"), told.append)
    here, whole = (
        load(DataConfig(**config, **more), source("imagenet")) for more in ({"stream": "true", "readers": 0}, {})
    )
    assert in_files(lazy) and not in_files(whole) and len(lazy.class_names) == 1000 and lazy.train.x.shape[0] == 20
    assert len(told) == 1 and "classes of 24 images were read" in told[0]  # not again for the others
    for part in ("train", "valid"):
        one, other, third = (getattr(data, part) for data in (lazy, here, whole))
        np.testing.assert_array_equal(np.asarray(one.x), other.x)
        np.testing.assert_array_equal(third.x, other.x)
        np.testing.assert_array_equal(one.y, third.y)
    lazy.train.x.readers.close()
    test = load_test(DataConfig(**config), source("imagenet"))
    assert sorted(test.y.tolist()) == sorted(LABELS["validation"])
    from nasjax.data.view import View, read_view

    folder = prepared / "imagenet2012/5.1.0"
    places = {label: n for n, label in enumerate(LABELS["validation"])}
    (folder / "x.jpg").write_bytes(jpeg("validation", places[int(test.y[2])]).getvalue())
    np.testing.assert_array_equal(test.x[2], read_view(folder / "x.jpg", View(32, 32, 3, "crop")))
    with pytest.raises(ValueError, match=r"image 99 of train in .*5\.1\.0 cannot be read as an image"):
        read_view(Record(str(folder), "train/99"), View(32, 32, 3, "crop"))
    assert "tensorflow" not in sys.modules


def test_what_is_not_prepared_says_what_to_do(tmp_path):
    (tmp_path / "imagenet2012").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"give --data_dir=FOLDER with train/CLASS.*tfds build imagenet2012"
    ) as e:
        load(DataConfig("imagenet", str(tmp_path)), source("imagenet"))
    assert "\n" not in str(e.value)
