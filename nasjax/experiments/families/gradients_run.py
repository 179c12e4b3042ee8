"""A search by gradients as the command runs it: the loop, its histories, and the cell that it derives."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.drive.epochs import Epochs
from nasjax.drive.heartbeat import far
from nasjax.drive.learn import Progress, learn
from nasjax.drive.streams import streams
from nasjax.experiments.families.gradients import Learning
from nasjax.experiments.families.settings import demo_line, next_line
from nasjax.experiments.families.true_results import lines, order_by_weights, with_truth
from nasjax.learners.stopping import stopped
from nasjax.problem.problem import Problem
from nasjax.store import checkpoint
from nasjax.train import activity
from nasjax.train.objective import objective
from nasjax.train.passes import validation
from nasjax.types import Experiment, Outcome, PyTree, Runtime, Watch

_TOGETHER = 32  # validation samples whose statistics a derived cell's batch norms use; a demo's batch


def experiment(problem: Problem, parts: Callable[[Problem], Learning]) -> Experiment:
    """The search that `parts(problem)` make up; they are made, and the data read, when something is asked for."""
    made = functools.cache(lambda: parts(problem))

    def run(path: Path, watch: Watch, runtime: Runtime | None = None) -> Outcome:
        del runtime  # there are no candidates to evaluate
        row = search(made(), path, watch)
        failed = int(row["status"] != "ok")
        return Outcome(row, problem.metric, 1, failed, row["cost_s"], tuple(_lines(made(), path, row)))

    return Experiment(problem.config, lambda: made().facts, run)


def search(experiment: Learning, path: Path, watch: Watch) -> dict[str, Any]:
    """Runs or resumes the search in the opened workdir `path` and derives a cell.

    Returns:
      The row of the derived cell, as in trials.jsonl and best.json. Its fitness is that of the derived cell with the
      weights it inherits, `search_accuracy` (or whatever the metric is) that of the whole search network; both with
      the batch's statistics in batch norm, so their difference is the discretisation gap alone.
    """
    end = learned(experiment, path, watch)
    rows = checkpoint.read_lines(path / "trials.jsonl")
    if rows:
        return rows[0]
    epochs = checkpoint.read_lines(path / "metrics.jsonl")
    taken = stopped(experiment.stopping, epochs)
    tree = experiment.derive(end.stage, end.facts, end.state) if taken is None else epochs[taken]["arch"]
    mixed = experiment.choice(end.state)
    whole, derived = _validated(experiment, end, [mixed, experiment.discrete(tree, end.facts, mixed)])
    problem, metric = experiment.problem, experiment.problem.metric
    row = {
        "id": 0,
        "parent": -1,
        **with_truth(problem.config, problem.describe)(problem.space.decode(tree)),
        "fitness": None if derived is None else metric.sign * derived,
        "cost_s": round(end.wall_s, 3),
        "status": "ok" if derived is not None else "failed",
        "error": None if derived is not None else "the derived cell's logits are NaN",
        f"search_{metric.name}": whole,
        **({} if taken is None else {"epoch": taken + 1, "stopped_after": len(epochs)}),
    }
    with checkpoint.writing(path):
        checkpoint.append_lines(path / "trials.jsonl", [row])
        checkpoint.write_json(path / "best.json", row)
    watch.record(row)
    return row


def learned(experiment: Learning, path: Path, watch: Watch) -> Progress:
    """Trains the search network in the opened workdir `path` to its end, from where it was."""
    metric = experiment.problem.metric.name

    def history(stage: int, facts: Any, state: PyTree) -> dict[str, Any]:
        tree = experiment.derive(stage, facts, state)
        weights = {name: _rounded(values) for name, values in experiment.weights(state).items()}
        scores = {"valid_loss": _finite(state.valid_loss), f"valid_{metric}": _finite(state.valid_accuracy)}
        found = {**scores, "skips": experiment.skips(tree), "arch": tree, "weights": weights}
        if experiment.problem.config.truth:  # what the cell of this epoch is truly worth
            space = experiment.problem.config.space
            row = with_truth(experiment.problem.config, lambda arch: {})(space.decode(tree))
            found |= {"true_result": row["result"]} | order_by_weights(
                experiment.problem.config, experiment.weights(state)["cell"]
            )
        if experiment.curvature is not None:
            found |= {"eigenvalue": _finite(experiment.curvature(state))}
        return found

    epochs = Epochs(watch, experiment.lengths, len(checkpoint.read_lines(path / "metrics.jsonl")))
    activity.doing("search network", "compiling the first step")
    with far(epochs.words):
        return learn(
            streams(experiment.problem.config.seed).search,
            experiment.stages,
            experiment.batches,
            workdir=path,
            metrics=("train_loss", f"train_{metric}", "val_loss", f"val_{metric}"),
            history=history,
            on_epoch=_told(experiment, watch, epochs),
            on_step=epochs.step,
            record_line=watch.record,
            stop=lambda rows: stopped(experiment.stopping, rows) is not None,
        )


def _lines(experiment: Learning, path: Path, row: dict[str, Any]) -> list[str]:
    """What to tell of the derived cell."""
    config = experiment.problem.config
    told = [experiment.written(row["arch"])]
    if "stopped_after" in row:
        why = {"eigenvalue": "the dominant eigenvalue rose", "skips": "the cell has too many skip connections"}
        told.append(
            f"Stopped after epoch {row['stopped_after']} because {why[experiment.stopping.rule]}; keeping the cell of "
            f"epoch {row['epoch']}."
        )
    if row["fitness"] is not None:
        metric = experiment.problem.metric
        whole = metric.shown(row[f"search_{metric.name}"])
        told.append(
            f"Validation {metric.name} of the search network {whole}, of the derived cell with its weights "
            f"{metric.text(row['fitness'])}. {row['params']:,} parameters when retrained."
        )
    told += lines(experiment.problem, path)
    told.append(f"Results: {path}/report.html, {path}/best.json, {path}/metrics.jsonl")
    return [*told, next_line(config, path, "retrain"), *demo_line(config)]


def accuracies(
    experiment: Learning, end: Progress, trees: Sequence[dict[str, Any]], most: int | None = None
) -> list[float | None]:
    """The validation metric of cells in the search network, with the weights they inherit; None = not finite.

    Args:
      experiment: the search.
      end: where it is, see `learned`.
      trees: the cells, as JSON.
      most: validation samples to judge by, at least; None = all.
    """
    mixed = experiment.choice(end.state)
    return _validated(experiment, end, [experiment.discrete(tree, end.facts, mixed) for tree in trees], most)


def _validated(
    experiment: Learning, end: Progress, choices: Sequence[PyTree], most: int | None = None
) -> list[float | None]:
    """All validation samples count. Batch norm has the statistics of `_TOGETHER`, whatever the search's batch."""
    params, target = experiment.inherit(end.state), objective(experiment.problem.task)
    validate = validation(experiment.networks(end.stage, end.facts), target, batch_statistics=True)
    count = None if most is None else -(-most // _TOGETHER)

    def some() -> Iterator[Any]:  # anew for every cell: a whole validation part need not fit into memory
        return itertools.islice(experiment.batches.valid(_TOGETHER), count)

    return [_finite(validate(params, end.state.batch_stats, choice, some())[1]) for choice in choices]


def _told(experiment: Learning, watch: Watch, epochs: Epochs) -> Callable[[Progress], None]:
    metric = experiment.problem.metric

    def told(progress: Progress) -> None:
        row = progress.row
        shown = metric.shown(row[f"valid_{metric.name}"])
        true = row.get("true_result")
        truly = f", truly {true:.2%}" if true is not None else ""
        left = epochs.ended(progress.epoch)
        watch.say(
            f"epoch {epochs.place(progress.epoch)} (stage {progress.stage + 1}): training loss "
            f"{row['train_loss']:.4f}, validation {metric.name} {shown}, {row['skips']} skips in the cell{truly}, "
            f"{progress.wall_s:.0f} s{left}"
        )
        epochs.estimate()
        if watch.verbose:
            watch.say(f"  {experiment.written(row['arch'])}")

    return told


def _rounded(values: np.ndarray) -> Any:
    """As nested lists of 5 digits, infinities and NaN as null."""
    return np.vectorize(lambda v: round(float(v), 5) if np.isfinite(v) else None, otypes=[object])(values).tolist()


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
