"""The settings of the experiments on weight-sharing supernets, and how a method's presets fill them in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from nasjax.data.dataset import DataConfig
from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments.families.path_costs import COSTS, OBJECTIVES
from nasjax.experiments.families.settings import Config, require_latency, require_memory
from nasjax.learners.one_shot_update import Descent, Trainable
from nasjax.nets.supernet import LastNorms
from nasjax.problem.given import LARGE, Given
from nasjax.settings import ALONE, RESUMABLE
from nasjax.train.augment import Augment
from nasjax.train.recipe import DTYPES, Recipe


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
