"""Methods that try candidates one by one: a searcher, and an evaluator that trains each or looks it up in a table."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from nasjax import catalog
from nasjax.building.built import builds, describer, signature, task_of
from nasjax.building.cell_tree import MEDIUM
from nasjax.building.tabular_cell import BENCHMARK
from nasjax.data.dataset import DataConfig, load
from nasjax.drive.pictures import take
from nasjax.drive.progress import progress
from nasjax.drive.recorded import Summary
from nasjax.drive.search import search
from nasjax.drive.work import worker
from nasjax.evaluators.child import STRATEGIES, child
from nasjax.evaluators.cost_model import choose_strategy, chunk_size, usable_bytes
from nasjax.evaluators.table import load_table, table
from nasjax.experiments.families.config import (
    Config,
    closing,
    dataset_facts,
    default_augment,
    refusal,
)
from nasjax.experiments.families.true_results import with_truth
from nasjax.runtime.inline import inline
from nasjax.runtime.ray import RayConfig
from nasjax.searchers.policy import DepthSchedule, depth_column, depth_schedule
from nasjax.spaces.cell_tree import CellTree
from nasjax.spaces.conv_chain import ConvChain, variant
from nasjax.spaces.tabular_cell import TabularCell
from nasjax.store import artifacts, workdir
from nasjax.train.by_parts import unsuited
from nasjax.train.recipe import Recipe
from nasjax.types import (
    Budget,
    Builder,
    Built,
    Evaluator,
    Experiment,
    Metric,
    Outcome,
    PyTree,
    Runtime,
    Searcher,
    Watch,
)

RUNTIMES = ("auto", "inline", "process", "ray")
_WEIGHT_BYTES = 5  # of a stored weight, with its share of the running statistics
_FILE_BYTES = 2**18  # of the names and headers in a file of weights, at most
_SAMPLES = 16  # architectures whose mean stands for the space in the estimate of time and memory


@dataclass(frozen=True)
class TableConfig:
    """Where `--space=tabular_cell` reads its results; None lets `load_table` choose by the file's layout."""

    path: str = ""
    fitness: str | None = None
    cost: str | None = None
    cost_scale: float | None = None
    result: str | None = None


@dataclass(frozen=True, kw_only=True)
class CandidateConfig(Config):
    """Everything that decides a search by candidates.

    Attributes:
      form: settings of the candidates' networks beside the space, as its Builder has them.
      recipe: how a candidate is trained.
      table: where its results are looked up instead.
      strategy: "auto", "vmap", "exact", "parts" or "path".
      width: candidates that are evaluated together, and told together.
      inherit: children begin with the weights of their parents, where the space says how.
      runtime: where candidates are evaluated: "inline", in this process; "process", in others on this machine; "ray";
        "auto" = "process" with workers, "inline" without.
      workers: that evaluate, each one candidate at a time (with strategy "vmap" `width` of them); 0 = none, this
        process does.
      ray: settings of the runtime "ray".
      trial_timeout: seconds after which a worker is stopped and its candidates have failed.
      last_epochs: fitness = the best validation metric of the last epochs.
      trials, wall_s, cost_s: the budget; the first limit reached counts.
      max_params, max_macs: candidates beyond are refused before training.
    """

    form: Any = None
    recipe: Recipe = Recipe()
    table: TableConfig = TableConfig()
    strategy: str = "auto"
    width: int = 8
    inherit: bool = False
    runtime: str = "auto"
    workers: int = 0
    ray: RayConfig = RayConfig()
    trial_timeout: float | None = None
    last_epochs: int = 5
    trials: int | None = 32
    wall_s: float | None = None
    cost_s: float | None = None
    max_params: int | None = None
    max_macs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials is None and self.wall_s is None and self.cost_s is None:
            raise ValueError("a search needs a budget: trials, wall_s or cost_s")
        for name in ("trials", "wall_s", "cost_s", "max_params", "max_macs", "trial_timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {self.strategy!r}; choose {', '.join(STRATEGIES)}")
        if self.last_epochs < 1:
            raise ValueError(f"last_epochs must be at least 1, got {self.last_epochs}")
        if self.width < 1 or self.workers < 0:
            raise ValueError(f"width must be at least 1 and workers not negative, got {self.width} and {self.workers}")
        if self.runtime not in RUNTIMES:
            raise ValueError(f"unknown runtime {self.runtime!r}; choose {', '.join(RUNTIMES)}")
        if self.runtime in ("process", "ray") and not self.workers:
            raise ValueError(f"runtime {self.runtime} needs workers; add --workers=N")
        if self.runtime == "inline" and self.workers:
            raise ValueError("runtime inline has no workers; leave --workers out, or use --runtime=process")
        if self.trial_timeout is not None and not self.workers:
            raise ValueError("trial_timeout needs worker processes, which can be stopped; add --workers=1")

    @property
    def looked_up(self) -> bool:
        """See `Config`."""
        return bool(self.table.path)

    @property
    def network_form(self) -> Any:
        """See `Config`."""
        return self.form

    def tabled(self, path: str) -> Self:
        """The same with results from the table `path`, and the budget of its benchmark: 12,000 simulated seconds."""
        table = dataclasses.replace(self.table, path=path)
        if self.looked_up:
            return dataclasses.replace(self, table=table)
        return dataclasses.replace(self, table=table, trials=110 if self.preset == "demo" else None, cost_s=12_000.0)


class Problem(NamedTuple):
    """A space and how its candidates are judged."""

    evaluator: Evaluator
    facts: dict[str, Any]  # for config.json: data, metric, chosen strategy, estimates


def experiment(
    config: CandidateConfig,
    searcher: Searcher,
    metrics: Callable[[PyTree], dict[str, Any]] | None = None,
    kept: int | None = None,
) -> Experiment:
    """A searcher on the problem of `config`.

    Args:
      config: the settings.
      searcher: what to try next.
      metrics: its state -> scalars for metrics.jsonl.
      kept: trials, beside those at work, their parents and the best, whose weights it may hand on at a time; None =
        not known. The disk that they take is said before a run.

    Raises ValueError or FileNotFoundError that says what to write instead.
    """
    budget = Budget(config.trials, config.wall_s, config.cost_s)
    found = functools.cache(lambda: problem(config, kept))

    def run(path: Path, watch: Watch, runtime: Runtime | None = None) -> Outcome:
        describe, metric = known(config)
        # Children of one program train side by side; others wait for none.
        width = config.width if runtime is None or workdir.read(path)["strategy"] == "vmap" else 1
        so_far: Summary | None = None

        def told(summary: Summary) -> None:
            nonlocal so_far
            so_far = summary
            show(summary)

        try:
            with progress(budget, metric, watch) as show:
                so_far = search(
                    jax.random.key(config.seed),
                    searcher,
                    runtime or inline(worker(found().evaluator, path)),
                    workdir=path,
                    budget=budget,
                    describe=describe,
                    width=width,
                    refuse=refusal(config),
                    metrics=metrics,
                    timeout_s=config.trial_timeout,
                    on_told=told,
                    record=watch.record,
                )
        finally:  # also of a search that was interrupted
            if so_far is not None and so_far.weights is not None:
                _show_best(config, path, so_far)
        return closing(config, path, so_far, metric, not config.looked_up)

    return Experiment(config, lambda: found().facts, run, lambda: found().evaluator)


def _show_best(config: CandidateConfig, path: Path, summary: Summary) -> None:
    """What the best trial, with the weights that it ended with, makes of some validation samples."""
    builder = catalog.builder(config.space.name)
    task, data = task_of(config, builder), load(config.data)
    assert summary.best is not None and summary.weights is not None
    built = builder.build(config.space, config.form, summary.best["arch"], task.signature(data))
    variables = artifacts.load(path, summary.weights)["variables"]
    title = f"The best of the search, trial {summary.best['id']}"
    take(path / "pictures" / "best.npz", task, built, config.recipe, variables, data.valid, data, title)


def known(config: CandidateConfig) -> tuple[Callable[[np.ndarray], dict[str, Any]], Metric]:
    """What needs no evaluator: Arch -> arch (JSON), hash, params, macs; and the metric."""
    space, builder = config.space, catalog.builder(config.space.name)
    if config.looked_up:
        counts = {"params": None, "macs": None}
        looked_up = lambda arch: {"arch": space.encode(arch), "hash": space.identity(arch), **counts}  # noqa: E731
        return with_truth(config, looked_up), Metric("accuracy")
    describe = describer(builder, space, config.form, signature(config))
    return with_truth(config, describe), task_of(config, builder).metric


def problem(config: CandidateConfig, kept: int | None = None) -> Problem:
    """Loads the data or the table that `config` names. Raises ValueError or FileNotFoundError with what to write.

    `kept` as of `experiment`.
    """
    space, builder = config.space, catalog.builder(config.space.name)
    with_truth(config, space.encode)  # refuses a table that cannot be read
    if config.looked_up:
        return _tabular(config, space)
    task = task_of(config, builder)
    data = load(config.data)
    form = task.signature(data)
    masked = builder.masked(space, config.form, form) if builder.masked else None
    build = builds(builder, space, config.form, form)
    builts = _sample(config, build)
    size = len(data.train.y)
    chosen, estimates = choose_strategy(builts, masked, config.recipe, size, jax.default_backend())
    if config.strategy != "auto":
        chosen = config.strategy
    if (chosen == "vmap" and not masked) or (chosen == "path" and not (masked and masked.branching)):
        raise ValueError(f"--space={space.name} has no network for strategy {chosen}; use --set strategy=exact")
    if (need := estimates["bytes"].get(chosen, 0)) > usable_bytes():
        raise ValueError(
            f"one child needs about {need / 2**30:.1f} GiB with strategy {chosen}, "
            f"{usable_bytes() / 2**30:.1f} GiB are usable; try --set strategy=exact, "
            "a smaller --set recipe.batch_size or a smaller space"
        )
    if chosen == "parts":
        network = builts[0].network(bn_eps=config.recipe.bn_eps, dtype=config.recipe.dtype)
        if reason := unsuited(network, config.recipe):
            raise ValueError(f"no network of --space={space.name} trains by parts: {reason}; use --set strategy=exact")
    if config.inherit and (builder.inherit is None or chosen in ("vmap", "path")):
        raise ValueError(f"--space={space.name} with strategy {chosen} inherits no weights; use --set inherit=false")
    chunk = None
    if chosen == "vmap":
        chunk = min(config.width, chunk_size(room)) if (room := estimates["bytes"].get("vmap")) else config.width
    evaluator = child(
        build,
        data,
        task,
        recipe=config.recipe,
        masked=masked if chosen in ("vmap", "path") else None,
        path=chosen == "path",
        last_epochs=config.last_epochs,
        chunk=chunk,
        parts=chosen == "parts",
        inherit=builder.inherit if config.inherit else None,
        keep_weights=config.inherit,
    )
    if config.inherit and kept is not None:
        estimates["disk"] = _disk(config, builts, kept)
    facts = {**dataset_facts(data, task), "strategy": chosen, "chunk": chunk, "estimates": estimates}
    return Problem(evaluator, facts)


def _disk(config: CandidateConfig, builts: Sequence[Built], kept: int) -> int:
    """Bytes that inherited weights take at most: `kept` trials, the best, those at work and their parents."""
    limits = [limit for limit in (config.max_params, getattr(config.space, "max_params", None)) if limit]
    params = min(limits) if limits else max(built.params for built in builts)
    at_work = 2 * max(1, config.workers) * config.width
    return (kept + 1 + at_work) * (params * _WEIGHT_BYTES + _FILE_BYTES)


def _sample(config: CandidateConfig, build: Callable[[np.ndarray], Built]) -> list[Built]:
    """Some networks of the space. Raises ValueError where none fits the data."""
    builts, reason = [], ""
    for arch in np.asarray(jax.jit(jax.vmap(config.space.sample))(jax.random.split(jax.random.key(0), _SAMPLES))):
        try:
            builts.append(build(arch))
        except ValueError as error:  # this one fails in training too
            reason = str(error)
    if not builts:
        raise ValueError(f"no network of --space={config.space.name} fits --dataset={config.data.name}: {reason}")
    return builts


def _tabular(config: CandidateConfig, space: TabularCell) -> Problem:
    names = config.table
    rows = load_table(
        names.path, space, fitness=names.fitness, cost=names.cost, result=names.result, cost_scale=names.cost_scale
    )

    digest = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in rows)).hexdigest()
    facts = {
        "dataset": {"name": "table", "path": names.path, "sha256": digest},
        "metric": known(config)[1]._asdict(),
        "strategy": "table",
    }
    return Problem(table(space, rows), facts)


def scheduled(space: Any, search: Any) -> DepthSchedule:
    """The depth schedule of a method's settings (depth_first, depth_step, depth_every), within the space's depths."""
    column = depth_column(space)
    largest = max(space.sites[column].choices) if column is not None else 1
    first = min(search.depth_first or largest, largest)
    return depth_schedule(first=first, step=search.depth_step, every=search.depth_every, maximum=largest)


PAPER = {"paper": "v1", "paper_v2": "v2", "paper_v3": "v3"}  # preset -> published variant of conv_chain


def preset(
    method: str, name: str, dataset: str | None, space: str | None, search: dict[str, Any], default: str = "conv_chain"
) -> CandidateConfig:
    """The named settings of a method.

    Args:
      method: its name.
      name: "demo" (at most three minutes on two CPU cores), or a published setting: "paper" (conv_chain's variant v1,
        no strides), "paper_v2" (strides), "paper_v3" (max-pooling, 13 blocks of 3 layers).
      dataset: of the catalog, or the path of an .npz; None = digits for the demo, cifar10 for the paper's, or what
        the space's networks are for.
      space: any of the catalog; None = `default`.
      search: "demo" and "paper" -> the method's own settings.
      default: the space where none is given.

    Raises:
      ValueError: unknown preset or space.
    """
    if name not in ("demo", *PAPER):
        raise ValueError(f"unknown preset {name!r}; choose demo, {', '.join(PAPER)}")
    builder: Builder = catalog.builder(space or default)
    if name in ("paper_v2", "paper_v3") and not isinstance(builder.default, ConvChain):
        raise ValueError("the presets paper_v2 and paper_v3 are of conv_chain; choose demo or paper")
    paper = name in PAPER
    dataset = dataset or default_dataset(builder, paper)
    chosen, form = builder.default, builder.form
    if paper and isinstance(chosen, ConvChain):
        chosen = variant(PAPER[name])
    if not paper and builder.small:
        chosen, form = builder.small
    recipe = builder.recipe or Recipe(augment=default_augment(dataset))
    long = 300 if builder.recipe is None else recipe.epochs  # epochs of the paper's last training
    if paper and isinstance(chosen, CellTree):
        recipe = MEDIUM
    if paper and isinstance(chosen, TabularCell):
        shifted = dataclasses.replace(default_augment(dataset), crop="pad")
        recipe, long = dataclasses.replace(BENCHMARK, augment=shifted), BENCHMARK.epochs
    return CandidateConfig(
        method=method,
        preset=name,
        search=search["paper" if paper else name],
        space=chosen,
        form=form,
        data=DataConfig(name=dataset),
        recipe=recipe if paper else dataclasses.replace(recipe, epochs=4),
        retrain_recipe=dataclasses.replace(recipe, epochs=long if paper else 20),
        trials=12_800 if paper else 32,
    )


def default_dataset(builder: Builder, paper: bool) -> str:
    """The data set of a preset: the published one, or the first of the catalog that the networks are for."""
    if "classification" in builder.tasks:
        return "cifar10" if paper else "digits"
    fitting = [name for name in catalog.DATA if catalog.source(name).task in builder.tasks]
    if not fitting:
        raise ValueError(f"no known data set is for {' or '.join(builder.tasks)}; give --dataset")
    return next((name for name in fitting if catalog.source(name).folder == paper), fitting[0])


# Zoph & Le 2017, Table 1
_CHAINS = {
    "v1": {"model": "v1, no stride or pooling, 15 layers", "params": 4_200_000, "test_error": 0.0550},
    "v2": {"model": "v2, predicting strides, 20 layers", "params": 2_500_000, "test_error": 0.0601},
    "v3": {"model": "v3, max pooling, 39 layers", "params": 7_100_000, "test_error": 0.0447},
    "v3+": {"model": "v3 with 40 more filters, 39 layers", "params": 37_400_000, "test_error": 0.0365},
}


def published(config: CandidateConfig) -> dict[str, Any] | None:
    """The published result nearest to a configuration, where there is one."""
    space = config.space
    if not isinstance(space, ConvChain):
        return None
    if space.block_layers > 1:
        name = "v3+" if space.extra_filters else "v3"
    else:
        name = "v2" if space.strides else "v1"
    return {"dataset": "cifar10", **_CHAINS[name], "source": "Zoph & Le 2017, Table 1"}
