"""What `--preset=paper` says of the last training, by the papers: on which samples, how long, with which grid."""

import dataclasses

import jax
import numpy as np
import pytest

from nasjax import catalog, commands
from nasjax.commands import retraining
from nasjax.commands.configuration import compared
from nasjax.data.dataset import DataConfig, joined
from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments import reinforce
from nasjax.problem.data import load
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.types import Metric

FAMILY = ("darts", "drnas", "gdas", "msr_darts", "pc_darts", "p_darts")


ALL_IMAGES = [(method, None) for method in (*FAMILY, "spos", "fairnas", "bn_nas")]
ALL_IMAGES += [(method, "tabular_cell") for method in ("random", "reinforce", "topk", "evolution", "darts", "spos")]
ALL_IMAGES += [(method, "darts_cell") for method in ("random", "reinforce", "topk", "evolution")]


@pytest.mark.parametrize(("method", "space"), ALL_IMAGES)
def test_the_last_training_is_on_all_images_of_the_training_set(method, space):
    """Liu et al. 2019, section 3.2: the search halves the training set, the evaluation does not.

    So with the benchmark's cells, whose results are those of training on all 50,000 (Dong & Yang 2020).
    """
    assert commands.configure(method, "paper", None, space).retrain.part == "all"
    assert commands.configure(method, "demo", None, space).retrain.part == "train"


@pytest.mark.parametrize("method", [*catalog.METHODS])
def test_a_published_figure_says_how_many_images_it_was_trained_on(method):
    """So that a smaller training set is told beside it; where the source says (ImageNet's methods: not run here)."""
    config = commands.configure(method, "paper")
    published = commands.published(config)
    if published is None or published["dataset"] == "imagenet" or "unlike" in published:
        return
    whole = {"cifar10": 50_000 if config.retrain.part == "all" else 45_000}.get(published["dataset"])
    if whole:
        assert published["train"] == whole
    told = retraining._unlike(config, {"dataset": {"train": 2000}}, published)
    assert told == f"; trained on {published['train']:,} samples, ours on 2,000: not comparable"


@pytest.mark.parametrize(
    ("dataset", "there"), [("digits", True), ("cifar10", True), ("image_folder", False), ("mine.npz", False)]
)
def test_a_published_figure_stands_beside_its_own_data_or_a_demos(dataset, there):
    """Not beside results on images of one's own."""
    problem, row = Problem(commands.configure("random", dataset=dataset)), {"dataset": "cifar10", "test_error": 0.03}
    assert retraining._comparable(row, Metric("accuracy"), problem) == (row if there else None)
    assert retraining._comparable(row, Metric("iou"), problem) is None


def test_the_controllers_winner_is_tried_on_a_small_grid():
    """Zoph & Le 2017, section 4.1."""
    assert commands.configure("reinforce", "paper").retrain.grid
    assert not commands.configure("reinforce", "demo").retrain.grid
    assert not commands.configure("random", "paper").retrain.grid


def test_the_best_cell_is_tried_on_the_grid_of_section_4_2():
    config = commands.configure("reinforce_rnn", "paper")
    grid = config.retrain
    tried = {name for name in vars(grid) if name.startswith("grid_") and isinstance(getattr(grid, name), tuple)}
    tried = {name for name in tried if len(getattr(grid, name)) > 1}
    assert grid.grid and tried == {"grid_learning_rates", "grid_decays", "grid_init_scales", "grid_dropouts"}
    assert config.form.dropout in grid.grid_dropouts and config.retrain_recipe.learning_rate in grid.grid_learning_rates
    # Zaremba et al. 2014, medium: the rate is constant for 6 epochs, then divided by 1.2 after each
    assert config.recipe.drops[0] == 6 / 35 and config.recipe.drop_factor == 1 / 1.2 and config.recipe.epochs == 35
    assert not commands.configure("reinforce_rnn", "demo").retrain.grid


@pytest.mark.slow
def test_the_controller_of_recurrent_cells_waits_for_ten_gradients():
    """Zoph & Le 2017, section 4.2: rate 5e-4, one child per replica, gradients of 10 replicas in one update."""
    search = commands.configure("reinforce_rnn", "paper").search
    assert (search.learning_rate, search.samples_per_update, search.accumulate) == (5e-4, 1, 10)
    state = reinforce.searcher(Problem(commands.configure("reinforce_rnn", "paper"))).init(jax.random.key(0))
    assert "MultiStepsState" in str(jax.tree.structure(state.optimizer))
    with pytest.raises(ValueError, match="accumulate at least 1"):
        dataclasses.replace(search, accumulate=0)


def test_the_joined_parts_are_all_samples_once():
    split = load(DataConfig())
    whole = joined(split)
    assert len(whole.train.y) == len(split.train.y) + len(split.valid.y) == 1500
    np.testing.assert_array_equal(whole.valid.x, split.valid.x)
    np.testing.assert_allclose(
        whole.mean, whole.train.x.mean((0, 1, 2)) / (255 if split.train.x.dtype == np.uint8 else 1)
    )
    assert whole.mean != split.mean


@pytest.mark.slow
def test_what_was_trained_on_is_told_beside_the_published_figure(tmp_path):
    """One epoch of a tiny network, on the search's part and on both."""
    config = override(
        commands.configure("random"), "retrain_recipe.epochs=1", "data.train_limit=64", "data.valid_limit=32"
    )
    layer = '{"filter_height": 1, "filter_width": 1, "num_filters": 24, "inputs": []}'
    arch = f'{{"space": "conv_chain", "layers": [{layer}]}}'
    sizes = []
    for part in ("train", "all"):
        done = commands.retrain(override(config, f"retrain.part={part}"), tmp_path / part, arch, progress=False)
        sizes.append(done.result["dataset"]["train"])
    assert sizes == [64, 96]
    published = {"dataset": "digits", "train": 1500}
    assert retraining._unlike(config, done.result, published) == (
        "; trained on 1,500 samples, ours on 96: not comparable"
    )
    assert retraining._unlike(config, done.result, {**published, "train": 96}) == ""
    assert "other data" in retraining._unlike(config, done.result, {"dataset": "cifar10"})


def test_all_samples_leave_none_to_choose_by():
    with pytest.raises(ValueError, match=r"write retrain.part=train"):
        RetrainConfig(part="all", top_k=2)
    with pytest.raises(ValueError, match="must be train or all"):
        RetrainConfig(part="test")


def test_msr_darts_on_imagenet():
    """The article's 300 epochs and cosine are the evaluation's; the search keeps the release's 50."""
    config = commands.configure("msr_darts", "paper", "imagenet")
    assert (config.search.epochs, config.search.layers, config.form.layers) == (50, 14, 14)
    recipe = config.retrain_recipe
    assert (recipe.epochs, recipe.schedule, recipe.warmup_epochs) == (300, "cosine", 10)
    darts = commands.configure("darts", "paper", "imagenet").retrain_recipe
    assert dataclasses.replace(recipe, epochs=250, schedule="exponential", warmup_epochs=0) == darts


def test_the_articles_protocol():
    """Its baseline stands beside a retrained UNet++, its best beside every other graph."""
    config = commands.configure("evolution", "article")
    assert (config.recipe.epochs, config.retrain_recipe.epochs, config.search.population) == (120, 240, 100)
    assert (config.preset, config.data.name, config.data.seed_protocol) == ("article", "nuclei_folder", True)
    assert (config.space.min_params, config.space.max_params) == (500_000, 20_000_000)
    named = catalog.builder("resolution_graph").named
    rows = [commands.published(config, arch) for arch in (named["UNETPP"], named["UNET"])]
    assert [(row["test_iou"], row["params"]) for row in rows] == [(0.843, 9_163_329), (0.868, None)]
    assert rows[0]["model"] == "UNet++, 240 epochs" and "not comparable" in retraining._unlike(config, {}, rows[0])
    assert [row["test_iou"] for row in compared(config)] == [0.868, 0.843]
    assert compared(commands.configure("evolution")) == compared(commands.configure("darts", "paper")) == []
    with pytest.raises(ValueError, match="choose demo, paper or article"):
        commands.configure("evolution", "paper_v2")
    with pytest.raises(ValueError, match="unknown preset 'article'"):
        commands.configure("evolution", "article", None, "conv_chain")


def test_files_of_large_images_are_judged_by_their_middle_and_cut_at_random():
    """As in the releases, whatever the data set; not in a demo, nor on small images."""
    for method, jitter in (("spos", 0.0), ("darts", 0.2)):
        config = commands.configure(method, "paper", "image_folder", resize=224)
        assert (config.data.fit, config.retrain_recipe.augment.crop) == ("crop", "resized")
        assert config.retrain_recipe.augment.jitter == (0.4, 0.4, 0.4, jitter)
        for preset, side in (("demo", 224), ("paper", 32)):
            other = commands.configure(method, preset, "image_folder", resize=side)
            assert other.data.fit is None and other.retrain_recipe.augment.crop != "resized"
    assert commands.configure("spos", "paper", "imagenet").data.fit is None  # it is so by itself
