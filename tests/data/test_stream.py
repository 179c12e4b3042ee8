"""Images that stay in their files: who reads them, in which order, and what happens when that fails."""

import os
import signal

import numpy as np
import pytest
from PIL import Image

from nasjax.catalog import source
from nasjax.data import file_stream
from nasjax.data.dataset import DataConfig, in_files, joined, load, load_test
from nasjax.data.readers import names
from nasjax.data.stream import images
from nasjax.data.view import Cut, View

PARTS = [np.array(one) for one in ([0, 1, 2], [5, 4, 3], [6, 0, 6], [2, 2, 1])]
SEEDS = [(n, 0) for n in range(4)]


@pytest.fixture
def files(tmp_path):
    for n in range(7):
        pixels = np.random.default_rng(n).integers(0, 256, (20 + n, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    return [str(tmp_path / f"{n}.png") for n in range(7)]


def stream(files, readers, **options):
    return images(
        files, files[0].rpartition("/")[0], View(16, 16, 3, "crop"), readers=readers, **{"skip": False, **options}
    )


def all_of(x, **options):
    return [np.array(part) for part in x.sequence(PARTS, Cut(), SEEDS, 3, **options)]


def test_processes_read_what_one_reads_in_the_same_order(files):
    here, there = all_of(stream(files, 0)), all_of(several := stream(files, 2))
    np.testing.assert_array_equal(here, there)
    assert not (here[3][0] == here[3][1]).all()  # one file, two cuts
    begun = several.sequence(PARTS, Cut(), SEEDS, 3)
    np.testing.assert_array_equal(next(begun), here[0])
    np.testing.assert_array_equal(all_of(several), here)  # another sequence begins
    assert not [*begun]  # and ends it
    several.readers.close()


def test_a_part_of_them_is_chosen_without_reading(files):
    x = stream(files, 0)
    assert x[np.array([3, 1])].index.tolist() == [3, 1] and x[1:3].shape == (2, 16, 16, 3)
    assert x[:2].joined(x[4:]).index.tolist() == [0, 1, 4, 5, 6]
    assert x[:2].digest() != x[1:3].digest()


def test_pieces_count_every_image_once(files):
    pieces = [(np.array(x), at, counted) for x, at, counted in stream(files, 0).pieces(3)]
    assert [at[counted].tolist() for _, at, counted in pieces] == [[0, 1, 2], [3, 4, 5], [6]]
    assert {x.shape for x, *_ in pieces} == {(3, 16, 16, 3)}


def test_a_file_that_cannot_be_read_is_named_or_skipped_where_asked(files):
    with open(files[5], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"5\.png cannot be read.*data\.skip_corrupt=true"):
        all_of(stream(files, 0))
    with pytest.raises(ValueError, match=r"5\.png cannot be read.*data\.skip_corrupt=true"):
        all_of(stream(files, 1))
    skipping = stream(files, 0, skip=True)
    found = all_of(skipping)
    np.testing.assert_array_equal(found[1][1:], all_of(stream(files[:5] + files[4:5] + files[6:], 0))[1][1:])
    assert len(skipping.readers.unreadable) == 1
    open(files[5], "wb").close()
    with pytest.raises(ValueError, match=r"5\.png .*empty \(0 bytes\)"):
        stream(files, 0)


def test_a_reader_that_dies_is_a_line(files):
    x = stream(files, 1)
    begun = x.sequence(PARTS * 9, None, (), 3)
    next(begun)
    os.kill(x.readers._processes[0].process.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match=r"died.*data\.readers=N"):
        list(begun)


def test_a_list_of_files_takes_little_more_than_its_letters():
    listed = names(f"/data/train/class{n % 1000}/image{n:07d}.jpg" for n in range(2000))
    assert str(listed.file(1234)) == "/data/train/class234/image0001234.jpg" and len(listed) == 2000
    assert (listed.text.nbytes + listed.ends.nbytes) / 2000 < 50


def test_a_folder_is_the_same_set_in_memory_and_in_files(files, tmp_path):
    for n, file in enumerate(files):
        for part in ("train", "val", "test"):
            folder = tmp_path / "set" / part / "ab"[n % 2]
            folder.mkdir(parents=True, exist_ok=True)
            os.link(file, folder / f"{n}.png")
    sets = {}
    for way in ("true", "false"):
        config = DataConfig(
            "image_folder", str(tmp_path / "set"), resize=8, stream=way, readers=0 if way == "true" else None
        )
        data = load(config, source("image_folder"))
        sets[way] = (data, load_test(config, source("image_folder")))
    (lazy, lazy_test), (data, test) = sets["true"], sets["false"]
    for one, other in ((lazy.train, data.train), (lazy.valid, data.valid), (lazy_test, test)):
        np.testing.assert_array_equal(np.asarray(one.x), other.x)
        np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_allclose(lazy.mean, data.mean, rtol=1e-5)
    assert len(joined(lazy).train.x) == 14 and lazy.sha256 != data.sha256


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"stream": "true"}, "needs --set data.resize=N"),
        ({"resize": 8, "readers": 1}, "data.readers has no effect"),
        ({"resize": 8, "skip_corrupt": True}, "data.skip_corrupt has no effect"),
        ({"fit": "crop"}, "data.fit has no effect"),
    ],
)
def test_settings_of_a_stream_that_would_do_nothing_are_refused(files, tmp_path, settings, why):
    for n in range(4):
        (tmp_path / "set" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        os.link(files[0], tmp_path / "set" / "ab"[n % 2] / f"{n}.png")
    with pytest.raises(ValueError, match=why):
        load(DataConfig("image_folder", str(tmp_path / "set"), **settings), source("image_folder"))


def test_a_set_that_does_not_fit_stays_in_its_files(files, tmp_path, monkeypatch):
    for n in range(6):
        (tmp_path / "set" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        os.link(files[0], tmp_path / "set" / "ab"[n % 2] / f"{n}.png")
    monkeypatch.setattr(file_stream, "FITS", 6 * 8 * 8 * 3 - 1)
    for side, lazy in ((8, True), (7, False)):
        lines = []
        data = load(
            DataConfig("image_folder", str(tmp_path / "set"), resize=side), source("image_folder"), lines.append
        )
        assert (
            in_files(data) == lazy == any("6 images of 8x8" in line and "stay in their files" in line for line in lines)
        )
    with pytest.raises(ValueError, match=r"6 images of 20x24 .*write --set data\.resize=N"):
        load(DataConfig("image_folder", str(tmp_path / "set")), source("image_folder"))


def test_imagenet_is_read_from_its_folder(files, tmp_path):
    for n in range(4):
        (tmp_path / "set/train" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        os.link(files[0], tmp_path / "set/train" / "ab"[n % 2] / f"{n}.png")
    with pytest.raises(ValueError, match="has 2 classes, imagenet 1000; write --dataset=image_folder"):
        load(DataConfig("imagenet", str(tmp_path / "set")), source("imagenet"))
