"""A folder per class and a CSV of files: what is read, what is said, and one line for what is refused."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from nasjax import catalog
from nasjax.data.dataset import DataConfig
from nasjax.problem.data import load, load_test

RANDOM = np.random.default_rng(0)
CLASSES = ("dog", "cat", "emu")


def picture(path, height=6, width=6, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return np.asarray(Image.fromarray(pixels).convert(mode))


@pytest.fixture
def folder(tmp_path):
    for name in CLASSES:
        for i in range(6):
            picture(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


def whole(folder, **fields):
    return load(DataConfig("image_folder", str(folder), **fields))


def said(folder, **fields):
    lines = []
    load(DataConfig("image_folder", str(folder), **fields), lines.append)
    return lines


def test_a_folder_per_class_is_a_data_set_with_sorted_names(folder):
    data = whole(folder)
    assert data.class_names == ("cat", "dog", "emu")
    test = load_test(DataConfig("image_folder", str(folder)))
    assert [len(part.y) for part in (data.train, data.valid, test)] == [12, 3, 3]
    every = np.concatenate([data.train.x, data.valid.x, test.x])
    labels = np.concatenate([data.train.y, data.valid.y, test.y])
    for k, name in enumerate(data.class_names):
        own = {np.asarray(Image.open(file)).tobytes() for file in (folder / name).iterdir()}
        assert {image.tobytes() for image in every[labels == k]} == own


def test_folders_of_parts_are_kept_apart(folder, tmp_path):
    for part, kept in (("train", CLASSES), ("val", CLASSES[:2]), ("test", CLASSES)):
        for name in kept:
            shutil.copytree(folder / name, tmp_path / "parts" / part / name)
    picture(tmp_path / "parts" / "val" / "cat" / "own.png")
    data = whole(tmp_path / "parts")
    assert (len(data.train.y), len(data.valid.y)) == (18, 13)
    assert len(load_test(DataConfig("image_folder", str(tmp_path / "parts"))).y) == 18
    for name in ("valid", "validation"):
        (tmp_path / "parts" / "val").rename(tmp_path / "parts" / name)
        assert len(whole(tmp_path / "parts").valid.y) == 13
        (tmp_path / "parts" / name).rename(tmp_path / "parts" / "val")
    with pytest.raises(ValueError, match=r"data\.valid_size has no effect on image_folder"):
        whole(tmp_path / "parts", valid_size=3)
    picture(tmp_path / "parts" / "test" / "yak" / "0.png")
    with pytest.raises(ValueError, match="yak is a class that train/ does not have"):
        whole(tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "test")
    picture(tmp_path / "parts" / "yak" / "0.png")
    with pytest.raises(ValueError, match="has yak/ beside train/, which is no part"):
        whole(tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "train")
    with pytest.raises(ValueError, match="has val/ but no train/"):
        whole(tmp_path / "parts")


def test_a_class_may_be_called_test(folder):
    (folder / "emu").rename(folder / "test")
    assert whole(folder).class_names == ("cat", "dog", "test")


def test_images_of_different_sizes_are_asked_about(folder):
    picture(folder / "emu" / "wide.png", 6, 9)
    with pytest.raises(ValueError, match=r"wide\.png is 6x9 pixels, .*0\.png 6x6; write --set data\.resize=N"):
        whole(folder)
    assert whole(folder, resize=4).train.x.shape[1:] == (4, 4, 3)
    (line,) = said(folder, resize=4)
    assert line.startswith("1 of 19 images are no squares and are stretched to squares") and "wide.png is 6x9" in line


def test_gray_and_coloured_images_together_are_rgb(folder):
    gray = picture(folder / "emu" / "gray.png", mode="L")
    data = whole(folder, valid_size=1)
    assert data.train.x.shape[-1] == 3
    assert said(folder)[0].startswith("1 of 19 training images are gray") and said(folder)[0].endswith("read as RGB")
    every = np.concatenate([data.train.x, data.valid.x, load_test(DataConfig("image_folder", str(folder))).x])
    assert gray.repeat(3).tobytes() in {image.tobytes() for image in every}


def test_gray_images_alone_have_one_channel(tmp_path):
    for name in ("train/a", "train/b", "test/a"):
        for i in range(6):
            picture(tmp_path / name / f"{i}.jpg", mode="L")
    assert whole(tmp_path).train.x.shape[1:] == (6, 6, 1)
    picture(tmp_path / "test" / "a" / "colour.png")
    with pytest.raises(ValueError, match=r"colour\.png is coloured, but all training images are gray"):
        load_test(DataConfig("image_folder", str(tmp_path)))


def test_other_files_are_left_out_aloud(folder):
    (folder / "README.txt").write_text("mine")
    (folder / ".DS_Store").write_text("hidden")
    (folder / "cat" / "a.csv").write_text("")
    (folder / "cat" / "b.csv").write_text("")
    lines = said(folder)
    assert len(lines) == 2
    assert lines[0].endswith("README.txt: no images, left out")
    assert lines[1].endswith("a.csv and 1 others: no images, left out")


WRONG = {
    "no folder": (lambda root: shutil.rmtree(root), "there is no folder"),
    "no classes": (lambda root: [shutil.rmtree(root / name) for name in CLASSES], "has no folders of a class"),
    "one class": (lambda root: [shutil.rmtree(root / name) for name in CLASSES[1:]], "has 1 folder of a class"),
    "an empty class": (lambda root: (root / "yak").mkdir(), "yak has no image files; fill it or delete it"),
    "a stray image": (lambda root: picture(root / "x.png"), r"x\.png is an image in no folder of a class"),
    "folders in a class": (lambda root: picture(root / "cat" / "a" / "x.png"), "a is a folder in the fold"),
    "another format": (lambda root: (root / "cat" / "x.heic").write_text(""), r"x\.heic is of a format"),
    "no image": (lambda root: (root / "cat" / "x.png").write_text("no"), r"x\.png cannot be read as an image"),
    "16 bits": (
        lambda root: Image.fromarray(np.zeros((6, 6), np.uint16)).save(root / "cat" / "x.png"),
        "16 bits a channel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_such_folder_is_refused_in_a_line(folder, name):
    spoil, message = WRONG[name]
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        whole(folder)
    assert "\n" not in str(error.value)


def test_the_folder_must_be_given():
    with pytest.raises(FileNotFoundError, match="--data_dir is missing; give --data_dir=FOLDER with a folder"):
        load(DataConfig("image_folder"))


# -- a CSV -------------------------------------------------------------------------------------------------------------


def table(path, rows, head=("file", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path)


def rows_of(label, folder="set"):
    return [(f"{folder}/{name}/{i}.png", label(name, i)) for name in CLASSES for i in range(6)]


def task_of(path, **fields):
    return catalog.source(path).task_of(DataConfig(path, **fields))


def test_a_csv_lists_files_and_classes(folder, tmp_path):
    path = table(tmp_path / "a.csv", rows_of(lambda name, i: name))
    data, same = load(DataConfig(path)), whole(folder)
    assert data.class_names == same.class_names and task_of(path) == "classification"
    assert {(x.tobytes(), int(y)) for x, y in zip(*data.train, strict=True)} <= {
        (np.asarray(Image.open(file)).tobytes(), k)
        for k, name in enumerate(sorted(CLASSES))
        for file in (folder / name).iterdir()
    }
    numbered = load(DataConfig(table(tmp_path / "n.csv", rows_of(lambda name, i: 7 * CLASSES.index(name)))))
    assert numbered.class_names == ("0", "7", "14")
    padded = load(DataConfig(table(tmp_path / "p.csv", rows_of(lambda name, i: f"{CLASSES.index(name):03}"))))
    assert padded.class_names == ("000", "001", "002")  # names, as their zeros would be lost


def test_files_are_relative_to_the_csv_or_to_data_dir(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    path = table(tmp_path / "lists" / "a.csv", rows_of(lambda name, i: name))
    with pytest.raises(
        FileNotFoundError, match=r"a\.csv: row 2: no such file: .*lists/set/dog/0\.png; .* to the CSV's"
    ):
        load(DataConfig(path))
    assert load(DataConfig(path, str(tmp_path))).classes == 3
    assert load(DataConfig("lists/a.csv", str(tmp_path))).classes == 3
    with pytest.raises(FileNotFoundError, match=r"relative to --data_dir; give its whole path"):
        load(DataConfig("b.csv", str(tmp_path)))


def test_a_column_may_tell_the_part(folder, tmp_path):
    parts = ("train", "Train", "train", "val", "valid", "test")
    rows = [(*row, parts[i % 6]) for i, row in enumerate(rows_of(lambda name, i: name))]
    path = table(tmp_path / "a.csv", rows, ("File", "label", "split"))
    data = load(DataConfig(path))
    assert (len(data.train.y), len(data.valid.y), len(load_test(DataConfig(path)).y)) == (9, 6, 3)
    path = table(tmp_path / "b.csv", [*rows, ("set/dog/0.png ", "yak", "test")], ("file", "label", "split"))
    with pytest.raises(ValueError, match="rows 2 and 20 name the same file"):
        load(DataConfig(path))
    picture(folder / "yak.png")
    path = table(tmp_path / "c.csv", [*rows, ("set/yak.png", "yak", "test")], ("file", "label", "split"))
    with pytest.raises(ValueError, match="split test holds yak, a class that the training part does not have"):
        load(DataConfig(path))  # before the search that would end there


def test_numbers_with_fractions_are_values(folder, tmp_path):
    path = table(tmp_path / "a.csv", rows_of(lambda name, i: 100 + 2.5 * i))
    data = load(DataConfig(path))
    assert task_of(path) == "regression" and (data.classes, data.class_names) == (1, ("value",))
    assert data.train.y.dtype == np.float32 and abs(data.train.y.mean()) < 1e-6
    assert set(np.round(data.train.y * data.scale[1] + data.scale[0], 3)) <= {100 + 2.5 * i for i in range(6)}
    path = table(tmp_path / "b.csv", rows_of(lambda name, i: f"{i % 3}.0"))
    with pytest.raises(ValueError, match=r"whole numbers as float64: classes or values\? .*target=class"):
        task_of(path)
    assert [task_of(path, target=target) for target in ("class", "value")] == ["classification", "regression"]


BAD = {
    "no label": (["file,name", "a.png,1"], r"has no column 'label' \(it has file, name\)"),
    "nothing": ([], r"has no column 'file' \(it has nothing\)"),
    "semicolons": (["file;label", "a.png;1"], r"has no column 'file' \(it has file;label\)"),
    "a short row": (["file,label", "set/dog/0.png"], "row 2 has 1 columns, the first line 2"),
    "an empty label": (["file,label", "set/dog/0.png,"], "row 2 has no label"),
    "another split": (["file,label,split", "set/dog/0.png,a,dev"], "row 2 has the split 'dev'; write train, valid or"),
    "nothing to train on": (["file,label,split", "set/dog/0.png,a,test"], "has no rows to train on"),
    "one class": (["file,label", "set/dog/0.png,a"], "label holds fewer than two classes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_such_csv_is_refused_in_a_line(folder, tmp_path, name):
    lines, message = BAD[name]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    with pytest.raises(ValueError, match=message):
        load(DataConfig(str(tmp_path / "a.csv")))


def test_further_columns_are_left_out_aloud(folder, tmp_path):
    lines = []
    rows = [(*row, 1) for row in rows_of(lambda name, i: name)]
    load(DataConfig(table(tmp_path / "a.csv", rows, ("file", "label", "age"))), lines.append)
    assert lines == [f"{tmp_path}/a.csv: columns age are not read"]


def test_settings_of_other_data_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"data\.target has no effect on image_folder"):
        whole(folder, target="class")
    with pytest.raises(ValueError, match=r"data\.channels has no effect on .*a\.csv"):
        load(DataConfig(table(tmp_path / "a.csv", rows_of(lambda name, i: name)), channels="first"))
    with pytest.raises(ValueError, match="target must be one of ask, class, value"):
        DataConfig(target="guess")
