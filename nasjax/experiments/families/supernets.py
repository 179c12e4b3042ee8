"""What the experiments on weight-sharing supernets are made of: their settings, and the parts of the three phases."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from nasjax import catalog
from nasjax.data.dataset import DataConfig
from nasjax.drive.retrain import RetrainConfig
from nasjax.evaluators.supernet import indicator, inherited_accuracy, path_accuracy, with_costs
from nasjax.experiments.families.beginning import beginning
from nasjax.experiments.families.limits import limited, require_reachable
from nasjax.experiments.families.path_costs import COSTS, OBJECTIVES, Cost, cost_of, memory_of, objectives, within
from nasjax.experiments.families.settings import Config, dataset_facts, latency_facts, require_latency, require_memory
from nasjax.experiments.families.supernet_options import network_options
from nasjax.experiments.families.true_results import with_truth
from nasjax.latency.record import Latency
from nasjax.learners import samplers
from nasjax.learners.one_shot import EarlyBird, one_shot
from nasjax.learners.one_shot_update import Descent, Trainable
from nasjax.nets.supernet import LastNorms, Shared, Supernet
from nasjax.problem.given import LARGE, Given
from nasjax.problem.meaning import of_networks
from nasjax.problem.problem import Problem
from nasjax.searchers.nsga2 import nsga2
from nasjax.searchers.topk import topk_evolution
from nasjax.settings import ALONE, RESUMABLE
from nasjax.train.augment import Augment, require_suited
from nasjax.train.batches import Batches, training
from nasjax.train.fit import resident
from nasjax.train.parallel import device_count
from nasjax.train.recipe import DTYPES, Recipe, require_batch
from nasjax.train.streaming import streamed
from nasjax.train.transfer import Transfer
from nasjax.types import Evaluator, Metric, PyTree, Searcher, Stages


@dataclass(frozen=True)
class SupernetConfig:
    """The first phase.

    Attributes:
      epochs, batch_size: of the training.
      descent: its optimiser.
      sampler: "uniform", "macs_bins" (SPOS's released trainer), "strict" (FairNAS) or "sandwich" (BigNAS: the largest
        path, the smallest and random ones).
      bins: edges of the bins of multiply-adds, for "macs_bins".
      random_paths: of the sandwich, beside the largest and the smallest.
      distill: of the sandwich: only the largest path learns from the targets, the others from its outputs.
      regularise: of the sandwich: dropout and decay act on "all" paths, or on the "largest" only.
      entangled: the operators of a layer are parts of the largest (a kernel's centre, the first channels), where the
        space leaves the choice; else each has its own weights.
      trainable: "all", "all_bn" or "last_bn".
      affine: whether batch norms of the supernet scale and shift; it has no effect where there are none.
      fresh_batches: strict fairness only: divide a batch among the paths.
      accumulate: parts in which a batch goes through a path, for a published batch on a device that holds a part of it.
      early_bird: Kendall's tau between the operator scores of two epochs that ends the training when it is reached
        twice in a row; None = all epochs.
      dropout: before the classifier.
      last_norms: where a shuffle block of stride 2 ends in two batch norms, which of them are scored, and trained by
        "last_bn": that of the "main" branch, or "both", the projection's too.
      dtype: of the large multiplications.
    """

    epochs: int = 120
    batch_size: int = 1024
    descent: Descent = Descent()
    sampler: Literal["uniform", "macs_bins", "strict", "sandwich"] = "uniform"
    bins: tuple[int, ...] = tuple(range(290_000_000, 360_000_001, 10_000_000))
    random_paths: int = 2
    distill: bool = False
    regularise: Literal["all", "largest"] = "all"
    entangled: bool = False
    trainable: Trainable = "all"
    affine: bool = False
    fresh_batches: bool = False
    accumulate: int = 1
    early_bird: float | None = None
    dropout: float = 0.1
    last_norms: LastNorms = "main"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate is a number of parts, at least 1; got {self.accumulate}")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; choose {', '.join(DTYPES)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if (self.distill or self.regularise != "all") and self.sampler != "sandwich":
            raise ValueError("distill and regularise=largest need the largest path in every step: set sampler=sandwich")
        if self.fresh_batches and self.sampler == "sandwich":
            raise ValueError("fresh_batches divides a batch among strictly fair paths; leave it out with a sandwich")
        if self.early_bird is not None and not (self.affine and -1 <= self.early_bird <= 1):
            raise ValueError("early_bird is Kendall's tau of the scales of batch norms: -1..1, and affine=true")


@dataclass(frozen=True)
class EvolutionConfig:
    """The second phase.

    Attributes:
      score: "accuracy" (inherited weights, statistics re-calibrated per path) or "indicator" (scales of batch norms).
      searcher: "topk" (Guo et al. 2020, section 3.4) or "nsga2" on the score and `objectives`.
      objectives: of "nsga2", beside the score: macs, params, latency (predicted milliseconds), memory (MB at
        inference), the less the better.
      prefer_params: of "nsga2": "fewer" parameters, or "more", the objective +params.
      population, top_k, mutants, crossovers, mutation_rate: of the evolution.
      calibration_batches, calibration_batch_size, average: of the re-calibration, see `evaluators.supernet`.
    """

    score: Literal["accuracy", "indicator"] = "accuracy"
    searcher: Literal["topk", "nsga2"] = "topk"
    objectives: tuple[str, ...] = OBJECTIVES
    population: int = 50
    top_k: int = 10
    mutants: int = 25
    crossovers: int = 25
    mutation_rate: float = 0.1
    prefer_params: Literal["fewer", "more"] = "fewer"
    calibration_batches: int = 200
    calibration_batch_size: int = 128
    average: Literal["cumulative", "ema"] = "cumulative"

    def __post_init__(self) -> None:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives) or set(self.objectives) - COSTS:
            raise ValueError(f"objectives are distinct ones of {', '.join(sorted(COSTS))}; got {self.objectives}")


@dataclass(frozen=True, kw_only=True)
class OneShotConfig(Config):
    """Everything that decides a run of the three phases.

    Attributes:
      form: of the paths' own networks, see `Config`. A resumed search may alter settings that the supernet lacks.
      augment: of the supernet's training.
      trials: paths that the search evaluates; 0 = train the supernet only.
      latency: a file of --mode=latency, by which milliseconds of paths are predicted; "" = none.
      max_params, max_macs, max_latency_ms, max_memory_mb: paths beyond are never proposed. Memory is in MB of 10^6
        bytes, of weights and activations at inference.
      memory_batch: samples of a call, for the memory of activations.
      init_from: the workdir of a one-shot search, or a .safetensors file, with whose weights the supernet begins; its
        head begins anew where it was trained on other data. "" = all of it.
    """

    form: Any = field(default=None, metadata=ALONE)
    augment: Augment
    supernet: SupernetConfig
    trials: int = field(default=1050, metadata=RESUMABLE)
    max_params: int | None = None
    max_macs: int | None = None
    latency: str = ""
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    memory_batch: int = 1
    init_from: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_latency(self)
        require_memory(self)
        if "latency" in self.search.objectives and not self.latency:
            raise ValueError("search.objectives has latency: add --latency=FILE.json, which --mode=latency writes")
        if self.search.objectives != OBJECTIVES and self.search.searcher != "nsga2":
            raise ValueError(f"search.objectives has no effect with search.searcher={self.search.searcher}")
        if self.search.prefer_params != "fewer" and "params" not in self.search.objectives:
            raise ValueError("search.prefer_params has no effect without params in search.objectives")
        if self.trials < 0:
            raise ValueError(f"trials must not be negative, got {self.trials}; 0 trains the supernet only")
        if self.supernet.trainable != "all" and not self.supernet.affine:
            raise ValueError(f"supernet.trainable={self.supernet.trainable} needs supernet.affine=true")
        if self.search.score == "indicator" and not self.supernet.affine:
            raise ValueError("search.score=indicator reads the scales of batch norms: set supernet.affine=true")
        if self.search.prefer_params != "fewer" and self.search.searcher != "nsga2":
            raise ValueError(f"search.prefer_params has no effect with search.searcher={self.search.searcher}")

    @property
    def weighs_memory(self) -> bool:
        """Whether the search goes by the memory of networks."""
        return self.max_memory_mb is not None or "memory" in self.search.objectives


SMALL_SEARCH = EvolutionConfig(
    population=40, mutants=20, crossovers=20, calibration_batches=8, calibration_batch_size=64
)


class OneShot(NamedTuple):
    """The parts of a one-shot method, ready for `drive.learn` and then `drive.search`."""

    problem: Problem
    metric: Metric  # of the search's scores
    shared: Shared
    supernet: Supernet
    stages: Stages
    batches: Batches
    searcher: Searcher
    evaluator: Callable[[PyTree], Evaluator]  # state of the trained supernet -> how paths are judged
    describe: Callable[[np.ndarray], dict[str, Any]]
    facts: dict[str, Any]  # for config.json
    begin: Callable[[], Callable[[PyTree], Transfer]]  # `beginning`, read when first called; where init_from names any

    @property
    def config(self) -> OneShotConfig:
        """The settings of the run."""
        found: OneShotConfig = self.problem.config
        return found


def parts(problem: Problem) -> OneShot:
    """The parts of the search that the settings of a problem describe.

    Raises ValueError where they do not fit each other or the data, FileNotFoundError where there is no data.
    """
    config: OneShotConfig = problem.config
    task, data = problem.task, problem.data
    require_suited(config.augment, data.train.x.shape[1:], "augment")
    require_batch(config.supernet.batch_size, len(data.train.y), "supernet.batch_size")
    shared = shared_of(problem)
    space, settings, devices = config.space, config.supernet, device_count()
    if settings.fresh_batches and settings.batch_size % ((paths := samplers.strict_paths(space)) * devices):
        raise ValueError(
            f"fresh_batches divides supernet.batch_size={settings.batch_size} among {paths} paths on {devices} "
            f"device(s); make it a multiple of {paths * devices}"
        )
    divided = (samplers.strict_paths(space) if settings.fresh_batches else 1) * devices
    if settings.accumulate > 1 and settings.batch_size % (divided * settings.accumulate):
        raise ValueError(
            f"supernet.accumulate={settings.accumulate} does not divide the "
            f"{settings.batch_size / divided:g} samples that a device has of supernet.batch_size={settings.batch_size}"
        )
    arrays = resident(data)
    more = network_options(settings, shared, space.name)
    supernet = shared.network(affine=settings.affine, dropout=settings.dropout, dtype=settings.dtype, **more)
    scales = settings.trainable, settings.early_bird, config.search.score
    if supernet.scores is None and scales != ("all", None, "accuracy"):
        what = "share batch norms among operators" if settings.entangled else "have no batch norms"
        raise ValueError(
            f"networks of --space={space.name} {what} for --method={config.method} to train or score; "
            "choose another space, or set supernet.trainable=all, supernet.early_bird=none and search.score=accuracy"
        )
    begin = functools.cache(lambda: beginning(problem, supernet))
    if config.init_from and not problem.begun:
        begin()
    batches = training(arrays, task, batch_size=settings.batch_size, cfg=config.augment, devices=devices)
    sampler = sampler_of(config, shared)

    def learner(stage: int, facts: Any) -> Any:
        return one_shot(
            supernet,
            sampler,
            epochs=settings.epochs,
            epoch_steps=batches.epoch_steps,
            task=task,
            descent=settings.descent,
            trainable=settings.trainable,
            fresh_batches=settings.fresh_batches,
            accumulate=settings.accumulate,
            distill=settings.distill,
            regularised="first" if settings.regularise == "largest" else "all",
            early_bird=None if settings.early_bird is None else EarlyBird(settings.early_bird),
            affine=settings.affine,
        )

    # Here, so that what does not fit is told before any training.
    names = config.search.objectives if config.search.searcher == "nsga2" else ()
    memory = memory_of(problem)
    more_params = config.search.prefer_params == "more"
    costs = objectives(names, shared.counter, problem.latency, memory, more_params=more_params)
    if config.max_memory_mb is not None:
        require_reachable(problem, limited(problem))
    accuracy = None
    if config.search.score == "accuracy":
        accuracy = path_accuracy(
            supernet,
            arrays,
            task,
            calibration_batches=config.search.calibration_batches,
            batch_size=config.search.calibration_batch_size,
            average=config.search.average,
        )

    def evaluator(state: PyTree) -> Evaluator:
        if accuracy is None:
            judged = indicator(space, state.scores)
        else:
            together = {"chunk": config.search.population} if streamed(arrays) else {}  # a file is read once for all
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            judged = inherited_accuracy(accuracy, variables, **together)
        if costs:
            judged = with_costs(judged, *costs)
        return judged

    metric = task.metric if accuracy else Metric("batch norm score", "plain")
    strategy = f"one supernet on {devices} device(s)"
    facts = {**dataset_facts(data, task), "metric": metric._asdict(), "strategy": strategy, **latency_facts(problem)}
    if catalog.is_own("space", space.name):
        some = [np.asarray(space.sample(key)) for key in jax.random.split(jax.random.key(0), 4)]
        builts = [problem.build(arch) for arch in some]
        facts["networks"] = of_networks(builts, problem.signature, bn_eps=1e-5, dtype="float32")
    stages = Stages(lambda i, facts, state: {} if i == 0 else None, learner)
    searcher = searcher_of(config, shared, problem.latency, memory)
    describe = with_truth(config, describer(space, shared, problem.predicted))
    return OneShot(problem, metric, shared, supernet, stages, batches, searcher, evaluator, describe, facts, begin)


def shared_of(problem: Problem) -> Shared:
    """The supernet of the problem's space. Raises ValueError where it does not fit the data."""
    assert problem.builder.shared is not None
    shared: Shared = problem.builder.shared(problem.space, problem.form, problem.signature)
    return shared


def describer(
    space: Any, shared: Shared, predicted: Callable[..., dict[str, float]] = lambda arch, params, macs: {}
) -> Callable[[np.ndarray], dict[str, Any]]:
    """Arch -> its JSON form, parameters and multiply-adds of the network that is retrained, and what is `predicted`."""

    def describe(arch: np.ndarray) -> dict[str, Any]:
        params, macs = shared.counts(arch)
        known = {"arch": space.encode(arch), "hash": space.identity(arch), "params": params, "macs": macs}
        return known | predicted(arch, params, macs)

    return describe


def sampler_of(config: OneShotConfig, shared: Shared) -> samplers.Sampler:
    """Which paths a step of the supernet trains."""
    match config.supernet.sampler:
        case "uniform":
            return samplers.uniform(config.space)
        case "macs_bins":
            bins, (_, smallest), largest = config.supernet.bins, shared.smallest or (0, 0), shared.largest_macs
            if bins and (bins[0] > (largest or math.inf) or bins[-1] <= smallest):
                raise ValueError(
                    f"supernet.bins={bins[0]}..{bins[-1]} holds no path: they have {smallest} to {largest} "
                    "multiply-adds; set supernet.bins within"
                )
            return samplers.macs_bins(config.space, shared.counter("macs"), config.supernet.bins)
        case "strict":
            return samplers.strict_fairness(config.space)
        case "sandwich":
            if shared.ends is None:
                raise ValueError(
                    f"the largest and the smallest path of --space={config.space.name} are not known to "
                    "supernet.sampler=sandwich; choose another space, or set supernet.sampler=uniform"
                )
            return samplers.sandwich(config.space, shared.ends, config.supernet.random_paths)


def searcher_of(
    config: OneShotConfig, shared: Shared, latency: Latency | None = None, memory: Cost | None = None
) -> Searcher:
    """The evolution over paths, within --max_macs, --max_params, --max_latency_ms and --max_memory_mb."""
    search, limits = config.search, list[tuple[float, Cost]]()
    for name, limit, least in zip(
        ("params", "macs"), (config.max_params, config.max_macs), shared.smallest or (0, 0), strict=True
    ):
        if limit is not None and limit < least:
            raise ValueError(
                f"max_{name}={limit}, but the smallest path has {least} {name}; allow more, or leave it out"
            )
        if limit is not None:
            limits.append((min(limit, 2**31 - 1), shared.counter(name)))  # counts have 32 bits, so no path is beyond

    if config.max_latency_ms is not None:
        limits.append((config.max_latency_ms, cost_of("latency", shared.counter, latency, memory)))
    if config.max_memory_mb is not None:
        limits.append((config.max_memory_mb, cost_of("memory", shared.counter, latency, memory)))
    bound = within(limits)
    capacity = max(config.trials, search.population, 10_000)  # not the budget itself, which a resumed run may change
    if search.searcher == "nsga2":
        return nsga2(
            config.space,
            objectives=1 + len(search.objectives),
            population=search.population,
            mutation_rate=search.mutation_rate,
            feasible=bound,
            capacity=capacity,
        )
    return topk_evolution(
        config.space,
        population=search.population,
        top_k=search.top_k,
        mutants=search.mutants,
        crossovers=search.crossovers,
        mutation_rate=search.mutation_rate,
        feasible=bound,
        capacity=capacity,
    )


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says of the supernet; a path's multiply-adds lie between the two given."""
    shared = shared_of(problem)
    more = {"entangled": True} if problem.config.supernet.entangled else {}
    return {
        "describes": "supernet",
        "params": shared.params(problem.config.supernet.affine, **more),
        "macs": shared.largest_macs,
        "macs_of_smallest_path": shared.smallest[1] if shared.smallest else None,
    }


class Preset(NamedTuple):
    """What a preset of a method decides, as plain values; the rest follows from space and data set.

    Attributes:
      supernet, search: settings of the first two phases.
      recipe: of the third; its crops and mirror images are the data set's.
      form: of the paths' own networks.
      trials: paths that the search evaluates.
      dataset: that a published setting is for; None = the space's own.
      max_macs: the method's limit of multiply-adds on that data set.
      augment: of large images, of the supernet's training and the path's; None = what suits the data set, cut by
        padding, as on small ones.
    """

    supernet: SupernetConfig
    search: EvolutionConfig
    recipe: Recipe
    form: Any
    trials: int
    dataset: str | None = None
    max_macs: int | None = None
    augment: Augment | None = None


# How a demo trains the path that it found, without dropout; ours.
DEMO_RECIPE = Recipe(
    epochs=20, learning_rate=0.1, nesterov=False, weight_decay=1e-4, schedule="linear"
)  # once an epoch; all weights decay


def preset(
    method: str, given: Given, presets: Mapping[str, Preset], home: str, variant: Callable[[str], str]
) -> OneShotConfig:
    """The settings of a method over any space that has a supernet.

    In another space than its own a method's form, entanglement, data set and limit do not count, and a published
    setting retrains by the space's own recipe, as a demo does where plain image classifiers' would not do
    (`Given.last_recipe`).

    Args:
      method: its name.
      given: what is asked for.
      presets: of the method, by name.
      home: the space that they are for.
      variant: data set by name, or LARGE -> the name of this space's variant for it.

    Raises:
      ValueError: unknown preset or space.
    """
    builder, chosen = given.builder, presets.get(given.preset)
    if builder.shared is None:
        fitting = ", ".join(given.spaces("shared"))
        raise ValueError(f"--space={given.space} has no supernet for --method={method}; choose from {fitting}")
    given.known(*presets)
    assert chosen is not None
    own, published = given.space == home, given.published
    data = given.data(chosen.dataset if own else None)
    augment = dataclasses.replace(data.augment, crop="pad")
    if own and data.large:
        augment = chosen.augment or augment
    space, form = builder.small if builder.small and not published else (builder.default, builder.form)
    if own:
        assert builder.variant is not None
        space = builder.variant(variant(LARGE if data.large else data.name))
    recipe = given.last_recipe(None if published and not own else chosen.recipe, data.augment)
    return OneShotConfig(
        method=method,
        preset=given.preset,
        space=space,
        form=chosen.form if own else form,
        data=DataConfig(name=data.name, fit=given.fit(data)),
        augment=augment,
        supernet=chosen.supernet if own else dataclasses.replace(chosen.supernet, entangled=False),
        search=chosen.search,
        retrain_recipe=dataclasses.replace(recipe, augment=augment),
        retrain=RetrainConfig(part="all" if published else "train"),
        trials=chosen.trials,
        max_macs=chosen.max_macs if own and (data.large or data.name == chosen.dataset) else None,
    )
