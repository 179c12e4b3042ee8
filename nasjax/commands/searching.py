"""A search: the workers it runs on, its workdir, and its report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Unpack

from nasjax import catalog
from nasjax.commands import workers
from nasjax.commands.arrays import Arrays, with_arrays
from nasjax.commands.configuration import compared, defaults_of, environment, record_of
from nasjax.commands.foresight import few_steps, require_retraining
from nasjax.drive.heartbeat import heartbeat
from nasjax.problem.problem import Problem
from nasjax.report.strategies import in_words
from nasjax.runtime import hosts, jax_settings
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.settings import names as names_of
from nasjax.settings import resumable
from nasjax.store import plugin, started, workdir
from nasjax.types import Experiment, Outcome, Runtime, Watch, afterwards

_SEARCHED = ("recipe", "search", "supernet")  # settings of trainings before the last one
Record = Callable[[dict[str, Any]], None]


def search(
    config: Any,
    path: str | Path,
    command: str | None = None,
    *,
    progress: bool = True,
    verbose: bool = False,
    on_record: Record | None = None,
    changed_plugin: bool = False,
    **arrays: Unpack[Arrays],
) -> Outcome:
    """Runs or continues a search and leaves trials, checkpoints, best.json and report.html in `path`.

    Args:
      config: from `configure`, changed with `dataclasses.replace`.
      path: the workdir.
      command: the command line, for the report's "resume the search".
      progress: show it, on stderr.
      verbose: with the architecture of every epoch or trial.
      on_record: receives every line of trials.jsonl and metrics.jsonl as a dict.
      changed_plugin: resume although the plugin's file is another one than the run was begun with.
      **arrays: x and y, perhaps x_valid, y_valid, x_test, y_test and class_names, in the place of the data that the
        settings name; they are kept in the workdir as an .npz.

    Returns:
      The best trial's row, the metric, and how many trials there were.

    Raises:
      ValueError: wrong settings, data not found, or a workdir that is not this run's.
      RunError: the run cannot continue (full disk), or every candidate failed.
    """
    jax_settings.check()
    path = Path(path)
    config = with_arrays(config, path, arrays)
    with ExitStack() as held:
        begins = "starting the workers" if getattr(config, "workers", 0) else "reading the data"
        watch = held.enter_context(watching(progress, on_record, begins, verbose=verbose))
        problem = Problem(config, watch.say, workdir.strategy(path))
        experiment = catalog.method(config.method).make(problem)
        runtime, facts = held.enter_context(_workers(problem, path, experiment, watch.say))
        published = {"compared": rows} if (rows := compared(config)) else {}
        record = record_of(config, {"command": command, **published, **facts})
        path = held.enter_context(hosts.own_workdir(path, record))
        own: dict[str, Any] = {
            "defaults": defaults_of(config),
            "may_change": resumable(config),
            "changed_plugin": changed_plugin,
        }
        with workdir.opened(path, record, **own), _reported(path):
            plugin.keep(path, config.plugin)
            watch.say(_opening(config, path, record))
            if runtime is None:  # else a worker has said it, and this process has not read the data
                for line in few_steps(problem, *_SEARCHED):
                    watch.say(line)
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

    runtime, facts = workers.start(work_of, problem, path, say)
    with afterwards(runtime.close):
        for line in facts.pop("told"):
            say(line)
        yield runtime, facts


def work_of(
    tree: dict[str, Any], path: str, sources: list[str], cache: str, begun: str = ""
) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """Builds an experiment from config.json's settings in a worker process; returns its facts and task -> result.

    Args:
      tree: the settings.
      path: the workdir.
      sources: the plugins' files.
      cache: folder of compiled programs, "" = none.
      begun: as of `Problem`.
    """
    from nasjax.drive.work import worker

    here = workers.arrived(tree, sources, cache, begun)
    problem = here.problem
    config = problem.config
    experiment = catalog.method(config.method).make(problem)
    assert experiment.evaluator is not None
    facts = {**experiment.facts(), **environment()}
    require_retraining(problem, experiment.before_retrain is not None)
    facts["told"] = [*here.told, *few_steps(problem, *_SEARCHED)]  # by the driver, of the first worker
    evaluator, describe = experiment.evaluator(), experiment.describe()
    return facts, here.publishing(worker(evaluator, Path(path), describe, experiment.refuse, config.save_every))


@contextmanager
def watching(
    progress: bool, on_record: Record | None, begins: str = "reading the data", *, verbose: bool = False
) -> Iterator[Watch]:
    """Where progress and records go in this block: to standard error, never silent for long, and to the function.

    `begins` is what the block does first.
    """
    quiet = Watch() if on_record is None else Watch(record=on_record)
    if not progress:
        yield quiet
        return
    bar = sys.stderr.isatty()

    def say(line: str) -> None:
        if bar:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    shown = quiet._replace(say=say, bar=bar, verbose=verbose, began=time.monotonic())
    with heartbeat(shown, begins) as watch:
        yield watch


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Writes the report at the end, also of a search that failed or was interrupted."""

    def written() -> None:
        if (path / "trials.jsonl").exists() or (path / "metrics.jsonl").exists():
            report([path])

    with afterwards(written):
        yield


def _opening(config: Any, path: Path, record: dict[str, Any]) -> str:
    """What runs, and what it needs. How long it takes is told once the first candidate or epoch was measured."""
    line = f"{config.method} on {record['dataset']['name']}, in {path}: {in_words(record['strategy'])}"
    estimates = record.get("estimates", {})
    needs = []
    if memory := estimates.get("bytes", {}).get(record["strategy"]):
        needs.append(f"a candidate takes about {memory / 2**20:,.0f} MiB of memory")
    if disk := estimates.get("disk"):
        needs.append(f"weights to inherit take at most {disk / 2**20:,.0f} MiB of disk")
    return "\n".join([line, *(["estimate: " + "; ".join(needs)] if needs else [])])


def report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Writes the report and returns its path.

    Args:
      paths: one workdir, or several that are overlaid.
      out: the file; None = report.html in the workdir, or report-A-B.html beside several.
    """
    from nasjax.report import write_report

    return write_report(paths, out, program=started.own())
