"""What a preset is made for: the recipe of the last training, of every family."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from nasjax import catalog, commands
from nasjax.data.image_side import side_of
from nasjax.problem.problem import Problem


@pytest.mark.parametrize("method", ["random", "topk", "evolution", "spos", "fairnas"])
def test_a_demo_of_transformers_retrains_by_their_recipe(method):
    """Under SGD with a rate of 0.1 they stay at chance."""
    config = commands.configure(method, "demo", None, "vit_chain")
    recipe = config.retrain_recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.epochs) == ("adamw", 1e-3, 20)
    published = commands.configure(method, "paper", "cifar10", "vit_chain").retrain_recipe
    plain = ("epochs", "batch_size", "warmup_epochs", "augment")
    assert dataclasses.replace(recipe, **{name: getattr(published, name) for name in plain}) == published


def test_a_demo_of_plain_classifiers_retrains_by_the_methods_recipe():
    for method, space, epochs, schedule in (
        ("spos", "tabular_cell", 20, "linear"),
        ("darts", "darts_cell", 15, "cosine"),
    ):
        recipe = commands.configure(method, "demo", None, space).retrain_recipe
        assert (recipe.optimizer, recipe.epochs, recipe.schedule) == ("sgd", epochs, schedule)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An .npz of twelve images of 224x224 in three classes, and a folder of two of 160x140."""
    folder = tmp_path_factory.mktemp("images")
    np.savez_compressed(folder / "a.npz", x=np.zeros((12, 224, 224, 3), np.uint8), y=np.arange(12) % 3)
    for name in ("one", "two"):
        (folder / "classes" / name).mkdir(parents=True)
        Image.new("RGB", (160, 140)).save(folder / "classes" / name / "x.png")
    return folder


def test_how_large_images_are_is_told_without_reading_them(images):
    npz, folder = str(images / "a.npz"), str(images / "classes")
    source = {name: catalog.source(name) for name in (npz, "image_folder", "cifar10", "imagenet", "ptb")}
    assert side_of(npz, source[npz]) == side_of("a.npz", source[npz], str(images)) == 224
    assert side_of("image_folder", source["image_folder"], folder) == 140
    assert side_of("image_folder", source["image_folder"], folder, resize=64) == 64
    assert side_of("image_folder", source["image_folder"]) is side_of("no.npz", source[npz]) is None
    assert [side_of(name, source[name]) for name in ("cifar10", "imagenet", "ptb")] == [32, 224, None]


@pytest.mark.parametrize(
    "method", ["darts", "pc_darts", "p_darts", "msr_darts", "gdas", "drnas", "spos", "fairnas", "bn_nas"]
)
def test_large_images_get_imagenets_settings_whatever_their_data_set(method, images):
    """All but the split, which depends on their number, and mirror images, which not all pictures have."""
    asked = commands.configure(method, "paper", "imagenet")
    for dataset, data_dir, resize in ((images / "a.npz", "", None), ("image_folder", images / "classes", 224)):
        config = commands.configure(method, "paper", str(dataset), data_dir=str(data_dir), resize=resize)
        same = {name: getattr(asked, name) for name in ("data", "augment", "retrain_recipe")}
        assert dataclasses.replace(config, **same) == asked
        assert commands.published(config) == commands.published(asked)
    assert commands.configure(method, "paper", "no.npz", side=224).form == asked.form
    small = commands.configure(method, "paper", "image_folder", data_dir=str(images / "classes"), resize=32)
    assert small.data.resize == 32 and small.form == commands.configure(method, "paper", "cifar10").form


@pytest.mark.parametrize(("method", "space"), [("darts", None), ("random", "darts_cell")])
def test_a_published_cell_builds_on_an_npz_of_large_images(method, space, images):
    config = commands.configure(method, "paper", str(images / "a.npz"), space)
    built = Problem(config).built(catalog.named("DARTS_V2"))
    assert built.macs < 530e6 and built.params == 4_718_752 - 997 * (4 * 48 * 4 + 1)


def test_a_transferred_cell_has_its_own_published_row():
    config = commands.configure("pc_darts", "paper", "imagenet")
    rows = [commands.published(config, catalog.named(name)) for name in ("PC_DARTS_cifar", "PC_DARTS_image")]
    assert [row["test_error"] for row in rows] == [0.251, 0.242]
    assert commands.published(commands.configure("pc_darts", "paper"))["test_error"] == 0.0257
