"""What a retraining would refuse is refused before the search that it follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nasjax import catalog
from nasjax.commands.configuration import configure
from nasjax.drive.foresight import require_samples, require_trainable, tried_forms
from nasjax.problem.problem import Problem
from nasjax.settings import names
from nasjax.types import Built

_FEW = 5  # steps of an epoch, below which a training is said to have few
# Numbers of a recipe that every network is trained by.
_ANY = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "drops", "warmup_epochs", "clip")


def _asks(recipe: Any) -> dict[str, Any]:
    """What a recipe may ask of a network or of the data."""
    return {name: value for name, value in vars(recipe).items() if name not in _ANY}


def require_settings(problem: Problem, samples: bool) -> None:
    """Raises ValueError for settings of a retraining that contradict others, or the method.

    `samples`: whether the method has paths of a supernet, which retrain.sample trains.
    """
    config = problem.config
    if config.data.seed_protocol and config.retrain.part == "all":
        raise ValueError(
            "retrain.part=all trains on the validation part, which data.seed_protocol tests on; write "
            "--set retrain.part=train"
        )
    if config.retrain.sample and not samples:
        raise ValueError(f"retrain.sample trains paths of a supernet; {config.method} has none: leave it out")
    if config.retrain.grid:
        problem.formed(tried_forms(config.retrain))


def require_retraining(problem: Problem, samples: bool, built: Built | None = None) -> None:
    """Raises ValueError where what a search finds could not be trained as the settings say.

    The data are read. A preset as it is shipped was tried by others, so only what the user has put together is tried
    here, for a second or two, on a network of the space; or on `built`, the one that was found. `samples` as of
    `require_settings`.
    """
    config = problem.config
    if problem.looked_up:
        return
    require_settings(problem, samples)
    require_samples(config.retrain_recipe, problem.data, config.retrain)
    shipped = configure(config.method, config.preset, config.data.name, config.space.name)
    usual = problem.builder.datasets[config.preset != "demo"] == config.data.name and config.data.resize is None
    recipes = [name for name in ("recipe", "retrain_recipe")[built is not None :] if name in names(config)]
    if usual and config.form == shipped.form:
        recipes = [name for name in recipes if _asks(getattr(config, name)) != _asks(getattr(shipped, name))]
    own = catalog.is_own("space", config.space.name)
    for name in recipes:
        require_trainable(built or problem.some(), problem.data, problem.task, getattr(config, name), name, own=own)


def few_steps(problem: Problem, *parts: str) -> Iterator[str]:
    """A line for each of these settings whose batch is so large for the images that an epoch has few steps.

    `parts` are fields of the configuration: "recipe", "search", "supernet", "retrain_recipe". The data are read.
    """
    for name in parts:
        recipe = getattr(problem.config, name, None)
        size = getattr(recipe, "batch_size", None)
        if recipe is None or size is None or problem.looked_up or problem.data.train.x.ndim != 4:
            continue
        count = len(problem.data.train.y)
        steps, smaller = count // size, 1 << max((count // _FEW).bit_length() - 1, 0)
        if 0 < steps < _FEW and 1 < smaller < size:
            yield (
                f"{name}: {count} training samples in batches of {size} are {_times(steps, 'step')} an epoch, "
                f"{_times(steps * recipe.epochs, 'step')} in all; for more write --set {name}.batch_size={smaller}"
            )


def _times(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
