"""Generated nuclei, and a user's folder of images and masks: what is read, how it is split, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from nasjax import catalog
from nasjax.data.dataset import DataConfig, known_form
from nasjax.data.nuclei import picture
from nasjax.problem.data import load, load_test
from nasjax.problem.given import augmentation
from nasjax.train.augment import Augment


def test_generated_nuclei_never_change():
    # Recorded once: another machine, or another NumPy, must generate the same pictures.
    data = load(DataConfig("nuclei"))
    assert data.sha256 == "de4b36351ce2a384817be7d8fd12026f663543318b6cb298fb60ed28b3ac07e3"
    assert (data.classes, data.class_names) == (1, ("nucleus",))
    assert data.train.x.shape == (180, 48, 48, 3) and data.valid.y.shape == (60, 48, 48, 1)
    assert data.train.x.dtype == data.train.y.dtype == np.uint8 and set(np.unique(data.train.y)) == {0, 1}
    covered = np.concatenate([data.train.y, data.valid.y]).mean((1, 2, 3))
    assert 0.02 < covered.min() < 0.1 < covered.mean() < 0.25 < covered.max() < 0.5
    # Nuclei differ from their ground: brighter where it is dark, darker where it is pale.
    inside, outside = (
        np.array([x[m[..., 0] == value].mean() for x, m in zip(data.train.x, data.train.y, strict=True)])
        for value in (1, 0)
    )
    dark = outside < 128
    assert 0.6 < dark.mean() < 0.9 and (inside[dark] > outside[dark]).all() and (inside[~dark] < outside[~dark]).all()


def test_the_parts_of_the_generated_nuclei_are_disjoint():
    data, test = load(DataConfig("nuclei")), load_test(DataConfig("nuclei"))
    rows = [image.tobytes() for part in (data.train, data.valid, test) for image in part.x]
    assert len(test.y) == 60 and len(set(rows)) == 300
    assert set(rows) == {picture(n)[0].tobytes() for n in range(300)}


def test_what_is_known_without_reading():
    assert known_form(DataConfig("nuclei"), catalog.source("nuclei")) == ((48, 48, 3), 1)
    for config, side in ((DataConfig("nuclei_folder"), 96), (DataConfig("nuclei_folder", resize=64), 64)):
        assert known_form(config, catalog.source(config.name)) == ((side, side, 3), 1)
    for name in ("nuclei", "nuclei_folder"):
        assert catalog.source(name).task == "segmentation"
        assert augmentation(catalog.source(name)) == Augment("none", flip=True, rotate=True, colour=0.2)
    assert augmentation(catalog.source("digits")) == Augment("pad", flip=False)
    assert augmentation(catalog.source("cifar10")) == Augment()


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image if mode is None else image.convert(mode)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Ten pairs of different sizes: pair i is gray 20 i; the left half of its mask is foreground."""
    for i in range(10):
        height, width = 8 + 2 * (i % 3), 12 + 4 * (i % 2)
        image = np.full((height, width), 20 * i, np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 2] = 255
        save(tmp_path / f"images/{i}.png", image, "RGB" if i % 4 == 0 else None)
        save(tmp_path / f"masks/{i}.png", mask)
    return tmp_path


def config(folder, **changes):
    return DataConfig("nuclei_folder", data_dir=str(folder), resize=4, aspect="squash", **changes)


def test_a_folder_is_read_and_split(folder):
    data, test = load(config(folder)), load_test(config(folder))
    assert [len(part.y) for part in (data.train, data.valid, test)] == [6, 2, 2]
    x = np.concatenate([data.train.x, data.valid.x, test.x])
    y = np.concatenate([data.train.y, data.valid.y, test.y])
    assert sorted(x[:, 0, 0, 0].tolist()) == [20 * i for i in range(10)]
    assert x.shape == (10, 4, 4, 3) and (x == x[:, :1, :1, :1]).all()
    expected = np.broadcast_to([1, 1, 0, 0], (10, 4, 4))
    np.testing.assert_array_equal(y[..., 0], expected)
    assert load(DataConfig("nuclei_folder", data_dir=str(folder))).train.x.shape == (6, 96, 96, 3)
    assert [len(part.y) for part in load(config(folder, valid_size=1))[3:5]] == [7, 1]


def test_the_seed_protocol_tests_on_what_it_validates_on(folder):
    usual, leaky = load(config(folder)), load(config(folder, seed_protocol=True))
    test = load_test(config(folder, seed_protocol=True))
    np.testing.assert_array_equal(leaky.train.x, usual.train.x)
    for part in zip(leaky.valid, test, strict=True):
        np.testing.assert_array_equal(*part)
    np.testing.assert_array_equal(test.x, np.concatenate([load_test(config(folder)).x, usual.valid.x]))
    with pytest.raises(ValueError, match="seed_protocol draws a test part that validates, too: leave out valid_size"):
        load(config(folder, seed_protocol=True, valid_size=2))
    with pytest.raises(ValueError, match="seed_protocol"):
        load_test(DataConfig("cifar10", seed_protocol=True))


def test_images_are_averaged_and_masks_take_the_nearest(folder):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (12, 8, 3), np.uint8), rng.integers(0, 2, (12, 8), np.uint8)
    for i in range(10):
        save(folder / f"images/{i}.png", image)
        save(folder / f"masks/{i}.png", mask * 255, ["L", "1", "P", "RGBA"][i % 4])
    data = load(config(folder))
    blocks = image.reshape(4, 3, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(data.train.x[0], blocks, atol=0.51)
    for y in (*data.train.y, *data.valid.y):
        np.testing.assert_array_equal(y[..., 0], mask[1::3, 1::2])


def test_an_image_and_its_mask_are_turned_upright_each_as_it_says(folder):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (8, 4, 3), np.uint8), rng.integers(0, 2, (8, 4), np.uint8) * 255
    turns = {1: 0, 3: 2, 6: 1, 8: 3}  # orientation: quarter turns to the left that the stored rows have had
    for i in range(10):
        for part, upright, orientation in (("images", image, (1, 3, 6, 8)[i % 4]), ("masks", mask, (1, 6, 3)[i % 3])):
            exif = Image.Exif()
            exif[274] = orientation
            Image.fromarray(np.rot90(upright, turns[orientation])).save(folder / part / f"{i}.png", exif=exif)
    data = load(config(folder, valid_size=1))
    assert (data.train.x == data.train.x[0]).all() and (data.train.y == data.train.y[0]).all()
    np.testing.assert_array_equal(data.train.y[0, ..., 0] * 255, mask[1::2])


def test_a_part_without_foreground_is_said(folder):
    for i in range(10):  # one mask of ten has any
        fill_one = np.full((8, 16), 255 * (i == 3) * (np.arange(16) < 8), np.uint8)
        save(folder / f"images/{i}.png", np.full((8, 16), i, np.uint8))
        save(folder / f"masks/{i}.png", fill_one)
    told = []
    load(config(folder), told.append)
    load_test(config(folder), told.append)
    assert len(told) == 2 and all("part: all its masks are background" in line for line in told)


def test_other_suffixes_and_hidden_files(folder):
    (folder / "images/3.png").unlink()
    save(folder / "images/3.bmp", np.zeros((8, 16), np.uint8))
    (folder / "images/._3.png").write_bytes(b"not an image")
    (folder / "masks/notes.txt").write_text("not a mask")
    assert len(load(config(folder)).train.y) == 6


def deep(channels):
    """A PNG of 8x16 black pixels with 16 bits a channel: gray or RGB."""
    import struct
    import zlib

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = (b"\0" + bytes(16 * 2 * channels)) * 8
    head = struct.pack(">IIBBBBB", 16, 8, 16, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rename(folder):
    (folder / "masks/3.png").rename(folder / "masks/x3.png")


def remove(folder):
    for i in range(6):
        (folder / f"masks/{i}.png").unlink()
        (folder / f"images/{i}.png").unlink()


def empty(folder):
    for path in (folder / "masks").iterdir():
        path.unlink()


def fill(folder, mask):
    for i in range(10):
        save(folder / f"images/{i}.png", np.zeros((8, 16), np.uint8))
        save(folder / f"masks/{i}.png", np.broadcast_to(np.uint8(mask), (8, 16)))


def palette(folder, colours):
    mask = Image.frombytes("P", (16, 8), np.eye(8, 16, dtype=np.uint8).tobytes())
    mask.putpalette(colours)
    mask.save(folder / "masks/3.png")


def truncate(folder):
    save(folder / "images/3.png", np.random.default_rng(0).integers(0, 256, (8, 16), np.uint8))
    whole = (folder / "images/3.png").read_bytes()
    (folder / "images/3.png").write_bytes(whole[: len(whole) // 2])


BAD = [
    (rename, r"images/3\.png has no partner in .*masks; pairs have the same name"),
    (lambda f: (f / "images/3.png").unlink(), r"masks/3\.png has no partner in .*images"),
    (lambda f: [(f / f"images/{i}.png").unlink() for i in (3, 4, 5)], r"no partner in .*images \(and 2 others\)"),
    (lambda f: save(f / "masks/3.bmp", np.zeros((8, 16), np.uint8)), r"3\.bmp and .*3\.png have the same name"),
    (remove, "has 4 images; five are the fewest"),
    (empty, "masks has no image files"),
    (
        lambda f: save(f / "masks/3.png", np.zeros((8, 8), np.uint8)),
        r"masks/3\.png is of 8x8 pixels, its image of 8x16",
    ),
    (
        lambda f: save(f / "masks/3.png", np.arange(128, dtype=np.uint8).reshape(8, 16)),
        r"3\.png holds 1, .*3\.png holds 2: the masks have more than two values, they hold 0, 1, 2, 3, 4, \.\.\.;",
    ),
    (
        lambda f: save(f / "masks/3.png", np.eye(8, 16, dtype=np.uint8)),  # one value a file, and two in the set
        r"3\.png holds 1, .*\.png holds 255: the masks have more than two values, they hold 0, 1, 255;",
    ),
    (lambda f: fill(f, 0), "all masks of .*masks are background, every pixel is 0; write 0 for background and 255"),
    (lambda f: fill(f, 255), "all masks of .*masks are foreground, every pixel is 255; write 0"),
    (
        lambda f: fill(f, np.pad(np.full((1, 1), 255, np.uint8), ((0, 7), (0, 15)))),
        "at 4x4 pixels all masks of .* are background; set a larger data.resize",
    ),
    (lambda f: (f / "images/4.heic").write_bytes(b""), r"images/4\.heic is of a format that is not read; convert it"),
    (
        lambda f: save(f / "masks/3.png", np.dstack([np.full((8, 16, 3), 255, np.uint8), np.eye(8, 16) * 255])),
        r"masks/3\.png .* it has transparent pixels; write the mask as gray",
    ),
    (
        lambda f: save(f / "masks/3.png", np.dstack([np.zeros((8, 16, 3), np.uint8), np.eye(8, 16) * 255])),
        r"masks/3\.png .* it has transparent pixels; write the mask as gray",
    ),
    (lambda f: palette(f, [255] * 3 + [0] * 3), "3.png has a palette whose colours tell other classes apart"),
    (lambda f: palette(f, [0] * 3 + [255] * 6), "3.png has a palette whose colours tell other classes apart"),
    (lambda f: palette(f, [0] * 3 + [128, 0, 0]), "3.png is a coloured mask"),
    (lambda f: save(f / "masks/3.png", np.full((8, 16, 3), (0, 9, 9), np.uint8)), "is a coloured mask"),
    (lambda f: (f / "masks/3.png").write_bytes(deep(1)), r"masks/3\.png cannot be read .* convert it to 8 bits"),
    (lambda f: (f / "images/3.png").write_bytes(deep(1)), r"images/3\.png cannot be read .* convert it to 8 bits"),
    (lambda f: (f / "images/3.png").write_bytes(deep(3)), "16 bits a channel; convert it to 8 bits"),
    (lambda f: (f / "images/3.png").write_bytes(b"nothing"), r"images/3\.png cannot be read as an image"),
    (truncate, r"images/3\.png cannot be read as an image"),
    (lambda f: (f / "images/3.png").write_bytes(b""), r"images/3\.png cannot be read as an image"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_a_bad_folder_is_named_in_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message) as error:
        load(config(folder))
    assert "\n" not in str(error.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="--data_dir is missing; give --data_dir=FOLDER with images/ and masks/"
    ):
        load(DataConfig("nuclei_folder"))
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="images has no image files"):
        load(config(tmp_path))
    save(tmp_path / "images/1.png", np.zeros((8, 16), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*masks; give --data_dir"):
        load(config(tmp_path))
