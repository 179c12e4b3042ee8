"""A network with the weights of a search, trained on for a few epochs before it is tested.

Cai et al. 2020 (once-for-all, arXiv:1908.09791), section 4, fine-tune the networks that they take out for 25 or 75
epochs. Here with a tenth of the retraining's learning rate where none is given (ours), and otherwise by its recipe.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nasjax.drive.retrain import trained_one
from nasjax.drive.streams import streams
from nasjax.settings import as_json
from nasjax.store import checkpoint
from nasjax.train.augment import require_suited
from nasjax.train.fit import measured, resident, training, valid_name
from nasjax.train.recipe import Recipe, identity, require_batch
from nasjax.types import Built, PyTree, Task, Watch


class Tuned(NamedTuple):
    """What a fine-tuning came to."""

    variables: PyTree
    tested: float  # the metric on the test part
    facts: dict[str, Any]  # for result.json


def recipe_of(own: Recipe, data: Any, epochs: int, learning_rate: float | None, bn_eps: float) -> Recipe:
    """The retraining's recipe for `epochs` from given weights.

    Args:
      own: that of the retraining.
      data: a `data.dataset.Dataset`.
      epochs: of the fine-tuning.
      learning_rate: its initial one; None = a tenth of the retraining's.
      bn_eps: of the network that is given.

    Raises:
      ValueError: a value out of its range, or a recipe that does not fit the data.
    """
    if epochs < 1:
        raise ValueError(f"--finetune_epochs={epochs}: give at least 1, or leave it out for the weights of the search")
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise ValueError(f"--finetune_rate={learning_rate:g} must be positive and finite")
    rate = own.learning_rate / 10 if learning_rate is None else learning_rate
    # A warm-up is for weights that are new, and a longer training's would outlast this one.
    found = dataclasses.replace(own, epochs=epochs, learning_rate=rate, warmup_epochs=0, bn_eps=bn_eps)
    require_suited(found.augment, data.train.x.shape[1:], "retrain_recipe.augment")
    require_batch(found.batch_size, len(data.train.y), "retrain_recipe.batch_size")
    return found


def finetuned(
    seed: int,
    built: Built,
    variables: PyTree,
    recipe: Recipe,
    data: Any,
    test: Any,
    task: Task,
    folder: Path,
    decided: dict[str, Any],
    watch: Watch,
) -> Tuned:
    """Trains a network on, on the training part, and tests it.

    A killed training goes on from its last saved epoch, or begins again; a finished one is not repeated.

    Args:
      seed: of the run.
      built: the network.
      variables: that it begins with.
      recipe: see `recipe_of`.
      data, test: the `data.dataset.Dataset`, and the test part.
      task: of the network.
      folder: of the network; trainings lie in training/HASH, by their settings.
      decided: what else decides a training, for that HASH.
      watch: where progress goes.

    Raises:
      RunError: the loss became NaN, or the disk is full.
    """
    what = [identity(as_json(recipe)), seed, repr(built.plan), built.arch, data.sha256, decided]
    own = folder / "training" / hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    own.mkdir(parents=True, exist_ok=True)
    arrays, valid = resident(data), valid_name(task)
    if known := [name for kind in ("parts", "epochs") for name in checkpoint.numbered(own / kind)]:
        done, last = int(max(known)), recipe.epochs + recipe.refresh_epochs
        watch.say("it was fine-tuned before" if done >= last else f"its fine-tuning goes on after epoch {done}")
    key = streams(seed).retrain
    found, history = trained_one(
        key, built, recipe, arrays, task, own, lambda: 0.0, watch, 0, variables, slower="--finetune_rate="
    )
    network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    last_of = training(network, recipe, arrays, task, found, None)
    tested = float(measured(last_of, found, None, test.x, test.y, arrays, task))
    facts = {"epochs": recipe.epochs, "learning_rate": recipe.learning_rate, "recipe": as_json(recipe)}
    return Tuned(jax.device_get(found), tested, facts | {valid: history[valid][-1], "history": history})
