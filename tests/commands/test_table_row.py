"""The last line of a published setting's retraining."""

import dataclasses

import pytest

from nasjax import commands
from nasjax.commands.retraining import _comparable, _told
from nasjax.commands.table_row import changed, table_row
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.types import Metric

ACCURACY = Metric("accuracy")


def result(config, **more):
    found = {"test_accuracy": 0.971, "test_loss": 0.13, "test_samples": 10_000, "params": 3_349_342}
    found["dataset"] = {"name": config.data.name, "train": 50_000}
    return found | {"published": commands.published(config)} | more


def test_a_row_has_ours_the_published_one_and_why_they_differ():
    config = commands.configure("darts", "paper")
    assert table_row(config, result(config), ACCURACY, "") == (
        "Row: ours test accuracy 97.10% with 3,349,342 parameters; published test accuracy 97.24% with 3.3M (DARTS, "
        "second order, 20 cells of 36 channels: Liu et al. 2019, Table 1); differs: one seed of the preset's settings, "
        "of which docs/deviations.md tells what is ours."
    )


def test_a_row_tells_what_was_reduced_or_changed():
    config = commands.configure("darts", "paper")
    wide = override(config, "form.channels=40")
    assert table_row(wide, result(wide), ACCURACY, "").endswith(
        "; differs: settings and, in brackets, the preset's: form.channels=40 (36)."
    )
    short = override(config, "search.epochs=2", "retrain_recipe.epochs=3", "form.channels=40", "data.train_limit=64")
    assert changed(dataclasses.replace(short, seed=3)) == [
        "data.train_limit=64 (none)",
        "retrain_recipe.epochs=3 (600)",
        "search.epochs=2 (50)",
        "form.channels=40 (36)",
    ]
    row = table_row(short, result(short), ACCURACY, "trained on 50,000 samples, ours on 64: not comparable")
    assert "; not comparable: trained on 50,000 samples, ours on 64; settings and" in row


@pytest.mark.parametrize(
    ("method", "arch", "figures"),
    [
        ("pc_darts", None, "75.80%, 92.70% among the best five with 5.3M"),
        ("fairnas", "FAIRNAS_C", "74.70%, 92.10% among the best five with 4.4M"),
        ("msr_darts", "MSRDARTS", "76.10% with 5.6M"),
        ("drnas", None, "76.30% with 5.7M"),
        ("spos", "SPOS_RELEASED", "74.40%, 92.00% among the best five with 3.56M"),
        ("bn_nas", "SPOS_IN_BN_NAS", "75.39%, 92.44% among the best five with 5.78M"),
    ],
)
def test_rows_of_imagenet(method, arch, figures):
    """The share among the best five, too, and a known architecture's own figure."""
    config = commands.configure(method, "paper", "imagenet")
    tree = None if arch is None else commands.inspect(config, arch)["arch"]
    found = result(config, published=commands.published(config, tree), test_top5_accuracy=0.9)
    row = table_row(config, found, ACCURACY, "")
    assert "Row: ours test accuracy 97.10%, 90.00% among the best five with" in row and f"accuracy {figures} (" in row


def test_a_loss_stands_beside_a_published_one_and_no_figure_is_made_up():
    config = commands.configure("msr_darts", "paper")
    assert "97.10%, loss 0.130 with" in table_row(config, result(config), ACCURACY, "")
    own = commands.configure("spos", "paper", "cifar10")
    assert "; published: nothing for spos on cifar10; differs: " in table_row(
        own, result(own, published=None), ACCURACY, ""
    )


def test_only_published_settings_end_in_a_row(tmp_path):
    lines = {}
    for preset in ("demo", "paper"):
        config = commands.configure("darts", preset, "cifar10")
        lines[preset] = list(_told(config, tmp_path, result(config), ACCURACY))
    assert lines["paper"][-1].startswith("Row: ") and not any(line.startswith("Row: ") for line in lines["demo"])
    assert sum(line.startswith("Published on cifar10") for line in (*lines["demo"], *lines["paper"])) == 1


def test_the_articles_figures_stand_beside_its_preset_and_not_beside_a_demo_of_own_images():
    for preset, there in (("article", True), ("demo", False)):
        config = commands.configure("evolution", preset, "nuclei_folder")
        found = _comparable(commands.published(config), Metric("iou"), Problem(config))
        assert (found is not None) == there
