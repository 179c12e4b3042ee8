"""Networks of a search's front with the weights that it trained, in folders beside the retrained network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from nasjax import catalog
from nasjax.commands.configuration import config_of, environment
from nasjax.commands.searching import report, watching
from nasjax.drive.finetune import finetuned, recipe_of
from nasjax.problem.problem import Problem
from nasjax.problem.saved import described
from nasjax.report.ranking import front
from nasjax.report.runs import trial
from nasjax.runtime import jax_settings
from nasjax.store import checkpoint, workdir
from nasjax.types import Metric

BN_EPS = 1e-5  # of supernets


class Point(NamedTuple):
    """A network of the front, as it was written."""

    trial: int
    files: list[Path]  # of its export
    result: dict[str, Any]  # result.json

    @property
    def line(self) -> str:
        """What it is, for the user."""
        metric = Metric(**self.result["metric"])
        value = metric.shown(self.result[f"test_{metric.name}"])
        tuned = ""
        if "finetuned" in self.result:
            before, epochs = metric.shown(self.result["finetuned"]["before"]), self.result["finetuned"]["epochs"]
            tuned = f" after {epochs} epochs of fine-tuning ({before} before)"
        return (
            f"trial {self.trial}: test {metric.name} {value}{tuned} on {self.result['test_samples']:,} samples, "
            f"{self.result['macs']:,} multiply-adds, {self.result['params']:,} parameters: {self.files[0].parent}"
        )


def export_points(
    path: str | Path,
    point: int | str = "all",
    format: str = "jax",
    *,
    finetune_epochs: int | None = None,
    finetune_rate: float | None = None,
    progress: bool = True,
) -> list[Point]:
    """Writes networks of a finished search with its weights, and exports each as `nasjax.export` does.

    Running statistics are calibrated, and each network is measured on the test part. Which of them to take is to be
    decided by the validation metric, which the search has told. Nothing is trained unless `finetune_epochs` says so;
    a repeated call then trains no finished network again.

    Args:
      path: the workdir.
      point: a trial's number, or "all" of the front, the fewest multiply-adds first.
      format: as of `nasjax.export`.
      finetune_epochs: of training each network on, by the retraining's recipe without its warm-up; None = none.
      finetune_rate: its learning rate; None = a tenth of the recipe's.
      progress: show it, on stderr.

    Returns:
      What was written: a folder points/NUMBER each, which `nasjax.load(path, point=NUMBER)` reads; of fine-tuned ones
      points/NUMBER-finetuned, for point="NUMBER-finetuned".

    Raises:
      ValueError: no such trial, or a method or space whose networks inherit no weights.
    """
    from nasjax import model

    jax_settings.check()
    model.require_format(format)
    path = Path(path)
    config, rows, found = config_of(path), _asked(path, point), []
    with watching(progress, None) as watch:
        problem = Problem(config, watch.say)
        inherited = catalog.method(config.method).make(problem).inherited
        if inherited is None:
            raise ValueError(
                f"--method={config.method} has no weights for --point={point}: its networks are retrained, "
                "--mode=retrain"
            )
        recipe = None
        if finetune_epochs is not None:
            recipe = recipe_of(config.retrain_recipe, problem.data, finetune_epochs, finetune_rate, BN_EPS)
        elif finetune_rate is not None:
            raise ValueError("--finetune_rate has no effect without --finetune_epochs; leave it out")
        unusual = jax_settings.unusual()
        known_of = {"plugin": config.plugin} | ({"jax": unusual} if unusual else {})
        metric = problem.metric
        searched = workdir.read(path).get("metric", {}).get("name")
        for row, (variables, tested) in zip(rows, inherited(path, rows, watch), strict=True):
            name: int | str = row["id"] if recipe is None else f"{row['id']}-finetuned"
            folder = workdir.point(path, name)
            folder.mkdir(parents=True, exist_ok=True)
            known: dict[str, Any] = (
                {f"valid_{metric.name}": metric.value(_first(row))} if searched == metric.name else {}
            )
            if recipe is not None:
                watch.say(f"trial {row['id']}: fine-tuning, {recipe.epochs} epochs at {recipe.learning_rate:g}")
                before = tested
                given = problem.built(row["arch"]), variables, recipe, problem.data, problem.test(), problem.task
                variables, tested, facts = finetuned(config.seed, *given, folder, known_of, watch)
                known = {
                    f"valid_{metric.name}": facts.pop(f"valid_{metric.name}"),
                    "finetuned": {"before": before, **facts},
                }
                _forget(folder, known["finetuned"])
            model.save(folder, variables, described(problem, row["arch"], problem.data, BN_EPS))
            result = {
                **{name: row[name] for name in ("arch", "params", "macs")},
                "trial": row["id"],
                "metric": metric._asdict(),
                f"test_{metric.name}": tested,
                "test_samples": len(problem.test().y),
                **known,
                **environment(),
            }
            checkpoint.write_json(folder / "result.json", result)
            found.append(Point(row["id"], model.export(path, format, point=name), result))
            watch.say(found[-1].line)
        report([path])
    return found


def _forget(folder: Path, tuned: dict[str, Any]) -> None:
    """Of an earlier fine-tuning the result goes, and what was made of it where it was another one."""
    result = folder / "result.json"
    before = json.loads(result.read_text()).get("finetuned") if result.exists() else None
    result.unlink(missing_ok=True)
    if before != json.loads(json.dumps(tuned)):
        for made in ("export", "predict"):
            shutil.rmtree(folder / made, ignore_errors=True)


def _first(row: dict[str, Any]) -> float:
    fitness = row["fitness"]
    return float(fitness[0] if isinstance(fitness, list) else fitness)


def _asked(path: Path, point: int | str) -> list[dict[str, Any]]:
    """The rows of trials.jsonl that are asked for. Raises ValueError where there are none."""
    rows = {row["id"]: row for row in checkpoint.read_lines(path / "trials.jsonl") if row["status"] == "ok"}
    if not rows:
        raise ValueError(f"{path} has no trials; run --mode=search first")
    best = front([trial(row, order) for order, row in enumerate(rows.values(), 1)])
    if point == "all":
        return [rows[one.id] for one in sorted(best, key=lambda one: (one.macs or 0, one.id))]
    if (number := int(point) if str(point).isdecimal() else -1) not in rows:
        known = ", ".join(str(one.id) for one in best[:20])
        raise ValueError(f"{path} has no trial {point}; give the number of one, of the front {known}, or all")
    return [rows[number]]
