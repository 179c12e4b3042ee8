"""Training the architecture a search found, from scratch, and testing it once.

Zoph & Le 2017: take the best by validation, optionally a small grid, train to convergence, test. Section 4.1 has
learning rate, weight decay, batch-norm epsilon and the epoch of the decay in its grid for images, section 4.2 learning
rate, initial weights, dropout and the epoch of the decay for recurrent cells. The grid's values are ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from nasjax.drive import grid
from nasjax.drive.epochs import Epochs
from nasjax.drive.heartbeat import far
from nasjax.drive.pace import Pace, left_words
from nasjax.drive.pictures import take
from nasjax.drive.streams import streams
from nasjax.settings import as_json
from nasjax.store import checkpoint, unfinished
from nasjax.store.checkpoint import RunError
from nasjax.train import activity
from nasjax.train.augment import require_suited
from nasjax.train.fit import fit, in_parts, measured, resident, sample_of, training, valid_name
from nasjax.train.recipe import Recipe, identity, require_batch
from nasjax.train.scoring import with_further, with_loss
from nasjax.train.step import Data, example
from nasjax.types import Built, Key, PyTree, Runtime, Task, Watch

SAVE_S = 60.0  # seconds between checkpoints of a training


# Dimensions of the grid, each with the setting it tries: of the recipe, or else of the network's form.
AXES = (
    ("grid_learning_rates", "learning_rate"),
    ("grid_weight_decays", "weight_decay"),
    ("grid_bn_eps", "bn_eps"),
    ("grid_decays", "drops"),
    ("grid_init_scales", "init_scale"),
    ("grid_dropouts", "dropout"),
)


@dataclass(frozen=True)
class RetrainConfig:
    """`--mode=retrain`: training from scratch.

    A dimension of the grid without values stays as the recipe or the network's form has it.

    Attributes:
      part: what it trains on: "train", the search's training part; or "all", that and the validation part, as papers
        do once the search is over. The validation metric is then of samples that were trained on. It must be "train"
        with data.seed_protocol, which tests on the validation part.
      top_k: how many of the search's best are trained; the best of them by the validation metric is tested.
      sample: how many paths of a supernet are trained alone, to see how well the search's scores rank them
        (standalone.jsonl). They are the first trials, which were drawn at random.
      grid, grid_epochs: whether a small grid of settings is tried on validation data first, and for how many epochs
        each.
      grid_learning_rates, grid_weight_decays, grid_bn_eps: values to try of the recipe's settings.
      grid_decays: values to try of the first of the recipe's drops; the others keep their share of what follows.
      grid_init_scales, grid_dropouts: values to try, of networks whose form has an init_scale or a dropout.
      use_token: take the learning rate that the architecture predicts, where its space has one.
    """

    part: Literal["train", "all"] = "train"
    top_k: int = 1
    sample: int = 0
    grid: bool = False
    grid_epochs: int = 10
    grid_learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    grid_weight_decays: tuple[float, ...] = (5e-5, 1e-4, 2e-4)
    grid_bn_eps: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    grid_decays: tuple[float, ...] = (0.4, 0.5, 0.6)
    grid_init_scales: tuple[float, ...] = ()
    grid_dropouts: tuple[float, ...] = ()
    use_token: bool = True

    def __post_init__(self) -> None:
        if self.grid and not any(getattr(self, name) for name, _ in AXES):
            raise ValueError(f"a grid needs values for one of {', '.join(name for name, _ in AXES)}")
        if not all(0 <= rate < 1 for rate in self.grid_dropouts) or not all(
            scale > 0 for scale in self.grid_init_scales
        ):
            raise ValueError("rates in grid_dropouts must lie in [0, 1), grid_init_scales must be positive")
        if self.grid_epochs < 1 or self.top_k < 1 or self.sample < 0:
            raise ValueError("grid_epochs and top_k must be at least 1, sample not negative")
        if self.part not in ("train", "all"):
            raise ValueError(f"retrain.part must be train or all, got {self.part!r}")
        if self.part == "all" and self.top_k > 1:
            raise ValueError("retrain.part=all leaves no samples to choose among top_k by; write retrain.part=train")


PICTURES = "pictures.npz"  # of the tested network, in the job's folder


class Job(NamedTuple):
    """What is to be trained, on what, and how."""

    builts: Sequence[Built]  # the best of them by the validation metric is tested
    data: Any  # `data.dataset.Dataset`, training and validation parts, on which a grid is tried
    final: Any  # the parts that `settings.part` selects, for the training itself
    test: Callable[[], Any]  # reads the test part; called once, before training, so that unreadable data wastes none
    task: Task
    recipe: Recipe
    settings: RetrainConfig
    seed: int
    facts: dict[str, Any]  # JSON that tells one job from another, beside recipe, settings, seed and architectures
    # (arch, settings of its network's form) -> it with these settings; ValueError for one that the form lacks
    formed: Callable[[dict[str, Any], dict[str, Any]], Built] | None = None
    # workers that try the points of a grid, for as long as there are any; None = this process does
    runtime: Callable[[], AbstractContextManager[Runtime | None]] = nullcontext


class Winner(NamedTuple):
    """The network that was tested."""

    built: Built
    recipe: Recipe
    variables: PyTree
    form: dict[str, Any]  # settings of the network's form that the grid chose


def finished(job: Job, workdir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The folder and result.json of the same job, where it was trained and tested before."""
    folder = _folder(job, workdir, job.builts)
    file = folder / "result.json"
    return (folder, json.loads(file.read_text())) if file.exists() else None


def retrain(job: Job, workdir: Path, watch: Watch) -> tuple[Path, dict[str, Any], Winner]:
    """Trains architectures from scratch in `workdir`, and tests the best once.

    A killed training resumes from its last saved epoch.

    Args:
      job: what to train.
      workdir: an opened workdir.
      watch: where progress and records go.

    Returns:
      The job's folder, the content of its result.json, and the trained network. The caller writes both.

    Raises:
      ValueError: the recipe's augmentation would leave little of the images, or a batch is more than all of them.
      RunError: the loss became NaN, or the disk is full.
    """
    folder, data, task = _folder(job, workdir, job.builts), job.final, job.task
    require_suited(job.recipe.augment, data.train.x.shape[1:], "retrain_recipe.augment")
    require_batch(job.recipe.batch_size, len(data.train.y), "retrain_recipe.batch_size")
    folder.mkdir(parents=True, exist_ok=True)
    keys = streams(job.seed)
    arrays, valid = resident(data), valid_name(task)
    trained, seconds, test = [], 0.0, job.test()
    for n, built in enumerate(job.builts, 1):
        if len(job.builts) > 1:
            watch.say(f"architecture {n} of {len(job.builts)}")
        own, recipe, form = _folder(job, workdir, [built]), job.recipe, dict[str, Any]()
        own.mkdir(exist_ok=True)
        clock = _clock(own)
        if built.learning_rate is not None and job.settings.use_token:
            recipe = dataclasses.replace(recipe, learning_rate=built.learning_rate)
        if job.settings.grid:
            recipe, form = _grid(keys.grid, job, recipe, built, own, clock, watch)
            built = _formed(job, built, form)
        more = len(job.builts) - n
        variables, history = trained_one(keys.retrain, built, recipe, arrays, task, own, clock, watch, more)
        seconds += clock()
        trained.append((history[valid][-1], built, recipe, jax.device_get(variables), history, form))
    _, built, recipe, variables, history, form = max(trained, key=lambda found: task.metric.sign * found[0])
    began = time.monotonic()
    network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    known = with_loss(with_further(task))
    last = training(network, recipe, arrays, known, variables, None)
    found, test_loss = measured(last, variables, None, test.x, test.y, arrays, known)
    further = dict(found)
    tested = further.pop("metric")
    take(folder / PICTURES, task, built, recipe, variables, test, data, "After retraining")
    result = {
        "arch": built.arch,
        "params": built.params,
        "macs": built.macs,
        "metric": task.metric._asdict(),
        f"test_{task.metric.name}": float(tested),
        **{f"test_{name}": float(value) for name, value in further.items()},
        "test_loss": float(test_loss),
        "test_samples": len(test.y),
        valid: history[valid][-1],
        "train_loss": history["train_loss"][-1],
        "recipe": as_json(recipe),
        **({"form": form} if form else {}),
        "seconds": round(seconds + time.monotonic() - began, 3),
        "history": history,
        **({"candidates": [{"arch": b.arch, valid: v} for v, b, *_ in trained]} if len(trained) > 1 else {}),
    }
    return folder, result, Winner(built, recipe, variables, form)


def _folder(job: Job, workdir: Path, builts: Sequence[Built]) -> Path:
    # The plan is the architecture as compiled, with its extra filters and poolings.
    settings = as_json(job.settings)
    del settings["top_k"], settings["sample"]
    plans = ", ".join(repr((built.plan, built.learning_rate)) for built in builts)
    key = np.asarray(jax.random.key_data(streams(job.seed).retrain)).tolist()
    what = [job.facts, identity(as_json(job.recipe)), settings, key, plans, job.data.sha256]
    return workdir / "retrain" / hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _clock(folder: Path) -> Callable[[], float]:
    """Seconds that a training has taken so far, over all resumed parts; every call saves them in `folder`."""
    file, began = folder / "seconds.json", time.monotonic()
    before = json.loads(file.read_text()) if file.exists() else 0.0

    def clock() -> float:
        seconds = before + time.monotonic() - began
        checkpoint.write_json(file, seconds)
        return seconds

    return clock


def trained_one(
    key: Key,
    built: Built,
    recipe: Recipe,
    data: Data,
    task: Task,
    folder: Path,
    clock: Callable[[], float],
    watch: Watch,
    more: int,
    begin: PyTree = None,
    slower: str = "--set retrain.use_token=false --set retrain_recipe.learning_rate=",
) -> tuple[PyTree, dict[str, list[float]]]:
    """`fit` with checkpoints in `folder` and a line per epoch; the last one is kept, so that a repeated call is done.

    Args:
      clock: called when there is something to save.
      more: trainings like this one that follow.
      begin: the variables that it begins with; None = new ones.

    Raises:
      RunError: the loss became NaN, or the disk is full.
    """
    network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    blank = network.init(jax.random.key(0), None, example(network, sample_of(data, task)))
    start = training(network, recipe, data, task, blank, None).start(blank if begin is None else begin)
    epochs = folder / ("parts" if in_parts(network, recipe, task, None) else "epochs")
    found = checkpoint.latest(epochs, start)
    state = found[1] if found else None if begin is None else start
    saved, metric = time.monotonic(), task.metric
    place = Epochs(watch, (recipe.epochs + recipe.refresh_epochs,), int(found[0]) if found else 0, more=more)

    def on_epoch(epoch: int, state: Any) -> None:
        nonlocal saved
        at = min(epoch, recipe.epochs) - 1
        what = f"epoch {epoch}/{recipe.epochs}: loss {float(state.train_loss[at]):.4f}"
        if epoch > recipe.epochs:
            what = "running statistics refreshed"
        curves = {"train_loss": state.train_loss, valid_name(task): state.valid_metric}
        watch.record({"epoch": epoch, **{name: float(curve[at]) for name, curve in curves.items()}})
        left = place.ended(epoch)
        watch.say(f"{what}, validation {metric.name} {metric.shown(float(state.valid_metric[at]))}{left}")
        place.estimate()
        clock()
        if time.monotonic() - saved > SAVE_S or epoch == recipe.epochs + recipe.refresh_epochs:
            checkpoint.save(epochs, f"{epoch:06d}", state)
            saved = time.monotonic()

    activity.doing("training")
    with far(place.words):
        variables, history = fit(key, network, data, recipe, task, state=state, devices=None, on_epoch=on_epoch)
    activity.doing("testing")
    if not all(np.isfinite(curve[-1]) for curve in history.values()):
        raise RunError(
            f"the loss or the {metric.name} became NaN in epoch {len(history['train_loss'])}; "
            f"try a smaller rate, {slower}{recipe.learning_rate / 10:g}"
        )
    return variables, history


def _formed(job: Job, built: Built, form: dict[str, Any]) -> Built:
    if not form:
        return built
    if job.formed is None:
        raise ValueError(f"the networks of {built.arch['space']} have no setting {', '.join(form)} for a grid to try")
    return job.formed(built.arch, form)


def _grid(
    key: Key,
    job: Job,
    recipe: Recipe,
    built: Built,
    folder: Path,
    clock: Callable[[], float],
    watch: Watch,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the settings of the form with the best validation metric.

    Every setting is trained with the same key, and recorded.
    """
    metric, valid = job.task.metric, valid_name(job.task)
    file = folder / "grid.jsonl"
    done = {json.dumps(row["setting"]): row[valid] for row in checkpoint.read_lines(file)}
    checkpoint.truncate_lines(file, len(done))
    axes = {setting: values for name, setting in AXES if (values := getattr(job.settings, name))}
    all_of = grid.points(axes, key, built, recipe, job.settings.grid_epochs, folder)
    total, todo = len(all_of), [point for point in all_of if point.name not in done]
    unfinished.keep(folder, [point.number for point in todo])
    with job.runtime() if todo else nullcontext() as runtime:
        workers = 1 if runtime is None else runtime.workers

        def later(count: int, compiled_s: float, rest_s: float) -> float:
            return count * (compiled_s + rest_s)

        pace = Pace(total, len(done), later=later, workers=workers)

        work = None
        if todo and runtime is None:
            work = grid.trial(job.data, job.task, lambda arch, form: _formed(job, built, form), SAVE_S)
        for point, value, seconds in grid.tried(todo, work, runtime):
            done[point.name] = value
            checkpoint.append_lines(file, [{"setting": point.setting, valid: value}])
            clock()
            pace.reached(len(done))
            if not pace.measured:
                pace.first(1, seconds, None)
            shown, left = metric.shown(value), left_words(pace.left())
            watch.say(f"grid {point.number}/{total}: validation {metric.name} {shown} with {point.name}{left}")
    known = [point for point in all_of if done[point.name] is not None]
    if not known:
        raise RunError("every setting of the grid gave NaN; set smaller --set retrain.grid_learning_rates=...")
    best = max(known, key=lambda point: metric.sign * done[point.name])  # the first of equal ones
    return best.recipe, best.form
