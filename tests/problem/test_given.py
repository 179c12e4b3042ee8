"""What a preset is made for: the recipe of the last training, of every family."""

import dataclasses

import pytest

from nasjax import commands


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
