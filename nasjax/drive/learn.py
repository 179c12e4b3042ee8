"""The host loop of a search by gradients: stages of epochs of steps, saved so that a killed run resumes exactly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.store import checkpoint
from nasjax.store.checkpoint import RunError
from nasjax.types import Key, PyTree, Stages

SAVE_S = 60.0  # a longer epoch is also saved before its end


class Progress(NamedTuple):
    """The progress of a search by gradients."""

    stage: int
    facts: Any  # of the stage
    state: PyTree  # of the learner
    epoch: int  # epochs done, all stages together
    row: dict[str, Any]  # the last line of metrics.jsonl
    wall_s: float  # all resumed parts together
    resumed: int  # epochs done before this call


def learn(
    key: Key,
    stages: Stages,
    batches: Any,
    *,
    workdir: Path,
    metrics: tuple[str, ...],
    history: Callable[[int, Any, PyTree], dict[str, Any]],
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    on_step: Callable[[int, int], None] = lambda done, steps: None,
    record_line: Callable[[dict[str, Any]], None] = lambda row: None,
    stop: Callable[[list[dict[str, Any]]], bool] = lambda rows: False,
) -> Progress:
    """Runs or continues a search by gradients in `workdir`.

    Args:
      key: the run's key; step t of stage i uses keys that depend on (key, i, t) alone.
      stages: the learners.
      batches: `train.batches.Batches`.
      workdir: an existing folder; holds metrics.jsonl (a line an epoch), stages.json and checkpoints/.
      metrics: names of what `Learner.step` may return; a line holds their means over the epoch, None where absent.
      history: (stage, facts, state) -> what else to write in the epoch's line.
      on_epoch: called after every epoch.
      on_step: called after every step with the steps done in this epoch and their number.
      record_line: receives every line of metrics.jsonl once it is written.
      stop: all lines so far -> whether the stage ends here.

    Returns:
      The end of the last stage.

    Raises:
      ValueError: the workdir's files are damaged.
      RunError: the loss became NaN, or the disk is full.
    """
    key_init, key_data, key_step = jax.random.split(key, 3)
    folder, lines = workdir / "checkpoints", workdir / "metrics.jsonl"

    def start(stage: int, facts: Any) -> tuple[Any, dict[str, Any]]:
        learner = stages.learner(stage, facts)
        order = batches.shuffle(jax.random.fold_in(key_data, stage), 0)
        like = batches.batch(jax.random.fold_in(key_data, stage), order, 0)
        state = learner.init(jax.random.fold_in(key_init, stage), like)
        sums = np.zeros((2, len(metrics)))  # of the running epoch: sums, and how many steps had the metric
        return learner, {"state": state, "step": 0, "sums": sums, "epochs": 0, "wall_s": 0.0}

    all_facts = _read_facts(workdir) or [stages.facts(0, None, None)]
    stage, learner, record = _resume(folder, all_facts, start)
    checkpoint.truncate_lines(lines, record["epochs"])
    resumed = record["epochs"]
    rows = checkpoint.read_lines(lines)
    row = rows[-1] if rows else {}
    _write_facts(workdir, all_facts)
    began, saved = time.monotonic() - record["wall_s"], time.monotonic()
    steps = batches.epoch_steps

    def save() -> None:
        nonlocal saved
        record["wall_s"] = time.monotonic() - began
        checkpoint.save(folder, f"{stage:02d}{record['epochs']:05d}{record['step'] % steps:07d}", record)
        saved = time.monotonic()

    while True:
        facts = all_facts[stage]
        data, stepping = jax.random.fold_in(key_data, stage), jax.random.fold_in(key_step, stage)
        done = bool(row) and row.get("stage") == stage and row.get("done") and record["step"] % steps == 0
        while not done:
            epoch = record["step"] // steps
            order, pending = batches.shuffle(data, epoch), []
            while record["step"] < (epoch + 1) * steps:
                t = record["step"]
                record["state"], values = learner.step(
                    jax.random.fold_in(stepping, t), record["state"], batches.batch(data, order, t)
                )
                pending.append(values)
                record["step"] = t + 1
                on_step(t + 1 - epoch * steps, steps)
                if len(pending) >= 20 or t + 1 == (epoch + 1) * steps:
                    record["sums"] = record["sums"] + _summed(pending, metrics)
                    pending = []
                    if time.monotonic() - saved > SAVE_S and t + 1 < (epoch + 1) * steps:
                        save()
            means = dict(zip(metrics, _means(record["sums"]), strict=True))
            if means[metrics[0]] is None:
                raise RunError(
                    f"{metrics[0]} became NaN in epoch {epoch + 1} of stage {stage + 1}; use a smaller learning rate"
                )
            key_epoch = jax.random.fold_in(jax.random.fold_in(stepping, 2**31 - 1), epoch)
            record["state"], done = learner.epoch(key_epoch, record["state"], batches.valid())
            record["epochs"] += 1
            record["sums"] = np.zeros_like(record["sums"])
            wall_s = time.monotonic() - began
            row = {"epoch": record["epochs"], "stage": stage, "done": done, "wall_s": round(wall_s, 3), **means}
            row |= history(stage, facts, record["state"])
            rows.append(row)
            row["done"] = done = done or stop(rows)
            with checkpoint.writing(workdir):
                checkpoint.append_lines(lines, [row])
            record_line(row)
            save()
            on_epoch(Progress(stage, facts, record["state"], record["epochs"], row, wall_s, resumed))
        following = stages.facts(stage + 1, facts, record["state"])
        if following is None:
            return Progress(stage, facts, record["state"], record["epochs"], row, record["wall_s"], resumed)
        stage += 1
        all_facts = [*all_facts[:stage], following]
        _write_facts(workdir, all_facts)
        before, (learner, record) = record, start(stage, following)
        state = stages.carry(stage, following, before["state"], record["state"])
        record |= {"state": state, "epochs": before["epochs"], "wall_s": before["wall_s"]}


def _resume(folder: Path, all_facts: list[Any], start: Callable[..., Any]) -> tuple[int, Any, dict[str, Any]]:
    """Stage, learner and record of the newest readable checkpoint; the initial ones where there is none."""
    error: ValueError | None = None
    for name in checkpoint.numbered(folder)[::-1]:
        stage = int(name[:2])
        if stage >= len(all_facts):
            raise ValueError(f"{folder.parent / 'stages.json'} does not know stage {stage}; choose another --workdir")
        learner, like = start(stage, all_facts[stage])
        try:
            return stage, learner, checkpoint.restore(folder, name, like)
        except ValueError as damage:
            error = error or damage
    if error is not None:
        raise error
    return 0, *start(0, all_facts[0])


def _read_facts(workdir: Path) -> list[Any]:
    file = workdir / "stages.json"
    if not file.exists():
        return []
    try:
        return list(json.loads(file.read_text())["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged; choose another --workdir") from error


def _write_facts(workdir: Path, all_facts: list[Any]) -> None:
    with checkpoint.writing(workdir):
        checkpoint.write_json(workdir / "stages.json", {"facts": all_facts})


def _summed(pending: list[dict[str, Any]], names: tuple[str, ...]) -> np.ndarray:
    """Sums and counts f64[2, metrics] over steps."""
    values = jax.device_get(pending)
    sums = [sum(float(step[name]) for step in values if name in step) for name in names]
    return np.array([sums, [sum(name in step for step in values) for name in names]], float)


def _means(sums: np.ndarray) -> list[float | None]:
    """None where no step had the metric, or it was not finite."""
    return [float(s / n) if n and np.isfinite(s) else None for s, n in sums.T]
