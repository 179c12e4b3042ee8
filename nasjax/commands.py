"""What the command can do, as functions: the same door for notebooks and other programs. Nothing is printed here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nasjax import catalog
from nasjax.runtime import hosts
from nasjax.settings import as_json, from_json
from nasjax.store import checkpoint, plugin, workdir
from nasjax.types import Built, Experiment, Metric, Outcome, Runtime, Signature, Watch

FORMAT = 3  # of config.json; raised when older workdirs can no longer be read
Record = Callable[[dict[str, Any]], None]


class Retrained(NamedTuple):
    """What retraining came to."""

    metric: Metric
    test: float  # the metric on the test part
    valid: float  # and on the validation part
    params: int
    arch: dict[str, Any]
    result: dict[str, Any]  # result.json
    lines: tuple[str, ...]  # what to tell the user


def configure(name: str | None, preset: str | None = None, dataset: str | None = None, space: str | None = None) -> Any:
    """The settings of a method's preset (None = demo); a data set or space of None is the preset's.

    Raises ValueError for unknown names.
    """
    if space is not None:
        catalog.builder(space)
    return catalog.method(name).configure(preset or "demo", dataset, space)


def config_of(path: Path, *, changed_plugin: bool = False) -> Any:
    """The settings a workdir was made with. Raises ValueError if it is none."""
    record = workdir.read(path)
    tree = record["config"]
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{path} was made by nasjax {record.get('versions', {}).get('nasjax', '?')} (format "
            f"{record.get('format', 1)}); this version reads format {FORMAT}: search again in another --workdir"
        )
    plugin.require(path, tree.get("plugin", ""), changed_plugin)
    try:
        return _from_tree(tree)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path / 'config.json'} does not fit this version: {error}") from error


def _from_tree(tree: dict[str, Any]) -> Any:
    """The settings that were written as `tree`."""
    return from_json(configure(tree["method"], tree["preset"], tree["data"]["name"], tree["space"]["name"]), tree)


def _defaults(config: Any) -> dict[str, Any]:
    """The settings of its preset, as JSON."""
    return json.loads(json.dumps(as_json(configure(config.method, config.preset, config.data.name, config.space.name))))


def default_workdir(config: Any) -> Path:
    """runs/METHOD-SPACE-DATASET-sSEED."""
    data = "table" if config.looked_up else Path(config.data.name).stem
    return Path("runs") / f"{config.method}-{config.space.name}-{data}-s{config.seed}"


def search(
    config: Any,
    path: str | Path,
    command: str | None = None,
    *,
    progress: bool = True,
    on_record: Record | None = None,
    changed_plugin: bool = False,
) -> Outcome:
    """Runs or continues a search and leaves trials, checkpoints, best.json and report.html in `path`.

    Args:
      config: from `configure`, changed with `dataclasses.replace`.
      path: the workdir.
      command: the command line, for the report's "go on".
      progress: show it, on stderr.
      on_record: receives every line of trials.jsonl and metrics.jsonl as a dict.
      changed_plugin: go on although the plugin's file is another one than the run was begun with.

    Returns:
      The best trial's row, the metric, and how many trials there were.

    Raises:
      ValueError: wrong settings, data not found, or a workdir that is not this run's.
      RunError: the run cannot go on (full disk), or every candidate failed.
    """
    path, watch = Path(path), _watch(progress, on_record)
    experiment = catalog.method(config.method).make(config)
    with _workers(config, path, experiment, watch.say) as (runtime, facts), ExitStack() as held:
        record = _record(config, {"command": command, **facts})
        path = held.enter_context(hosts.own_workdir(path, record))
        with workdir.opened(path, record, defaults=_defaults(config), changed_plugin=changed_plugin), _reported(path):
            plugin.keep(path, config.plugin)
            watch.say(_opening(config, path, record))
            return experiment.run(path, watch, runtime)


@contextmanager
def _workers(
    config: Any, path: Path, experiment: Experiment, say: Callable[[str], None]
) -> Iterator[tuple[Runtime | None, dict[str, Any]]]:
    """The runtime of config.workers, and the facts of the first one; without any, those of this process."""
    import jax

    if jax.distributed.is_initialized() and hasattr(config, "workers"):
        raise ValueError(
            f"{config.method} tries candidates one by one, which --coordinator does not divide: give --runtime=ray "
            "--workers=N instead"
        )
    if not getattr(config, "workers", 0):
        yield None, experiment.facts()
        return

    names = (("method", config.method), ("space", config.space.name), ("data", config.data.name))
    if not config.plugin and any(catalog.is_own(kind, name) for kind, name in names):
        raise ValueError("worker processes do not know what was registered in a program; put it in a file (--plugin)")
    source = str(plugin.file_of(config.plugin).absolute()) if config.plugin else ""
    cache = jax.config.jax_compilation_cache_dir or ""  # type: ignore[attr-defined]
    arguments = (as_json(config), str(path.absolute()), source, cache)
    logs = path / workdir.WORKERS
    if config.runtime == "ray":
        from nasjax.runtime.ray import ray

        same = {"agree": ("dataset", "strategy", "chunk"), "settings": config.ray, "say": say}
        runtime, facts = ray(work_of, arguments, workers=config.workers, logs=logs, **same)
    else:
        from nasjax.runtime.process import process

        runtime, facts = process(work_of, arguments, workers=config.workers, logs=logs)
    try:
        yield runtime, facts
    finally:
        runtime.close()


def work_of(tree: dict[str, Any], path: str, source: str, cache: str) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """What a worker process is: the experiment of a config.json's settings, its facts, and its function of a task.

    Args:
      tree: the settings.
      path: the workdir.
      source: the plugin's file, "" = none.
      cache: folder of compiled programs, "" = none.
    """
    from nasjax.drive.work import worker
    from nasjax.runtime.compile_cache import own_cache

    publish = own_cache(Path(cache)) if cache else lambda: None
    if source:
        plugin.use(source)
    config = _from_tree(tree)
    experiment = catalog.method(config.method).make(config)
    assert experiment.evaluator is not None
    facts, work = {**experiment.facts(), **workdir.environment()}, worker(experiment.evaluator(), Path(path))

    def published(task: Any) -> Any:
        try:
            return work(task)
        finally:
            publish()

    return facts, published


def _watch(progress: bool, on_record: Record | None) -> Watch:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    quiet = Watch() if on_record is None else Watch(record=on_record)
    return quiet._replace(say=say, bar=sys.stderr.isatty()) if progress else quiet


def _record(config: Any, more: dict[str, Any]) -> dict[str, Any]:
    """What config.json holds."""
    whole = {
        "format": FORMAT,
        "method": config.method,
        "preset": config.preset,
        "seed": config.seed,
        **workdir.environment(),
        **more,
        "config": as_json(config),
    }
    return json.loads(json.dumps(whole))


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Writes the report at the end, also of a search that failed or was interrupted."""
    try:
        yield
    finally:
        if (path / "trials.jsonl").exists() or (path / "metrics.jsonl").exists():
            report([path])


def _opening(config: Any, path: Path, record: dict[str, Any]) -> str:
    line = f"{config.method} on {record['dataset']['name']}, strategy {record['strategy']}, in {path}"
    if (estimates := record.get("estimates")) is None:
        return line
    seconds, memory = (estimates[what].get(record["strategy"]) for what in ("seconds", "bytes"))
    if seconds is None:
        return line
    trials = getattr(config, "trials", None)
    room = f" and {memory / 2**20:,.0f} MiB" if memory else ""
    whole = f", {_duration(seconds * trials / max(1, getattr(config, 'workers', 0)))} in all" if trials else ""
    kept = (
        f"; weights to inherit take at most {disk / 2**20:,.0f} MiB of disk" if (disk := estimates.get("disk")) else ""
    )
    return f"{line}\nestimate: {_duration(seconds)}{room} a child{whole}{kept}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def report(paths: list[Path]) -> Path:
    """Writes report.html into the first workdir (the others are overlaid) and returns its path."""
    from nasjax.report import write_report

    return write_report(paths)


def inspect(config: Any, arch: str | None = None) -> dict[str, Any]:
    """Counts without data or training: params, macs, space_size, sites, and the indicators of a graph.

    Args:
      config: settings of a method.
      arch: an architecture as NAME, JSON or FILE; None describes the method's search network or controller.
    """
    from nasjax.building.built import counts, signature

    space = config.space
    size = space.size()
    facts: dict[str, Any] = {
        "space": space.name,
        "space_size": None if size is None else str(size),
        "sites": len(space.sites),
    }
    if arch is None:
        return {
            **facts,
            **catalog.method(config.method).describe(config, None if config.looked_up else signature(config)),
        }
    tree = _read_arch(config, arch)
    if config.looked_up:
        space.validate(space.decode(tree))
        return {**facts, "arch": tree, "params": None, "macs": None}
    built = _built(config, tree, signature(config))
    return {**facts, "arch": built.arch, **counts(built)}


def _read_arch(config: Any, text: str) -> dict[str, Any]:
    from nasjax.building.built import read_arch

    return read_arch(text, catalog.builder(config.space.name), config.space)


def _built(config: Any, tree: dict[str, Any], form: Signature) -> Built:
    builder = catalog.builder(config.space.name)
    return builder.build(builder.widen(config.space, tree), config.network_form, tree, form)


def retrain(
    config: Any,
    path: str | Path,
    arch: str | None = None,
    *,
    progress: bool = True,
    on_record: Record | None = None,
    changed_plugin: bool = False,
) -> Retrained:
    """Trains the best architecture of the workdir `path` (or `arch`: NAME, JSON or FILE) and tests it once.

    With retrain.top_k the best k are trained, and the best of them by the validation metric is tested. What was
    trained and tested before with the same settings is not trained or tested again.

    Raises ValueError where there is nothing to train, RunError where training fails.
    """
    from nasjax.building.built import task_of
    from nasjax.data.dataset import joined, load, load_test
    from nasjax.drive.retrain import Job, finished
    from nasjax.drive.retrain import retrain as train

    path, watch = Path(path), _watch(progress, on_record)
    method = catalog.method(config.method)
    if config.looked_up:
        raise ValueError(
            "a search of a table trains nothing; train its cell in another workdir: --mode=retrain --method=random "
            f"--space={config.space.name} --dataset=cifar10 --arch={path}/best.json --workdir=OTHER"
        )
    task = task_of(config, catalog.builder(config.space.name))
    trees = _to_train(config, path, arch)
    before = method.make(config).before_retrain if config.retrain.sample else None
    if config.retrain.sample and before is None:
        raise ValueError(f"retrain.sample trains paths of a supernet; {config.method} has none: leave it out")
    if (path / "config.json").exists():  # the search's record stays, but for the plugin
        record = workdir.read(path)
        record["config"] = {**record["config"], "plugin": config.plugin}
    else:
        record = _record(config, {})
    with ExitStack() as held:
        path = held.enter_context(hosts.own_workdir(path, record))
        held.enter_context(workdir.opened(path, record, defaults=_defaults(config), changed_plugin=changed_plugin))
        plugin.keep(path, config.plugin)
        if before is not None:
            before(path, watch)
        data = load(config.data)
        hosts.agree("the samples", data.sha256)
        form = task.signature(data)
        builts = [_built(config, tree, form) for tree in trees]
        facts = {"data": as_json(config.data), "plugin": config.plugin}

        def formed(tree: dict[str, Any], changes: dict[str, Any]) -> Built:
            return _built(config.formed(changes), tree, form)

        job = Job(
            builts=builts,
            data=data,
            final=joined(data) if config.retrain.part == "all" else data,
            test=lambda: load_test(config.data),
            task=task,
            recipe=config.retrain_recipe,
            settings=config.retrain,
            seed=config.seed,
            facts=facts,
            formed=formed,
        )
        if done := finished(job, path):
            watch.say(f"already trained and tested with these settings (in {done[0]})")
            result = _restore(path, *done)
        else:
            folder, result, winner = train(job, path, watch)
            result |= {
                "dataset": {"name": data.name, "train": len(job.final.train.y), "sha256": data.sha256},
                "published": method.published(config),
                **workdir.environment(),
            }
            _save(config, task.name, job.final, winner, folder, path, result)
        report([path])
    metric = Metric(**result["metric"])
    test, valid = (result[f"{part}_{metric.name}"] for part in ("test", "valid"))
    lines = _told(config, path, result, metric)
    return Retrained(metric, test, valid, result["params"], result["arch"], result, tuple(lines))


def _to_train(config: Any, path: Path, arch: str | None) -> list[dict[str, Any]]:
    if arch is not None:
        return [_read_arch(config, arch)]
    if not (path / "best.json").is_file():
        raise ValueError(f"{path} has no best.json; run --mode=search first, or give --arch=NAME|JSON|FILE")
    if config.retrain.top_k == 1:
        return [_read_arch(config, str(path / "best.json"))]
    from nasjax.drive.rows import scalar_fitness

    rows = [row for row in checkpoint.read_lines(path / "trials.jsonl") if row["status"] == "ok"]
    rows = sorted(rows, key=lambda row: (-scalar_fitness(row), row["id"]))
    best: dict[str, Any] = {}
    for row in rows:
        best.setdefault(row["hash"], row["arch"])  # an architecture that was tried twice counts by its better trial
    return list(best.values())[: config.retrain.top_k]


def _save(config: Any, task: str, data: Any, winner: Any, folder: Path, path: Path, result: dict[str, Any]) -> None:
    """Writes the trained network and result.json into the job's folder, and into the workdir."""
    from nasjax import model

    description = model.describe(config.formed(winner.form), task, winner.built.arch, data, winner.recipe.bn_eps)
    for place in (folder, path):
        model.save(place, winner.variables, description)
        checkpoint.write_json(place / "result.json", result)
    _show(path, folder)


def _show(path: Path, folder: Path) -> None:
    """Lets the report show what the tested network makes of some samples, where the task has pictures of them."""
    import shutil

    from nasjax.drive.retrain import PICTURES

    if (folder / PICTURES).exists():
        (path / "pictures").mkdir(exist_ok=True)
        shutil.copy(folder / PICTURES, path / "pictures" / "test.npz")


def _restore(path: Path, folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    import shutil

    shutil.rmtree(path / "model", ignore_errors=True)
    shutil.copytree(folder / "model", path / "model")
    checkpoint.write_json(path / "result.json", result)
    _show(path, folder)
    return result


def _told(config: Any, path: Path, result: dict[str, Any], metric: Metric) -> Iterator[str]:
    """What to say of a retrained network, beside the published figure where there is one."""
    value = metric.text(metric.sign * result[f"test_{metric.name}"])
    yield (
        f"Test {metric.name} {value} on {result['test_samples']} samples of {result['dataset']['name']}, "
        f"{result['params']:,} parameters."
    )
    if published := result["published"]:
        data = published["dataset"]
        yield (
            f"Published on {data}, {published['model']}: {_figure(published, metric)} with "
            f"{published['params'] / 1e6:.1f}M parameters ({published['source']}){_unlike(config, result, published)}."
        )
    argument = ", run_plugin=True" if config.plugin else ""
    yield f"Results: {path}/result.json, {path}/model, {path}/report.html"
    yield f"Next: {plugin.command(path, config.plugin, 'export')}, or nasjax.load({str(path)!r}{argument})"


def _unlike(config: Any, result: dict[str, Any], published: dict[str, Any]) -> str:
    """What makes a published figure another matter than ours."""
    if config.data.name != published["dataset"]:
        return "; other data, not comparable"
    whole, ours = published.get("train"), result["dataset"]["train"]
    if whole is None or whole == ours:
        return ""
    return f"; trained on {whole:,} samples, ours on {ours:,}: not comparable"


def _figure(published: dict[str, Any], metric: Metric) -> str:
    """A published result in the metric's unit; of classifiers it is an error."""
    value = 1 - published["test_error"] if "test_error" in published else published[f"test_{metric.name}"]
    return metric.text(metric.value(value))


def export(path: str | Path) -> list[Path]:
    """Writes weights (.npz), architecture (.json) and a `jax.export` artifact of the retrained network in `path`."""
    from nasjax.model import export as write

    return write(Path(path))


def predict(path: str | Path, source: str | Path, out: str | Path | None = None) -> list[Path]:
    """Applies the retrained network of a workdir to a file or folder.

    Args:
      path: the workdir.
      source: what to read; the task says which files it takes.
      out: where the predictions go; None = `path`/predict.

    Returns:
      The files written. Raises ValueError where there is no trained network, or nothing that can be read.
    """
    from nasjax.model import load

    model = load(path)
    out = Path(path) / "predict" if out is None else Path(out)
    out.mkdir(parents=True, exist_ok=True)
    return catalog.task(model.task).predict(model, Path(source), out)
