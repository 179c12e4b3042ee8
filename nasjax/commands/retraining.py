"""Trains the architecture that was found from scratch, tests it once, and reports the result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from nasjax import catalog
from nasjax.commands import workers
from nasjax.commands.arrays import Arrays, with_arrays
from nasjax.commands.configuration import defaults_of, environment, published, record_of
from nasjax.commands.foresight import few_steps, require_retraining, require_settings
from nasjax.commands.searching import Record, report, watching
from nasjax.commands.table_row import table_row
from nasjax.problem.problem import Problem
from nasjax.problem.saved import described
from nasjax.report.ranking import kendall_tau
from nasjax.runtime import hosts, jax_settings
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.settings import as_json, resumable
from nasjax.store import checkpoint, plugin, started, workdir
from nasjax.types import Built, Metric, Runtime, Watch, afterwards, html_table


class Retrained(NamedTuple):
    """The result of retraining."""

    metric: Metric
    test: float  # the metric on the test part
    valid: float  # and on the validation part
    params: int
    arch: dict[str, Any]
    result: dict[str, Any]  # result.json
    lines: tuple[str, ...]  # lines for the user

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        found = {part: self.metric.shown(getattr(self, part)) for part in ("test", "valid")}
        rows = {f"{part} {self.metric.name}": value for part, value in found.items()}
        return html_table(
            "retrained", {**rows, "parameters": f"{self.params:,}", "architecture": self.arch}, self.lines
        )


def retrain(
    config: Any,
    path: str | Path,
    arch: str | None = None,
    *,
    progress: bool = True,
    on_record: Record | None = None,
    changed_plugin: bool = False,
    **arrays: Unpack[Arrays],
) -> Retrained:
    """Trains the best architecture of the workdir `path` (or `arch`: NAME, JSON or FILE) and tests it once.

    With retrain.top_k the best k are trained, and the best of them by the validation metric is tested. What was
    trained and tested before with the same settings is not trained or tested again. After a search of arrays give the
    same `arrays` again, as to `search`, or the settings `config_of(path)`.

    Raises ValueError where there is nothing to train, RunError where training fails.
    """
    jax_settings.check()
    path = Path(path)
    config = with_arrays(config, path, arrays)
    with watching(progress, on_record) as watch:
        return _retrain(config, path, arch, watch, changed_plugin)


def _retrain(config: Any, path: Path, arch: str | None, watch: Watch, changed_plugin: bool) -> Retrained:
    from nasjax.data.dataset import joined
    from nasjax.drive.retrain import Job, finished
    from nasjax.drive.retrain import retrain as train

    problem = Problem(config, watch.say)
    if problem.looked_up and problem.builder.of_table:
        raise ValueError(f"a search of a table trains nothing, and --space={config.space.name} has no networks")
    if problem.looked_up:
        raise ValueError(
            f"a search of a table trains nothing; train its cell in another workdir: {started.own()} --method=random "
            f"--mode=retrain --space={config.space.name} --dataset=cifar10 --arch={path}/best.json --workdir=OTHER"
        )
    before = catalog.method(config.method).make(problem).before_retrain if config.retrain.sample else None
    require_settings(problem, before is not None)
    task = problem.task
    trees = _to_train(problem, path, arch)
    samples = _samples(config, path)
    if (path / "config.json").exists():  # the search's record stays, except for the plugin
        record = workdir.read(path)
        record["config"] = {**record["config"], "plugin": config.plugin}
        if catalog.is_own("space", config.space.name):  # as it is registered now
            now = record_of(config, {})
            record |= {name: now[name] for name in ("registered",) if name in record and name in now}
            record["config"]["space"] = now["config"]["space"]
    else:
        record = record_of(config, {})
    with ExitStack() as held:
        path = held.enter_context(hosts.own_workdir(path, record))
        held.enter_context(
            workdir.opened(
                path,
                record,
                defaults=defaults_of(config),
                may_change=resumable(config),
                changed_plugin=changed_plugin,
            )
        )
        plugin.keep(path, config.plugin)
        keep_freed_memory()
        if before is not None:
            before(path, watch)
        data = problem.data
        hosts.agree("the samples", data.sha256)
        builts = [problem.built(tree) for tree in trees]
        require_retraining(problem, before is not None, builts[0])
        facts = {"data": samples, "plugin": config.plugin}
        if unusual := jax_settings.unusual():
            facts["jax"] = unusual

        job = Job(
            builts=builts,
            data=data,
            final=joined(data) if config.retrain.part == "all" else data,
            test=problem.test,
            task=task,
            recipe=config.retrain_recipe,
            settings=config.retrain,
            seed=config.seed,
            facts=facts,
            formed=_former(problem),
            runtime=lambda: _workers(problem, path, watch.say),
        )
        if done := finished(job, path):
            watch.say(f"already trained and tested with these settings (in {done[0]})")
            result = _restore(path, *done)
        else:
            for line in few_steps(problem, "retrain_recipe"):
                watch.say(line)
            folder, result, winner = train(job, path, watch)
            result |= {
                **({"name": arch} if arch in problem.builder.named else {}),
                "dataset": {"name": data.name, "train": len(job.final.train.y), "sha256": data.sha256},
                "published": _comparable(published(config, winner.built.arch), task.metric, problem),
                **environment(),
            }
            _save(problem, job.final, winner, folder, path, result, watch)
        report([path])
    metric = Metric(**result["metric"])
    test, valid = (result[f"{part}_{metric.name}"] for part in ("test", "valid"))
    lines = _told(config, path, result, metric)
    return Retrained(metric, test, valid, result["params"], result["arch"], result, tuple(lines))


def _former(problem: Problem) -> Callable[[dict[str, Any], dict[str, Any]], Built]:
    def formed(tree: dict[str, Any], changes: dict[str, Any]) -> Built:
        return problem.formed(changes).built(tree)

    return formed


@contextmanager
def _workers(problem: Problem, path: Path, say: Callable[[str], None]) -> Iterator[Runtime | None]:
    """The workers of config.workers for the points of a grid; None where this process tries them."""
    import jax

    if not getattr(problem.config, "workers", 0) or jax.distributed.is_initialized():
        yield None
        return
    runtime, _ = workers.start(points_of, problem, path, say)
    with afterwards(runtime.close):
        yield runtime


def points_of(
    tree: dict[str, Any], path: str, sources: list[str], cache: str, begun: str = ""
) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """In a worker: the facts of the data, and point of a grid -> its metric. Arguments as of `workers.start`."""
    from nasjax.drive.grid import trial
    from nasjax.drive.retrain import SAVE_S

    here = workers.arrived(tree, sources, cache, begun)
    problem = here.problem
    facts = {"dataset": {"name": problem.data.name, "sha256": problem.data.sha256}}
    return facts, here.publishing(trial(problem.data, problem.task, _former(problem), SAVE_S))


def _samples(config: Any, path: Path) -> dict[str, Any]:
    """Which samples, in the form in which equal ones are told from others by every version and in every place."""
    tree: dict[str, Any] = as_json(config.data)
    if workdir.keeps(path, config.data.name):
        del tree["data_dir"]  # of a workdir that was moved it is another
    plain = as_json(type(config.data)())
    for name in ("fit", "crop_part", "stream", "skip_corrupt"):  # which older versions did not have
        if tree[name] == plain[name]:
            del tree[name]
    del tree["readers"]  # no figure depends on it
    if config.data.target == "ask":
        del tree["target"]  # which older versions did not have
    tree["aspect"] = config.data.aspect or catalog.source(config.data.name).aspect
    if tree["aspect"] in ("", "squash"):
        del tree["aspect"]  # so were images read before there was a choice
    return tree


def _to_train(problem: Problem, path: Path, arch: str | None) -> list[dict[str, Any]]:
    if arch is not None:
        return [problem.read(arch)]
    if not (path / "best.json").is_file():
        raise ValueError(f"{path} has no best.json; run --mode=search first, or give --arch=NAME|JSON|FILE")
    top_k = problem.config.retrain.top_k
    if top_k == 1:
        return [problem.read(str(path / "best.json"))]
    from nasjax.drive.rows import rank

    rows = [row for row in checkpoint.read_lines(path / "trials.jsonl") if row["status"] == "ok"]
    rows = sorted(sorted(rows, key=lambda row: row["id"]), key=rank, reverse=True)  # of equally good ones the first
    best: dict[str, Any] = {}
    for row in rows:
        best.setdefault(row["hash"], row["arch"])  # an architecture that was tried twice counts by its better trial
    return list(best.values())[:top_k]


def _save(
    problem: Problem, data: Any, winner: Any, folder: Path, path: Path, result: dict[str, Any], watch: Watch
) -> None:
    """Writes the trained network and result.json into the job's folder, and into the workdir."""
    from nasjax import model

    task = problem.task
    description = described(problem.formed(winner.form), winner.built.arch, data, winner.recipe.bn_eps)
    for place in (folder, path):
        model.save(place, winner.variables, description)
    if task.sample is not None:
        try:
            result["sample"] = task.sample(model.load(path, run_plugin=True))
        except ValueError as error:
            watch.say(f"no sample for the report: {error}")
    for place in (folder, path):
        checkpoint.write_json(place / "result.json", result)
    _show(path, folder)


def _show(path: Path, folder: Path) -> None:
    """Saves the tested network's predictions of some samples for the report, where the task can draw them."""
    from nasjax.drive.retrain import PICTURES

    if (folder / PICTURES).exists():
        (path / "pictures").mkdir(exist_ok=True)
        shutil.copy(folder / PICTURES, path / "pictures" / "test.npz")


def _restore(path: Path, folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(path / "model", ignore_errors=True)
    shutil.copytree(folder / "model", path / "model")
    checkpoint.write_json(path / "result.json", result)
    _show(path, folder)
    return result


def _told(config: Any, path: Path, result: dict[str, Any], metric: Metric) -> Iterator[str]:
    """The closing lines about a retrained network, with the published figure where there is one."""
    value = metric.shown(result[f"test_{metric.name}"])
    if "test_top5_accuracy" in result:
        value += f", among the best five {metric.shown(result['test_top5_accuracy'])},"
    yield (
        f"Test {metric.name} {value} on {result['test_samples']} samples of {result['dataset']['name']}, "
        f"{result['params']:,} parameters."
    )
    row = result["published"]
    if row and config.preset == "demo":
        size = "" if row["params"] is None else f" with {row['params'] / 1e6:.1f}M parameters"
        yield (
            f"Published on {row['dataset']}, {row['model']}: {_figure(row, metric)}{size} "
            f"({row['source']}){_unlike(config, result, row)}."
        )
    if config.retrain.sample:
        yield _ranked(path, config.retrain.sample, metric)
    argument = ", run_plugin=True" if config.plugin else ""
    yield f"Results: {path}/result.json, {path}/model, {path}/report.html"
    in_program = catalog.names_own(config) and not config.plugin  # registered in a program, no file of its own
    yield f"Next: {f'nasjax.export({str(path)!r})' if in_program else plugin.command(path, config.plugin, 'export')}"
    if not in_program:
        yield f"On your files: {plugin.command(path, config.plugin, 'predict')} --input=FILE_OR_FOLDER"
    yield f"In Python: nasjax.load({str(path)!r}{argument})"
    if config.preset != "demo":
        yield table_row(config, result, metric, _unlike(config, result, row).lstrip("; ") if row else "")


def _ranked(path: Path, count: int, metric: Metric) -> str:
    """How well the search's scores rank the paths that were trained alone, of which some may have failed."""
    rows = checkpoint.read_lines(path / "standalone.jsonl")[:count]
    # Older files have the fitness, whatever the metric, as the accuracy.
    found = [(row["score"], row[metric.name], metric.sign) for row in rows if metric.name in row]
    found += [(row["score"], row["accuracy"], 1) for row in rows if metric.name not in row]
    pairs = [(score, sign * value) for score, value, sign in found if value is not None]
    tau = kendall_tau(pairs)
    told = "needs two paths that differ in both" if tau is None else f"{tau:.3f} (1 = the same order)"
    return f"Kendall's tau of the search's scores and of {len(pairs)} paths trained alone: {told}."


def _comparable(row: dict[str, Any] | None, metric: Metric, problem: Problem) -> dict[str, Any] | None:
    """A published result in this metric; None where it is in another, or the data are a user's own and not its.

    Of classifiers it is an error. Data that the catalog has no name for are taken for a published setting's folder.
    """
    if row is None:
        return None
    named, own = row["dataset"] in catalog.DATA, problem.source.folder and problem.config.data.name != row["dataset"]
    if own and (named or problem.config.preset == "demo"):
        return None
    known = f"test_{metric.name}" in row or ("test_error" in row and metric.name == "accuracy")
    return row if known else None


def _unlike(config: Any, result: dict[str, Any], row: dict[str, Any]) -> str:
    """Why a published figure is not comparable with ours, if it is not."""
    if "unlike" in row:
        return f"; {row['unlike']}"
    if config.data.name != row["dataset"]:
        return "; other data, not comparable"
    whole, ours = row.get("train"), result["dataset"]["train"]
    if whole is None or whole == ours:
        return ""
    return f"; trained on {whole:,} samples, ours on {ours:,}: not comparable"


def _figure(row: dict[str, Any], metric: Metric) -> str:
    """A published result in the metric's unit; of classifiers it is an error."""
    value = 1 - row["test_error"] if "test_error" in row else row[f"test_{metric.name}"]
    return metric.text(metric.value(value))
