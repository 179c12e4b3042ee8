"""Training the architecture a search found, from scratch, and testing it once.

Zoph & Le 2017, section 4.1: take the best by validation accuracy, optionally a small grid over learning rate, weight
decay, batch-norm epsilon and the epoch of the decay, train to convergence, test. The grid's values are ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import model
from nasjax.building.built import Built, build
from nasjax.data.dataset import load, load_test
from nasjax.experiments.families.candidates import RetrainConfig, shape_of
from nasjax.experiments.published import published
from nasjax.settings import as_json
from nasjax.store import checkpoint, workdir
from nasjax.store.checkpoint import RunError
from nasjax.train.fit import fit, resident
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, TrainState, trainer
from nasjax.types import Key, PyTree

_SAVE_S = 60.0  # a training is saved when so many seconds have passed


def retrain(config: Any, trees: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    """Trains architectures from scratch in `path`, tests the best once, writes its weights and result.json.

    A killed training goes on from its last saved epoch; a finished one is not trained or tested again.

    Args:
      config: its retrain_recipe and retrain settings count; its data settings name the data; its space contains the
        architecture.
      trees: the architectures as JSON; the best by validation accuracy is tested.
      path: an opened workdir.

    Returns:
      What result.json holds.

    Raises:
      ValueError: wrong settings or architecture.
      RunError: the loss became NaN, or the disk is full.
    """
    data = load(config.data)
    image, classes = shape_of(data)
    candidates = [build(config, tree, image, classes) for tree in trees]
    settings = {name: as_json(getattr(config, name)) for name in ("data", "retrain_recipe", "retrain", "seed")}
    del settings["retrain"]["top_k"], settings["retrain"]["sample"]

    def folder_of(*builts: Built) -> Path:
        # The plan is the architecture as it is compiled, extra filters and poolings included.
        what = [{**settings, "plan": ", ".join(repr(built.plan) for built in builts)}, data.sha256]
        return path / "retrain" / hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]

    folder, result_file = folder_of(*candidates), path / "result.json"
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text())
        print(f"already trained and tested with these settings (in {folder})", file=sys.stderr)
        shutil.rmtree(path / "model", ignore_errors=True)
        shutil.copytree(folder / "model", path / "model")
        checkpoint.write_json(result_file, result)
        return result
    folder.mkdir(parents=True, exist_ok=True)
    key_grid, key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1))
    arrays = resident(data)
    trained, seconds = [], 0.0
    for n, built in enumerate(candidates, 1):
        if len(candidates) > 1:
            print(f"architecture {n} of {len(candidates)}", file=sys.stderr)
        own, recipe = folder_of(built), config.retrain_recipe
        own.mkdir(exist_ok=True)
        clock = _clock(own)
        if built.learning_rate is not None and config.retrain.use_token:
            recipe = dataclasses.replace(recipe, learning_rate=built.learning_rate)
        if config.retrain.grid:
            recipe = _grid(key_grid, config.retrain, recipe, built, arrays, own, clock)
        variables, history = _train(key, built, recipe, arrays, own, clock)
        seconds += clock()
        trained.append((history["valid_accuracy"][-1], built, recipe, jax.device_get(variables), history))
    _, built, recipe, variables, history = max(trained, key=lambda found: found[0])
    began = time.monotonic()
    test = load_test(config.data)
    network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    accuracy = jax.jit(trainer(network, recipe, len(data.train.y), variables).accuracy)
    tested = accuracy(variables, None, jnp.asarray(test.x), jnp.asarray(test.y), arrays.mean, arrays.std)
    result = {
        "arch": built.arch,
        "params": built.params,
        "macs": built.macs,
        "test_accuracy": float(tested),
        "test_images": len(test.y),
        "valid_accuracy": history["valid_accuracy"][-1],
        "train_loss": history["train_loss"][-1],
        "dataset": {"name": data.name, "image": list(image), "train": len(data.train.y), "sha256": data.sha256},
        "recipe": as_json(recipe),
        "seconds": round(seconds + time.monotonic() - began, 3),
        "history": history,
        **({"candidates": [{"arch": b.arch, "valid_accuracy": v} for v, b, *_ in trained]} if len(trained) > 1 else {}),
        "published": published(config),
        **workdir.environment(),
    }
    names = (data.class_names, data.mean, data.std, recipe.bn_eps)
    description = model.describe(config, built.arch, image, str(data.train.x.dtype), *names)
    for place in (folder, path):
        model.save(place, variables, description)
    checkpoint.write_json(folder / "result.json", result)
    checkpoint.write_json(result_file, result)
    return result


def _clock(folder: Path) -> Callable[[], float]:
    """Seconds that all parts of a training have taken so far; every call writes them down in `folder`."""
    file, began = folder / "seconds.json", time.monotonic()
    before = json.loads(file.read_text()) if file.exists() else 0.0

    def clock() -> float:
        seconds = before + time.monotonic() - began
        checkpoint.write_json(file, seconds)
        return seconds

    return clock


def _train(
    key: Key, built: Built, recipe: Recipe, data: Data, folder: Path, clock: Callable[[], float]
) -> tuple[PyTree, dict[str, list[float]]]:
    """`fit` with checkpoints and a line per epoch."""
    network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    blank = network.init(jax.random.key(0), None, jnp.zeros((1, *data.train_x.shape[1:]), jnp.float32))
    found = checkpoint.latest(folder / "epochs", trainer(network, recipe, len(data.train_y), blank).start(blank))
    saved = time.monotonic()

    def on_epoch(epoch: int, state: TrainState) -> None:
        nonlocal saved
        at = min(epoch, recipe.epochs) - 1
        what = f"epoch {epoch}/{recipe.epochs}: loss {float(state.train_loss[at]):.4f}"
        if epoch > recipe.epochs:
            what = "running statistics refreshed"
        print(f"{what}, validation accuracy {float(state.valid_accuracy[at]):.2%}", file=sys.stderr, flush=True)
        clock()
        if time.monotonic() - saved > _SAVE_S or epoch == recipe.epochs + recipe.refresh_epochs:
            checkpoint.save(folder / "epochs", f"{epoch:06d}", state)
            saved = time.monotonic()

    variables, history = fit(
        key, network, data, recipe, state=found[1] if found else None, devices=None, on_epoch=on_epoch
    )
    if not np.isfinite(history["train_loss"][-1]):
        raise RunError(
            f"the loss became NaN in epoch {len(history['train_loss'])}; "
            f"try a smaller rate, --set retrain.use_token=false --set "
            f"retrain_recipe.learning_rate={recipe.learning_rate / 10:g}"
        )
    return variables, history


def _grid(
    key: Key,
    grid: RetrainConfig,
    recipe: Recipe,
    built: Built,
    data: Data,
    folder: Path,
    clock: Callable[[], float],
) -> Recipe:
    """The recipe of the best validation accuracy; every setting is trained with the same key, and written down."""
    file = folder / "grid.jsonl"
    done = {json.dumps(row["setting"]): row["valid_accuracy"] for row in checkpoint.read_lines(file)}
    checkpoint.truncate_lines(file, len(done))
    axes = (grid.grid_learning_rates, grid.grid_weight_decays, grid.grid_bn_eps, grid.grid_decays)
    best, chosen = -1.0, recipe
    for n, (rate, decay, eps, drop) in enumerate(itertools.product(*axes), 1):
        # The second drop keeps its distance to the end: half of what follows the first.
        changes: dict[str, Any] = {
            "learning_rate": rate,
            "weight_decay": decay,
            "bn_eps": eps,
            "drops": (drop, (1 + drop) / 2),
        }
        name = json.dumps(json.loads(json.dumps(changes)))
        if name not in done:
            short = dataclasses.replace(recipe, epochs=grid.grid_epochs, **changes)
            network = built.network(bn_eps=eps, dtype=recipe.dtype)
            _, history = fit(key, network, data, short)
            accuracy = history["valid_accuracy"][-1] if np.isfinite(history["train_loss"][-1]) else -1.0
            done[name] = accuracy
            checkpoint.append_lines(file, [{"setting": json.loads(name), "valid_accuracy": accuracy}])
            clock()
            total = np.prod([len(axis) for axis in axes])
            print(f"grid {n}/{total}: validation accuracy {accuracy:.2%} with {name}", file=sys.stderr, flush=True)
        if done[name] > best:
            best, chosen = done[name], dataclasses.replace(recipe, **changes)
    if best < 0:
        raise RunError("every setting of the grid gave NaN; set smaller --set retrain.grid_learning_rates=...")
    return chosen
