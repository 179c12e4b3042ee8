"""A search: the workers it runs on, its workdir, and its report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nasjax import catalog
from nasjax.commands.configuration import defaults_of, environment, from_tree, record_of
from nasjax.commands.foresight import require_retraining
from nasjax.problem.problem import Problem
from nasjax.runtime import hosts, jax_settings
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.settings import as_json, resumable
from nasjax.settings import names as names_of
from nasjax.store import plugin, workdir
from nasjax.types import Experiment, Outcome, Runtime, Watch, afterwards

Record = Callable[[dict[str, Any]], None]


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
      command: the command line, for the report's "resume the search".
      progress: show it, on stderr.
      on_record: receives every line of trials.jsonl and metrics.jsonl as a dict.
      changed_plugin: resume although the plugin's file is another one than the run was begun with.

    Returns:
      The best trial's row, the metric, and how many trials there were.

    Raises:
      ValueError: wrong settings, data not found, or a workdir that is not this run's.
      RunError: the run cannot continue (full disk), or every candidate failed.
    """
    jax_settings.check()
    path, watch = Path(path), watch_of(progress, on_record)
    problem = Problem(config)
    experiment = catalog.method(config.method).make(problem)
    with _workers(problem, path, experiment, watch.say) as (runtime, facts), ExitStack() as held:
        record = record_of(config, {"command": command, **facts})
        path = held.enter_context(hosts.own_workdir(path, record))
        own: dict[str, Any] = {
            "defaults": defaults_of(config),
            "may_change": resumable(config),
            "changed_plugin": changed_plugin,
        }
        with workdir.opened(path, record, **own), _reported(path):
            plugin.keep(path, config.plugin)
            watch.say(_opening(config, path, record))
            return experiment.run(path, watch, runtime)


@contextmanager
def _workers(
    problem: Problem, path: Path, experiment: Experiment, say: Callable[[str], None]
) -> Iterator[tuple[Runtime | None, dict[str, Any]]]:
    """The runtime for config.workers, and its first worker's facts; without workers, this process and its facts."""
    import jax

    config = problem.config
    if jax.distributed.is_initialized() and "workers" in names_of(config):
        raise ValueError(
            f"{config.method} tries candidates one by one, which --coordinator does not divide: give --runtime=ray "
            "--workers=N instead"
        )
    if not getattr(config, "workers", 0):
        keep_freed_memory()
        facts = experiment.facts()
        require_retraining(problem, experiment.before_retrain is not None)
        yield None, facts
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
    with afterwards(runtime.close):
        yield runtime, facts


def work_of(tree: dict[str, Any], path: str, source: str, cache: str) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """Builds an experiment from config.json's settings in a worker process; returns its facts and task -> result.

    Args:
      tree: the settings.
      path: the workdir.
      source: the plugin's file, "" = none.
      cache: folder of compiled programs, "" = none.
    """
    from nasjax.drive.work import worker
    from nasjax.runtime.compile_cache import own_cache

    keep_freed_memory()
    publish = own_cache(Path(cache)) if cache else lambda: None
    if source and plugin.use(source) != tree["plugin"]:  # edited since, or another one on this machine
        raise ValueError(
            f"{source} is not the file that the driver has run; give all machines the same, and start again"
        )
    config = from_tree(tree)
    problem = Problem(config)
    experiment = catalog.method(config.method).make(problem)
    assert experiment.evaluator is not None
    facts = {**experiment.facts(), **environment()}
    require_retraining(problem, experiment.before_retrain is not None)
    work = worker(experiment.evaluator(), Path(path), experiment.describe(), experiment.refuse)

    def published(task: Any) -> Any:
        with afterwards(publish):
            return work(task)

    return facts, published


def watch_of(progress: bool, on_record: Record | None) -> Watch:
    """Where progress and records go: to standard error, and to the user's function."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    quiet = Watch() if on_record is None else Watch(record=on_record)
    return quiet._replace(say=say, bar=sys.stderr.isatty()) if progress else quiet


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Writes the report at the end, also of a search that failed or was interrupted."""

    def written() -> None:
        if (path / "trials.jsonl").exists() or (path / "metrics.jsonl").exists():
            report([path])

    with afterwards(written):
        yield


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
