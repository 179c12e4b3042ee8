"""What all methods share: the settings of every run, facts about its data, and how a search ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nasjax import catalog
from nasjax.data.dataset import DataConfig, Dataset, in_files
from nasjax.drive.recorded import Summary
from nasjax.drive.retrain import RetrainConfig
from nasjax.drive.rows import scalar_fitness, trained
from nasjax.experiments.families import true_results
from nasjax.problem.problem import Problem
from nasjax.settings import RESUMABLE
from nasjax.store import checkpoint, plugin
from nasjax.train.recipe import Recipe
from nasjax.types import Metric, Outcome, Task

LIMITS = ("max_params", "max_macs", "max_latency_ms", "max_memory_mb")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What decides any run; written to config.json. Families add their own.

    Attributes:
      method, preset: what searches, and which of its settings it starts from.
      search: the method's own settings.
      space: where it searches.
      data: on what.
      form: settings of the networks beside the space, as its Builder has them.
      retrain_recipe, retrain: how what it finds is trained in the end.
      truth: a table with the true results of all architectures, to put beside what a search goes by; "" = none.
      truth_percent: whether that table holds percents; None = its columns' names say so.
      seed: of everything random.
      plugin: sha256 of each plugin's file, with commas; "" = none.
    """

    method: str
    preset: str
    search: Any
    space: Any
    data: DataConfig
    form: Any = None
    retrain_recipe: Recipe = field(default=Recipe(), metadata=RESUMABLE)
    retrain: RetrainConfig = field(default=RetrainConfig(), metadata=RESUMABLE)
    truth: str = field(default="", metadata=RESUMABLE)  # no search sees it
    truth_percent: bool | None = field(default=None, metadata=RESUMABLE)
    seed: int = 0
    plugin: str = ""
    table: ClassVar[Any] = None  # where results are looked up, in the family that can

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0..4294967295, got {self.seed}")
        if self.truth_percent is not None and not self.truth:
            raise ValueError("truth_percent has no effect without --truth=FILE; leave it out")


def require_latency(config: Any) -> None:
    """Raises ValueError where the settings of a limited search name no file of latencies, or no positive limit."""
    if config.max_latency_ms is not None and not config.latency:
        raise ValueError("max_latency_ms needs --latency=FILE.json; --mode=latency --out=FILE.json makes one")
    if config.max_latency_ms is not None and config.max_latency_ms <= 0:
        raise ValueError(f"max_latency_ms must be positive, got {config.max_latency_ms}")


def require_memory(config: Any) -> None:
    """Raises ValueError where a limit of memory is not positive, or no batch has so many samples."""
    if config.max_memory_mb is not None and config.max_memory_mb <= 0:
        raise ValueError(f"max_memory_mb must be positive, got {config.max_memory_mb}")
    if config.memory_batch < 1:
        raise ValueError(f"memory_batch is a number of samples, at least 1; got {config.memory_batch}")


def latency_facts(problem: Problem) -> dict[str, Any]:
    """What config.json says of the file of latencies, where the settings name one."""
    found = problem.latency
    return {} if found is None else {"latency": {"where": found.where, "sha256": found.sha256}}


def dataset_facts(data: Dataset, task: Task) -> dict[str, Any]:
    """What config.json says of the data and of what is measured on them."""
    facts = {
        "name": data.name,
        "shape": list(data.train.x.shape[1:]),
        "outputs": data.classes,
        "train": len(data.train.y),
        "valid": len(data.valid.y),
        "sha256": data.sha256,
        **({"stream": True} if in_files(data) else {}),
    }
    unit = getattr(task.loss, "unit", "")
    return {"dataset": facts, "task": task.name, "metric": task.metric._asdict(), "loss_unit": unit}


def refusal(config: Any) -> Callable[[dict[str, Any]], str | None]:
    """The hard `LIMITS` as a function of a trial's row."""

    def refuse(row: dict[str, Any]) -> str | None:
        for setting in LIMITS:
            name, limit = setting.removeprefix("max_"), getattr(config, setting)
            value = row.get(name)
            if limit is not None and value is not None and value > limit:
                return f"{name} {value} over the limit {limit}"
        return None

    return refuse


def nothing_left(config: Any, most: int | None = None) -> Callable[[list[dict[str, Any]]], str]:
    """Why a searcher has nothing left to ask, in words, of all rows. `most`: trials that it can make, None = any."""

    def why(rows: list[dict[str, Any]]) -> str:
        size, tried = _size(config), _different(rows)
        if tried == size:
            return f"all {size:,} architectures of --space={config.space.name} were tried"
        if most is not None and len(rows) >= most:
            return f"the searcher keeps {most:,} trials at most; for more resume it with a larger --trials=N"
        limits = [f"{name}={limit}" for name in LIMITS if (limit := getattr(config, name, None))]
        of = f" of {size:,}" if size is not None else ""
        within = f" within {' and '.join(limits)}" if limits else ""
        return f"the searcher finds no further architecture{within} ({tried:,}{of} tried)"

    return why


def _size(config: Any) -> int | None:
    """How many architectures the space has; None = not known."""
    size: int | None = config.space.size()
    return size


def _different(rows: list[dict[str, Any]]) -> int:
    """Architectures among the trials."""
    return len({row.get("hash") or json.dumps(row["arch"], sort_keys=True) for row in rows})


def _end(config: Any, path: Path, summary: Summary) -> list[str]:
    """Why a search ended before it had its trials, or that it had to repeat itself; [] = neither."""
    wanted = getattr(config, "trials", None)
    lines = []
    if summary.why:
        lines.append(f"Ended at {summary.trials}{f' of {wanted}' if wanted else ''} trials: {summary.why}.")
    different, size = _different(checkpoint.read_lines(path / "trials.jsonl")), _size(config)
    if size is not None and different == size < summary.trials:
        lines.append(
            f"--space={config.space.name} is exhausted: all its {size:,} architectures were tried, and "
            f"{summary.trials - size} trials repeat one."
        )
    return lines


def next_line(config: Config, path: Path, mode: str) -> str:
    """What to type next, plugin included."""
    if _in_program(config):
        return f"Next: nasjax.{mode}(config, {str(path)!r})"
    return f"Next: {plugin.command(path, config.plugin, mode)}"


def front_line(config: Config, path: Path) -> str:
    """What to type for the networks of a front that are good as they are."""
    typed = f"{plugin.command(path, config.plugin, 'export')} --point=all"
    how = f"nasjax.export_points({str(path)!r})" if _in_program(config) else typed
    return f"Without retraining, all of the front: {how}"


def _in_program(config: Config) -> bool:
    """Whether what it names was registered in a program, and has no file of its own."""
    return catalog.names_own(config) and not config.plugin


def closing(problem: Problem, path: Path, summary: Summary, metric: Metric, trainable: bool = True) -> Outcome:
    """A finished search and what to tell of it."""
    config, best = problem.config, summary.best
    assert best is not None
    size = f", {best['params']:,} parameters" if best["params"] is not None else ""
    if problem.latency is not None and "latency_ms" in best:
        size += f", {best['latency_ms']:.4g} ms predicted ({problem.latency.where})"
    if "memory_mb" in best:
        size += f", {best['memory_mb']:.4g} MB at a batch of {config.memory_batch}"
    plain = problem.task.metric if trainable else metric
    if metric != plain and f"valid_{plain.name}" in best:
        size += f", {plain.name} {plain.shown(best[f'valid_{plain.name}'])}"
    lines = [
        f"{summary.trials} trials ({summary.failed} failed) in {summary.wall_s:.0f} s.",
        *_end(config, path, summary),
        f"Best: trial {best['id']}, {metric.name} {metric.text(scalar_fitness(best))}{trained(best)}{size}.",
        *true_results.lines(problem, path),
        f"Results: {path}/report.html, {path}/best.json, {path}/trials.jsonl",
    ]
    if trainable:  # what was looked up is a result as it is
        lines += [next_line(config, path, "retrain"), *demo_line(config)]
    return Outcome(best, metric, summary.trials, summary.failed, summary.wall_s, tuple(lines))


def demo_line(config: Config) -> list[str]:
    """What a demo says of itself."""
    return ["A demo shows the machine at work; it is too short to show learning."] if config.preset == "demo" else []
