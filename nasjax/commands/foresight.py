"""What a retraining would refuse is refused before the search that it follows."""

from __future__ import annotations

from nasjax import catalog
from nasjax.commands.configuration import configure
from nasjax.drive.foresight import require_trainable
from nasjax.drive.retrain import tried_forms
from nasjax.problem.problem import Problem
from nasjax.settings import names
from nasjax.types import Built, Experiment


def require_settings(problem: Problem, experiment: Experiment) -> None:
    """Raises ValueError for settings of a retraining that contradict others, or the method."""
    config = problem.config
    if config.data.seed_protocol and config.retrain.part == "all":
        raise ValueError(
            "retrain.part=all trains on the validation part, which data.seed_protocol tests on; write "
            "--set retrain.part=train"
        )
    if config.retrain.sample and experiment.before_retrain is None:
        raise ValueError(f"retrain.sample trains paths of a supernet; {config.method} has none: leave it out")
    if config.retrain.grid:
        problem.formed(tried_forms(config.retrain))


def require_retraining(problem: Problem, experiment: Experiment, built: Built | None = None) -> None:
    """Raises ValueError where what a search finds could not be trained as the settings say.

    The data are read. A preset as it is shipped was tried by others, so only what the user has put together is tried
    here, for a second or two, on a network of the space; or on `built`, the one that was found.
    """
    config = problem.config
    if problem.looked_up:
        return
    require_settings(problem, experiment)
    shipped = configure(config.method, config.preset, None, config.space.name)
    recipes = [name for name in ("recipe", "retrain_recipe")[built is not None :] if name in names(config)]
    if config.data.name == shipped.data.name and config.form == shipped.form:
        recipes = [name for name in recipes if getattr(config, name) != getattr(shipped, name)]
    own = catalog.is_own("space", config.space.name)
    for name in recipes:
        require_trainable(built or problem.some(), problem.data, problem.task, getattr(config, name), name, own=own)
