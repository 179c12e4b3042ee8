"""A network with the weights of a search, trained on for a few epochs before it is tested.

Cai et al. 2020 (once-for-all, arXiv:1908.09791), section 4, fine-tune the networks that they take out for 25 or 75
epochs. Here with a tenth of the retraining's learning rate where none is given (ours), and otherwise by its recipe.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nasjax.drive.retrain import trained_one
from nasjax.drive.streams import streams
from nasjax.problem.problem import Problem
from nasjax.settings import as_json
from nasjax.store import checkpoint
from nasjax.train.augment import require_suited
from nasjax.train.fit import measured, resident, training, valid_name
from nasjax.train.recipe import Recipe, identity, require_batch
from nasjax.types import PyTree, Watch


class Tuned(NamedTuple):
    """What a fine-tuning came to."""

    variables: PyTree
    tested: float  # the metric on the test part
    facts: dict[str, Any]  # for result.json


def recipe_of(problem: Problem, epochs: int, learning_rate: float | None, bn_eps: float) -> Recipe:
    """The retraining's recipe for `epochs` from given weights. Raises ValueError where it does not fit the data."""
    if epochs < 1:
        raise ValueError(f"--finetune_epochs={epochs}: give at least 1, or leave it out for the weights of the search")
    if learning_rate is not None and not learning_rate > 0:
        raise ValueError(f"--finetune_rate={learning_rate:g} must be positive")
    own: Recipe = problem.config.retrain_recipe
    rate = own.learning_rate / 10 if learning_rate is None else learning_rate
    # A warm-up is for weights that are new, and a longer training's would outlast this one.
    found = dataclasses.replace(own, epochs=epochs, learning_rate=rate, warmup_epochs=0, bn_eps=bn_eps)
    require_suited(found.augment, problem.data.train.x.shape[1:], "retrain_recipe.augment")
    require_batch(found.batch_size, len(problem.data.train.y), "retrain_recipe.batch_size")
    return found


def finetuned(
    problem: Problem, arch: dict[str, Any], variables: PyTree, recipe: Recipe, folder: Path, watch: Watch
) -> Tuned:
    """Trains a network on, on the training part, and tests it.

    A killed training goes on from its last saved epoch, or begins again; a finished one is not repeated.

    Args:
      arch: as JSON.
      variables: that it begins with.
      recipe: see `recipe_of`.
      folder: of the network; trainings lie in training/HASH, by their settings.

    Raises:
      RunError: the loss became NaN, or the disk is full.
    """
    task, data = problem.task, resident(problem.data)
    key = streams(problem.config.seed).retrain
    what = [identity(as_json(recipe)), problem.config.seed, arch, problem.data.sha256]
    own = folder / "training" / hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    own.mkdir(parents=True, exist_ok=True)
    if known := [name for kind in ("parts", "epochs") for name in checkpoint.numbered(own / kind)]:
        done = int(max(known))
        watch.say(
            "it was fine-tuned before" if done >= recipe.epochs else f"its fine-tuning goes on after epoch {done}"
        )
    built = problem.build(np.asarray(problem.space.decode(arch), np.int32))
    found, history = trained_one(key, built, recipe, data, task, own, lambda: None, watch, 0, variables)
    test = problem.test()
    last = training(built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype), recipe, data, task, found, None)
    tested = float(measured(last, found, None, test.x, test.y, data, task))
    facts = {"epochs": recipe.epochs, "learning_rate": recipe.learning_rate, "recipe": as_json(recipe)}
    return Tuned(found, tested, facts | {valid_name(task): history[valid_name(task)][-1], "history": history})
