"""The first two phases of a one-shot method as the command runs them: the supernet, then the search in it."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nasjax.drive.epochs import Epochs
from nasjax.drive.heartbeat import far
from nasjax.drive.learn import Progress, learn
from nasjax.drive.pace import Pace, first_line, left_words
from nasjax.drive.progress import progress
from nasjax.drive.rows import scalar_fitness
from nasjax.drive.search import search
from nasjax.drive.streams import streams
from nasjax.drive.work import worker
from nasjax.evaluators.path_training import trained_alone
from nasjax.experiments.families.own_weights import inherited
from nasjax.experiments.families.settings import closing, front_line, nothing_left, refusal
from nasjax.experiments.families.supernets import OneShot, describe, parts
from nasjax.problem.problem import Problem
from nasjax.runtime.inline import inline
from nasjax.searchers.additive import best_path
from nasjax.settings import as_json
from nasjax.store import checkpoint
from nasjax.train import activity
from nasjax.train.augment import require_suited
from nasjax.train.fit import resident
from nasjax.train.recipe import identity
from nasjax.types import Budget, Experiment, Key, Learner, Metric, Outcome, Proposal, PyTree, Stages, Watch

__all__ = ["describe", "make", "run", "standalone", "supernet"]


def make(problem: Problem) -> Experiment:
    """The method that a problem's settings describe; its functions raise as `supernets.parts`, which reads the data."""
    built = functools.cache(lambda: parts(problem))
    return Experiment(
        problem.config,
        lambda: built().facts,
        run=lambda path, watch, runtime: run(built(), path, watch),
        before_retrain=lambda path, watch: standalone(built(), path, problem.config.retrain.sample, watch),
        inherited=lambda path, rows, watch: inherited(built(), supernet(built(), path, watch), rows),
    )


def run(experiment: OneShot, path: Path, watch: Watch) -> Outcome:
    """Runs or resumes both phases in the opened workdir `path`.

    The supernet lives in `path/supernet` (metrics.jsonl, checkpoints); the search beside it like any other. Each goes
    on where it stopped; --trials=0 ends after the supernet. Where the score is a sum over layers, optimum.json holds
    the provably best path next to what the evolution finds.

    Returns:
      What the search came to; no best after the supernet alone.
    """
    config = experiment.config
    state = supernet(experiment, path, watch)
    if not config.trials:
        line = f"The supernet is trained: {path}/supernet. The same command with --trials=N searches in it."
        return Outcome(None, experiment.metric, 0, 0, 0.0, (line,))
    if config.search.score == "indicator":
        _optimum(experiment, state, path)
    budget = Budget(trials=config.trials)
    done = len(checkpoint.read_lines(path / "trials.jsonl"))
    activity.doing("search", "preparing")
    with progress(budget, experiment.metric, watch, done=done) as on_told:
        summary = search(
            streams(config.seed).search,
            experiment.searcher,
            inline(worker(experiment.evaluator(state), path)),
            workdir=path,
            budget=budget,
            width=config.search.population,
            describe=experiment.describe,
            refuse=refusal(config),
            nothing_left=nothing_left(config),
            on_told=on_told,
            record=watch.record,
        )
    outcome = closing(experiment.problem, path, summary, experiment.metric)
    if not config.supernet.distill:
        return outcome
    return outcome._replace(lines=(*outcome.lines, front_line(config, path)))


def supernet(experiment: OneShot, path: Path, watch: Watch) -> PyTree:
    """The first phase: the state of the trained supernet, which is there at once when it was trained before."""
    folder = path / "supernet"
    folder.mkdir(exist_ok=True)
    done, config = len(checkpoint.read_lines(folder / "metrics.jsonl")), experiment.config
    whole = "for the supernet; its search is measured once it begins" if config.trials else "in all"
    epochs = Epochs(watch, (config.supernet.epochs,), done, whole=whole)
    stages = experiment.stages
    if config.init_from and not checkpoint.numbered(folder / "checkpoints"):
        stages = _begun(experiment, folder, watch)
    activity.doing("supernet", "compiling the first step")
    with far(epochs.words):
        end = learn(
            streams(config.seed).supernet,
            stages,
            experiment.batches,
            workdir=folder,
            metrics=("train_loss", f"train_{experiment.problem.task.metric.name}"),
            history=_history(experiment),
            on_epoch=_told(watch, experiment.problem.task.metric, epochs),
            on_step=epochs.step,
            record_line=watch.record,
        )
    return end.state


def _begun(experiment: OneShot, folder: Path, watch: Watch) -> Stages:
    """The stages of the training, begun with other weights; what was taken is told, and kept in init_from.json."""
    source, begin = experiment.config.init_from, experiment.begin()

    def learner(stage: int, facts: Any) -> Learner:
        plain = experiment.stages.learner(stage, facts)

        def init(key: Key, batch: PyTree) -> PyTree:
            state = plain.init(key, batch)
            found = begin({"params": state.params, "batch_stats": state.batch_stats})
            told = {"from": source, "taken": found.taken, "fresh": found.fresh, "left": found.left}
            with checkpoint.writing(folder):
                checkpoint.write_json(folder / "init_from.json", told)
            anew = f"{len(found.fresh)} begun anew ({', '.join(found.fresh)})" if found.fresh else "none begun anew"
            watch.say(f"{source}: {len(found.taken)} arrays taken, {anew}, {len(found.left)} left; see {folder}")
            return state._replace(**found.variables)

        return plain._replace(init=init)

    return experiment.stages._replace(learner=learner)


def standalone(experiment: OneShot, path: Path, count: int, watch: Watch) -> None:
    """Trains the first `count` trials of a finished search alone, and writes their scores and what they came to.

    Those of the first generation were drawn at random. standalone.jsonl has a line per path; a killed run goes on.

    Raises:
      ValueError: the search has fewer trials.
    """
    config, task, file = experiment.config, experiment.problem.task, path / "standalone.jsonl"
    if count > config.search.population:
        raise ValueError(
            f"retrain.sample={count}, but only the first {config.search.population} trials were drawn at random; "
            "sample no more, or search with a larger search.population"
        )
    rows = [row for row in checkpoint.read_lines(path / "trials.jsonl") if row["status"] == "ok"][:count]
    if len(rows) < count:
        raise ValueError(f"retrain.sample={count}, but {path} has {len(rows)} trials; search first, or sample fewer")
    network = experiment.shared.network(dtype=config.retrain_recipe.dtype)
    require_suited(config.retrain_recipe.augment, experiment.problem.data.train.x.shape[1:], "retrain_recipe.augment")
    evaluator = trained_alone(network, resident(experiment.problem.data), task, recipe=config.retrain_recipe)
    key = streams(config.seed).standalone
    settings = [identity(as_json(config.retrain_recipe)), as_json(config.form), experiment.facts["dataset"]]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    found = checkpoint.read_lines(file)
    known = len(found) if all(line.get("settings") == digest for line in found) else 0  # another recipe: anew
    checkpoint.truncate_lines(file, known)
    pace = Pace(count, known)

    def trained(what: activity.Trained) -> None:
        pace.reached(pace.done + 1)
        if not pace.measured:
            pace.first(what.number, what.seconds, what.compiled_s, what.programs_s)
            whole = time.monotonic() - pace.began + (pace.left() or 0.0)
            watch.say(first_line("first path alone", what.seconds, what.compiled_s, whole, "for all of them"))

    for n, row in enumerate(rows[known:], known):
        arch = config.space.decode(row["arch"])
        one = Proposal(jnp.array([row["id"]]), jnp.asarray(arch)[None], jnp.array([-1]))
        with activity.listening(trained), far(functools.partial("path {} of {}".format, n + 1, count)):
            evaluation, _ = evaluator.evaluate(key, one, None)
        fitness, seconds = float(evaluation.fitness[0]), float(evaluation.cost[0])
        line = {
            "arch": row["arch"],
            "score": scalar_fitness(row),
            task.metric.name: task.metric.value(fitness) if np.isfinite(fitness) else None,
            "seconds": round(seconds, 3),
            "settings": digest,
        }
        checkpoint.append_lines(file, [line])
        watch.say(
            f"alone {n + 1}/{count}: score {line['score']:.4f}, {task.metric.name} {task.metric.text(fitness)}"
            f"{left_words(pace.left())}"
        )


def _history(experiment: OneShot) -> Callable[[int, Any, PyTree], dict[str, Any]]:
    """What an epoch's line says beside the loss."""
    scored = experiment.config.supernet.affine and experiment.supernet.scores is not None

    def history(stage: int, facts: Any, state: PyTree) -> dict[str, Any]:
        if not scored:
            return {}
        tau = float(state.tau)
        scores = np.round(np.asarray(state.scores, float), 5)
        return {"tau": tau if np.isfinite(tau) else None, "scores": scores[:, :-1].tolist()}

    return history


def _optimum(experiment: OneShot, state: PyTree, path: Path) -> None:
    """Writes optimum.json: the best path of all under the limit of multiply-adds, by exact search."""
    space, shared, config = experiment.config.space, experiment.shared, experiment.config
    others = (config.max_params, config.max_latency_ms, config.max_memory_mb)
    if shared.macs is None or any(limit is not None for limit in others):
        return  # the score says nothing of channels; other or more limits are no longer this knapsack
    m = len(space.operators)
    scores = np.asarray(state.scores, float).copy()
    allowed = np.array([[o < len(site.choices) for o in range(m + 1)] for site in space.sites])
    allowed[list(space.removed)] = np.arange(m + 1) == m
    scores[~allowed] = -np.inf
    found, score, macs = best_path(scores, shared.macs, config.max_macs, shared.fixed_macs)
    arch = np.where(np.isin(np.arange(space.layers), space.removed), -1, found)
    row = {**experiment.describe(arch), "fitness": score}
    assert row["macs"] == macs
    with checkpoint.writing(path):
        checkpoint.write_json(path / "optimum.json", row)


def _told(watch: Watch, metric: Metric, epochs: Epochs) -> Callable[[Progress], None]:
    def told(progress: Progress) -> None:
        row = progress.row
        tau = f", Kendall's tau of operator scores {row['tau']:.3f}" if row.get("tau") is not None else ""
        left = epochs.ended(progress.epoch)
        watch.say(
            f"supernet epoch {epochs.place(progress.epoch)}: training loss {row['train_loss']:.4f}, "
            f"{metric.name} {metric.shown(row[f'train_{metric.name}'])}{tau}, {progress.wall_s:.0f} s{left}"
        )
        epochs.estimate()

    return told
