"""What the command can do, as functions: the same door for notebooks and other programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from nasjax.building.built import build
from nasjax.drive import search as drive
from nasjax.drive.progress import fitness_text, progress
from nasjax.experiments import method
from nasjax.experiments.families.candidates import Config, Experiment, refusal
from nasjax.experiments.families.gradients import LearnConfig, Learning
from nasjax.experiments.families.supernets import OneShot, OneShotConfig
from nasjax.settings import as_json, from_json
from nasjax.spaces.conv_chain import ConvChain
from nasjax.spaces.named import NAMES, named
from nasjax.store import checkpoint, workdir
from nasjax.types import Budget

AnyConfig = Config | LearnConfig | OneShotConfig


def configure(
    name: str | None, preset: str | None = None, dataset: str | None = None, space: str | None = None
) -> AnyConfig:
    """The settings of a method's preset (None = demo); a data set or space of None is the preset's.

    Raises ValueError for unknown names.
    """
    return method(name).configure(preset or "demo", dataset, space)


def config_of(path: Path) -> AnyConfig:
    """The settings a workdir was made with. Raises ValueError if it is none."""
    tree = workdir.read(path)["config"]
    base = configure(tree.get("method"), tree.get("preset"), tree["data"]["name"], tree["space"]["name"])
    try:
        return from_json(base, tree)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path / 'config.json'} does not fit this version: {error}") from error


def default_workdir(config: AnyConfig) -> Path:
    """runs/METHOD-SPACE-DATASET-sSEED."""
    data = "table" if config.space.name == "tabular_cell" else Path(config.data.name).stem
    return Path("runs") / f"{config.method}-{config.space.name}-{data}-s{config.seed}"


def search(config: AnyConfig, path: str | Path, command: str | None = None) -> Any:
    """Runs or continues a search and leaves trials, checkpoints, best.json and report.html in `path`.

    Args:
      config: from `configure`, changed with `dataclasses.replace`.
      path: the workdir.
      command: the command line, for the report's "go on".

    Returns:
      The finished search: `drive.Summary`, or of a search by gradients the derived cell's row of trials.jsonl.

    Raises:
      ValueError: wrong settings, data not found, or a workdir that is not this run's.
      RunError: the run cannot go on (full disk), or every candidate failed.
    """
    experiment: Experiment | Learning | OneShot = method(config.method).make(config)
    facts = experiment.problem.facts if isinstance(experiment, Experiment) else experiment.facts
    record = {
        "method": config.method,
        "preset": config.preset,
        "seed": config.seed,
        "command": command,
        **facts,
        **workdir.environment(),
        "config": as_json(config),
    }
    record = json.loads(json.dumps(record))
    path = Path(path)
    with workdir.opened(path, record), _reported(path):
        print(_opening(config, path, record), file=sys.stderr)
        if isinstance(experiment, Learning):
            from nasjax.experiments.families import gradients_run as gradient_search

            row = gradient_search.run(experiment, path)
            print(_derived(experiment.config, path, row))
            return row
        if isinstance(experiment, OneShot):
            from nasjax.experiments.families import supernets_run as one_shot_search

            summary = one_shot_search.run(experiment, path)
            print(_closing(experiment.config, path, summary) if summary else _trained(path))
            return summary
        return _searched(experiment, path)


def _searched(experiment: Experiment, path: Path) -> drive.Summary:
    config = experiment.config
    budget = Budget(config.trials, config.wall_s, config.cost_s)
    with progress(budget) as on_round:
        summary = drive.search(
            jax.random.key(config.seed),
            experiment.searcher,
            experiment.problem.evaluator,
            workdir=path,
            budget=budget,
            width=config.width,
            describe=experiment.problem.describe,
            refuse=refusal(config),
            metrics=experiment.metrics,
            on_round=on_round,
        )
    print(_closing(config, path, summary))
    return summary


def _derived(config: LearnConfig, path: Path, row: dict[str, Any]) -> str:
    lines = [
        f"{name}: " + ", ".join(f"{operator} {source}" for operator, source in row["arch"][name])
        for name in ("normal", "reduce")
    ]
    if row["fitness"] is not None:
        lines.append(
            f"Validation accuracy of the search network {row['search_accuracy']:.2%}, of the derived cell with its "
            f"weights {row['fitness']:.2%}. {row['params']:,} parameters when retrained."
        )
    lines.append(f"Results: {path}/report.html, {path}/best.json, {path}/metrics.jsonl")
    lines.append(f"Next: python -m nasjax.launch --mode=retrain --workdir={path}")
    if config.preset == "demo":
        lines.append("A demo shows the machine at work; it is too short to show learning.")
    return "\n".join(lines)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Writes the report at the end, also of a search that failed or was interrupted."""
    try:
        yield
    finally:
        if (path / "trials.jsonl").exists() or (path / "metrics.jsonl").exists():
            report([path])


def _opening(config: AnyConfig, path: Path, record: dict[str, Any]) -> str:
    line = f"{config.method} on {record['dataset']['name']}, strategy {record['strategy']}, in {path}"
    if (estimates := record.get("estimates")) is None:
        return line
    seconds = estimates["seconds"][record["strategy"]]
    memory = estimates["bytes"][record["strategy"]] / 2**20
    trials = getattr(config, "trials", None)
    whole = f", {_duration(seconds * trials)} in all" if trials else ""
    return f"{line}\nestimate: {_duration(seconds)} and {memory:,.0f} MiB a child{whole}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def percent(config: Any) -> bool:
    """Whether fitness is a fraction (an accuracy) rather than a sum of scores."""
    return not (isinstance(config, OneShotConfig) and config.search.score == "indicator")


def _trained(path: Path) -> str:
    return f"The supernet is trained: {path}/supernet. The same command with --trials=N searches in it."


def _closing(config: Config | OneShotConfig, path: Path, summary: drive.Summary) -> str:
    best = summary.best
    assert best is not None
    size = f", {best['params']:,} parameters" if best["params"] is not None else ""
    lines = [
        f"{summary.trials} trials ({summary.failed} failed) in {summary.wall_s:.0f} s.",
        f"Best: trial {best['id']}, fitness {fitness_text(best, percent(config))}{size}.",
        f"Results: {path}/report.html, {path}/best.json, {path}/trials.jsonl",
    ]
    if config.space.name != "tabular_cell":
        lines.append(f"Next: python -m nasjax.launch --mode=retrain --workdir={path}")
    if config.preset == "demo":
        lines.append("A demo shows the machine at work; it is too short to show learning.")
    return "\n".join(lines)


def report(paths: list[Path]) -> Path:
    """Writes report.html into the first workdir (the others are overlaid) and returns its path."""
    from nasjax.report import write_report

    return write_report(paths)


def inspect(config: AnyConfig, arch: str | None = None) -> dict[str, Any]:
    """Counts without data or training: params, macs, space_size, sites.

    Args:
      config: settings of a method.
      arch: an architecture as NAME, JSON or FILE; None describes the method's search network or controller.
    """
    space = config.space
    facts: dict[str, Any] = {"space": space.name, "space_size": str(space.size()), "sites": len(space.sites)}
    if arch is None and isinstance(config, LearnConfig):
        supernet = method(config.method).supernet(config, *shape(config))
        return {**facts, "describes": "search network", "params": supernet.params, "macs": supernet.macs}
    if arch is None and isinstance(config, OneShotConfig):
        return {**facts, **method(config.method).supernet(config, *shape(config))}
    if arch is None:
        return {**facts, **method(config.method).controller(config)}
    tree = read_arch(arch)
    if space.name == "tabular_cell":
        space.validate(space.decode(tree))
        return {**facts, "arch": tree, "params": None, "macs": None}
    built = build(spanning(config, tree), tree, *shape(config))
    return {**facts, "arch": built.arch, "params": built.params, "macs": built.macs}


def shape(config: AnyConfig) -> tuple[tuple[int, int, int], int]:
    """(height, width, channels) and classes of the data that `config` names, without reading CIFAR-10."""
    if config.data.name == "cifar10":
        size = config.data.resize or 32
        return (size, size, 3), 10
    if config.data.name == "imagenet":
        return (224, 224, 3), 1000
    from nasjax.data.dataset import load
    from nasjax.experiments.families.candidates import shape_of

    return shape_of(load(config.data))


def read_arch(text: str) -> dict[str, Any]:
    """An architecture given as NAME, JSON or FILE, as a JSON tree. Raises ValueError."""
    if (tree := named(text)) is not None:
        return tree
    source = text
    if not text.lstrip().startswith("{"):
        try:
            source = Path(text).read_text()
        except (OSError, ValueError) as error:
            short = text if len(text) < 80 else text[:77] + "..."
            raise ValueError(
                f"{short} is no known name ({', '.join(NAMES)}), no JSON object and no readable file"
            ) from error
    try:
        tree = json.loads(source)
    except ValueError as error:
        where = "the architecture" if source is text else text
        raise ValueError(f"{where} is not valid JSON ({error})") from error
    if isinstance(tree, dict) and "arch" in tree and "space" not in tree:
        tree = tree["arch"]  # best.json, or a line of trials.jsonl
    if not isinstance(tree, dict) or "space" not in tree:
        raise ValueError('an architecture is an object with "space", for example {"space": "conv_chain", ...}')
    return tree


def spanning(config: Any, tree: dict[str, Any]) -> Any:
    """`config` with a chain's depth range opened to the given architecture: a count may be asked of any depth."""
    space, layers = config.space, tree.get("layers")
    if not isinstance(space, ConvChain) or not isinstance(layers, list) or not layers or space.pool_after:
        return config
    depths = (space.min_layers, space.max_layers, len(layers))
    return dataclasses.replace(config, space=dataclasses.replace(space, min_layers=min(depths), max_layers=max(depths)))


def retrain(config: AnyConfig, path: str | Path, arch: str | None = None) -> dict[str, Any]:
    """Trains the best architecture of the workdir `path` (or `arch`: NAME, JSON or FILE) and tests it once.

    With retrain.top_k the best k are trained, and the best of them by validation accuracy is tested.

    Returns what result.json holds. Raises ValueError where there is nothing to train, RunError where training fails.
    """
    path = Path(path)
    if config.retrain.sample and not isinstance(config, OneShotConfig):
        raise ValueError(f"retrain.sample trains paths of a supernet; {config.method} has none: leave it out")
    if config.space.name == "tabular_cell":
        raise ValueError("--mode=retrain needs --space=conv_chain; the table already holds the results of training")
    if arch is not None:
        trees = [read_arch(arch)]
    elif (path / "best.json").is_file():
        trees = [read_arch(str(path / "best.json"))]
        if config.retrain.top_k > 1:
            trees = _best(path, config.retrain.top_k)
    else:
        raise ValueError(f"{path} has no best.json; run --mode=search first, or give --arch=NAME|JSON|FILE")
    from nasjax.drive.retrain import retrain as train

    record = {"method": config.method, "seed": config.seed, **workdir.environment(), "config": as_json(config)}
    record = workdir.read(path) if (path / "config.json").exists() else json.loads(json.dumps(record))
    with workdir.opened(path, record):
        if config.retrain.sample:
            from nasjax.experiments.families.supernets_run import standalone

            standalone(method(config.method).make(config), path, config.retrain.sample)
        for tree in trees:
            config = spanning(config, tree)
        result = train(config, trees, path)
    report([path])
    published = result["published"]
    print(
        f"Test accuracy {result['test_accuracy']:.2%} on {result['test_images']} images of "
        f"{result['dataset']['name']}, {result['params']:,} parameters.\n"
        f"Published on {published.get('dataset', 'cifar10')}, {published['model']}: "
        f"{1 - published['test_error']:.2%} with "
        f"{published['params'] / 1e6:.1f}M parameters ({published['source']})"
        f"{'' if config.data.name == published.get('dataset', 'cifar10') else '; other data, not comparable'}.\n"
        f"Results: {path}/result.json, {path}/model, {path}/report.html\n"
        f"Next: python -m nasjax.launch --mode=export --workdir={path}, or nasjax.load({str(path)!r})"
    )
    return result


def _best(path: Path, count: int) -> list[dict[str, Any]]:
    """The architectures of the best trials, each once."""
    rows = [row for row in checkpoint.read_lines(path / "trials.jsonl") if row["status"] == "ok"]
    rows = sorted(rows, key=lambda row: (-drive.scalar_fitness(row), row["id"]))
    return list({row["hash"]: row["arch"] for row in rows[::-1]}.values())[::-1][:count]


def export(path: Path) -> list[Path]:
    """Writes weights (.npz), architecture (.json) and a `jax.export` artifact of the retrained network in `path`."""
    from nasjax.model import export as write

    files = write(Path(path))
    print("\n".join(map(str, files)))
    return files
