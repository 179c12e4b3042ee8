"""--mode=predict for classification: a file, a folder, arrays; and one clear line for everything else."""

import csv
import dataclasses
import json
import types
from collections import Counter

import jax
import numpy as np
import pytest
from PIL import Image

from nasjax import commands, launch, model
from nasjax.commands.configuration import configure, record_of
from nasjax.data.dataset import DataConfig, resize
from nasjax.problem.builders.conv_chain import BUILDER
from nasjax.problem.data import load
from nasjax.problem.problem import Problem
from nasjax.problem.saved import described
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.tasks.classification import TASK
from nasjax.tasks.images import read_images

SPACE = ConvChain(2, 2, (1, 3), (3,), (2, 4))


def trained(path, data):
    """A workdir with a network; its weights are random."""
    tree = SPACE.encode(np.asarray(SPACE.sample(jax.random.key(0))))
    signature = TASK.signature(data)
    network = BUILDER.build(SPACE, BUILDER.form, tree, signature).network(bn_eps=1e-5, dtype="float32")
    variables = network.init(jax.random.key(1), None, np.zeros((1, *data.train.x.shape[1:])))
    x = TASK.inputs(data.valid.x, data.mean, data.std)
    logits = network.apply(variables, None, x)[0]
    variables["params"]["head"]["bias"] = -np.asarray(logits.mean(0))  # so that classes differ

    config = dataclasses.replace(configure("random"), space=SPACE)
    path.mkdir()
    model.save(path, variables, described(Problem(config), tree, data, 1e-5))
    return path


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, digits):
    return trained(tmp_path_factory.mktemp("predict") / "run", digits)


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floats")
    x = np.random.default_rng(0).normal(size=(30, 8, 8, 1))
    np.savez(folder / "set.npz", x=x, y=np.arange(30) % 3)
    return trained(folder / "run", load(DataConfig(str(folder / "set.npz"))))


def read(file):
    rows = list(csv.DictReader(file.read_text().splitlines()))
    return [row["input"] for row in rows], [row["class"] for row in rows], np.array(
        [[float(value) for name, value in row.items() if name.startswith("p(")] for row in rows]
    )  # fmt: skip


def expected(path, x):
    found = model.load(path)
    p = np.asarray(jax.nn.softmax(found.apply(found.variables, x)))
    return [found.names[i] for i in p.argmax(1)], p


@pytest.mark.slow
def test_arrays_a_file_and_a_folder_give_the_same(workdir, digits, tmp_path):
    x = digits.valid.x[:5]
    classes, p = expected(workdir, x)
    assert len(set(classes)) > 1
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "flat.npz", x=x[..., 0])
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image[..., 0]).convert("RGB" if i % 2 else "L").save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no image")
    for source, names in (
        (tmp_path / "x.npz", list("01234")),
        (tmp_path / "flat.npz", list("01234")),
        (folder, [f"{i}.png" for i in range(5)]),
    ):
        (file,) = commands.predict(workdir, source, tmp_path / "out")
        assert file == tmp_path / "out/predictions.csv"
        found = read(file)
        assert found[:2] == (names, classes)
        np.testing.assert_allclose(found[2], p, atol=2e-6)
        assert found[2].shape == (5, 10)
    (file,) = commands.predict(workdir, folder / "3.png")
    assert file == workdir / "predict/predictions.csv"
    assert read(file)[:2] == (["3.png"], classes[3:4])


def test_an_image_of_another_size_is_resized_by_area_aloud(workdir, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (file,) = commands.predict(workdir, tmp_path / "wide.png", tmp_path)
    assert "1 of 1 images were resized by area to 8x8" in (said := capsys.readouterr().err) and "was 20x30" in said
    assert "1 of 1 images are in colour and are read as gray" in said and "1 input: 1 as " in said
    gray = np.asarray(Image.fromarray(pixels).convert("L"))[None, ..., None]
    classes, p = expected(workdir, resize(gray, 8, 8))
    assert read(file)[1] == classes
    np.testing.assert_allclose(read(file)[2], p, atol=2e-6)


@pytest.mark.slow
def test_a_model_of_floats_reads_arrays_of_floats(floats, tmp_path):
    x = np.random.default_rng(1).normal(size=(300, 8, 8, 1))
    np.savez(tmp_path / "x.npz", x=x)
    (file,) = commands.predict(floats, tmp_path / "x.npz", tmp_path)
    classes, p = expected(floats, x.astype(np.float32))
    assert read(file)[1] == classes and len(classes) == 300  # more than one batch
    np.testing.assert_allclose(read(file)[2], p, atol=2e-5)


def test_a_network_takes_what_it_was_trained_on(workdir, floats, digits):
    """By `Model.apply`, jitted or not: another type, rank, size or number of channels is one line."""
    found, x = model.load(workdir), digits.valid.x[:2]
    for bad, message in (
        (x.astype(np.int32), "x is int32, not uint8"),
        (x.astype(np.float32), "x is float32, not uint8"),
        (x[..., 0], r"x is \[N, 8, 8\], not \[N, 8, 8, 1\]"),
        (x[:, :6], r"x is \[N, 6, 8, 1\]"),
        (x.repeat(3, -1), r"x is \[N, 8, 8, 3\]"),
    ):
        for apply in (found.apply, jax.jit(found.apply)):
            with pytest.raises(ValueError, match=message):
                apply(found.variables, bad)
    of_floats = model.load(floats)
    with pytest.raises(ValueError, match="x is uint8, not float32"):
        of_floats.apply(of_floats.variables, x)
    with pytest.warns(UserWarning, match=r"x holds 0\.\.1000, the training part .* is it in the same units\?"):
        of_floats.apply(of_floats.variables, np.linspace(0, 1000, 64, dtype=np.float32).reshape(1, 8, 8, 1))


def test_arrays_in_other_units_are_asked_about(floats, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).normal(size=(20, 8, 8, 1)) * 255)
    with pytest.raises(ValueError, match=r"x holds .* the training part .*--set data\.same_units=true"):
        commands.predict(floats, tmp_path / "x.npz", tmp_path)
    assert commands.predict(floats, tmp_path / "x.npz", tmp_path, same_units=True)


def test_arrays_have_their_channels_where_those_of_the_training_had(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)
    network = types.SimpleNamespace(
        shape=(8, 8, 3), dtype="uint8", channels="first", range=(0.0, 255.0), crop_part=None
    )
    np.savez(tmp_path / "first.npz", x=x.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "last.npz", x=x)
    np.testing.assert_array_equal(read_images(tmp_path / "first.npz", network)[1], x)
    with pytest.raises(ValueError, match=r"x must be uint8 \[N, 3, 8, 8\], got uint8 \(30, 8, 8, 3\)"):
        read_images(tmp_path / "last.npz", network)


def test_files_are_in_the_units_of_the_training_too(tmp_path):
    """A network of digits 0..16 would read the pixels of a file, 0..255, as far too bright."""
    network = types.SimpleNamespace(shape=(8, 8, 1), dtype="uint8", channels="last", range=(0.0, 16.0), crop_part=None)
    Image.fromarray(np.full((8, 8), 250, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: holds 250\.\.250, the training part 0\.\.16"):
        read_images(tmp_path, network)
    network.range = (0.0, 100.0)  # of dark pictures; this one is bright
    assert read_images(tmp_path / "a.png", network)[1].max() == 250


def write(name):
    """Bad inputs by name, as functions of a folder; each returns what --input is."""

    def arrays(folder, **named):
        np.savez(folder / "x.npz", **named)
        return folder / "x.npz"

    def image(folder, pixels, file="a.png"):
        Image.fromarray(pixels).save(folder / file)
        return folder / file

    def within(folder, pixels):
        (folder / "cat").mkdir()
        return image(folder / "cat", pixels).parent.parent

    def text(folder, file, content):
        (folder / file).write_text(content)
        return folder / file

    def both(folder):
        image(folder, np.zeros((8, 8), np.uint8))
        text(folder, "b.png", "no image")
        return folder

    ok = np.zeros((2, 8, 8, 1), np.uint8)
    return {
        "missing": lambda folder: folder / "none.png",
        "missing arrays": lambda folder: folder / "none.npz",
        "empty": lambda folder: folder,
        "folders": lambda folder: within(folder, np.zeros((8, 8), np.uint8)),
        "text": lambda folder: text(folder, "a.txt", "hello"),
        "damaged": lambda folder: text(folder, "a.png", "hello"),
        "one of two": both,
        "16 bits": lambda folder: image(folder, np.zeros((8, 8), np.uint16)),
        "no archive": lambda folder: text(folder, "x.npz", "hello"),
        "no x": lambda folder: arrays(folder, images=ok),
        "objects": lambda folder: arrays(folder, x=np.array([None, "a"])),
        "shape": lambda folder: arrays(folder, x=ok[:, :7]),
        "one image": lambda folder: arrays(folder, x=ok[0, ..., 0]),
        "channels": lambda folder: arrays(folder, x=ok.repeat(3, -1)),
        "no images": lambda folder: arrays(folder, x=ok[:0]),
        "float": lambda folder: arrays(folder, x=ok / 255),
        "uint8": lambda folder: arrays(folder, x=ok),
        "int64": lambda folder: arrays(folder, x=ok.astype(int)),
        "strings": lambda folder: arrays(folder, x=ok.astype(str)),
        "NaN": lambda folder: arrays(folder, x=ok * np.nan),
        "image": lambda folder: image(folder, np.zeros((8, 8), np.uint8)),
    }[name]


SHAPE = r"x must be uint8 \[N, 8, 8, 1\], got"
WRONG = {
    "missing": "no such file or folder; give an image, a folder of images or an .npz",
    "missing arrays": "no such file or folder",
    "empty": r"has no image files \(\.png, ",
    "folders": "has images only in its folders; give one, such as .*/cat",
    "text": "is no image",
    "damaged": "cannot be read as an image",
    "one of two": r"b\.png cannot be read as an image",
    "16 bits": "convert it to 8 bits a channel",
    "no archive": "cannot be read as an .npz with an array x",
    "no x": "cannot be read as an .npz with an array x",
    "objects": "cannot be read as an .npz with an array x",
    "shape": rf"{SHAPE} uint8 \(2, 7, 8, 1\)",
    "one image": SHAPE,
    "channels": SHAPE,
    "no images": rf"{SHAPE} uint8 \(0, 8, 8, 1\)",
    "float": f"{SHAPE} float64",
    "int64": f"{SHAPE} int64",
}
FLOAT_SHAPE = r"x must be float32 \[N, 8, 8, 1\], got"
WRONG_FLOATS = {
    "missing": "no such file or folder",
    "missing arrays": "no such file or folder",
    "image": "was trained on float32 arrays; give --input=FILE.npz with x",
    "uint8": f"{FLOAT_SHAPE} uint8",
    "int64": f"{FLOAT_SHAPE} int64",
    "strings": f"{FLOAT_SHAPE} <U",
    "NaN": "x holds NaN or infinite values",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_is_one_line(workdir, tmp_path, name):
    with pytest.raises(ValueError, match=WRONG[name]) as error:
        commands.predict(workdir, write(name)(tmp_path), tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WRONG_FLOATS)
def test_a_wrong_input_of_a_model_of_floats_is_one_line(floats, tmp_path, name):
    with pytest.raises(ValueError, match=WRONG_FLOATS[name]) as error:
        commands.predict(floats, write(name)(tmp_path), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_the_command(workdir, digits, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=digits.valid.x[:3])
    settings = record_of(commands.configure("random"), {})  # as a search leaves them
    (workdir / "config.json").write_text(json.dumps(settings))
    flags = ["nasjax", "--mode=predict", f"--workdir={workdir}", "--compile_cache=off"]
    assert launch.main([*flags, f"--input={tmp_path}/x.npz"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == f"{workdir}/predict/predictions.csv"
    rows = list(csv.DictReader((workdir / "predict" / "predictions.csv").read_text().splitlines()))
    counts = Counter(row["class"] for row in rows)
    (line,) = [line for line in told.err.splitlines() if line.startswith("3 inputs: ")]
    assert {*line.removeprefix("3 inputs: ").split(", ")} == {f"{count} as {name}" for name, count in counts.items()}
    assert launch.main([*flags, f"--input={tmp_path}/x.npz", "--set=data.same_units=true"]) == 0
    capsys.readouterr()
    for more, message in (
        ([f"--input={tmp_path}/none.png"], "no such file or folder"),
        ([], "--input=FILE|FOLDER belongs to --mode=predict, which needs it"),
        ([f"--input={tmp_path}/x.npz", "--set=data.resize=8"], "--set data.resize has no effect with --mode=predict"),
    ):
        assert launch.main([*flags, *more]) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1 and message in told[0]
    for name, message in (
        ("new", "needs the --workdir=DIR of a retrained search"),
        ("searched", "--mode=retrain --workdir="),
    ):
        if name == "searched":
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text(json.dumps(settings))
        assert launch.main([*flags[:2], f"--workdir={tmp_path / name}", f"--input={tmp_path}/x.npz", flags[3]]) == 2
        assert message in capsys.readouterr().err
