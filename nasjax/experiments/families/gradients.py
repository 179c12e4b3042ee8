"""What the experiments of the DARTS family are made of: their settings, and the parts of a search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from nasjax.data.dataset import DataConfig
from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments.families.settings import Config, dataset_facts
from nasjax.experiments.families.true_results import with_truth
from nasjax.learners.bilevel import Relaxation
from nasjax.learners.curvature import hessian_product, largest_eigenvalue
from nasjax.learners.descent import Adam
from nasjax.learners.mixture import Mixture, Names, Stem
from nasjax.learners.stopping import Stopping
from nasjax.problem.given import LARGE, Given
from nasjax.problem.problem import Problem
from nasjax.train.augment import Augment, require_suited
from nasjax.train.batches import Batches, paired
from nasjax.train.fit import resident
from nasjax.train.objective import objective
from nasjax.train.parallel import device_count
from nasjax.train.recipe import DTYPES, Recipe, require_batch
from nasjax.train.sgd import Sgd
from nasjax.types import Learner, Network, PyTree, Stages


@dataclass(frozen=True)
class TrainingConfig:
    """How a search network is trained; what a method adds stands in its own file.

    Attributes:
      epochs, batch_size: of the search (P-DARTS: of each stage); the batch of each of the two sides.
      accumulate: parts in which a batch of either side goes through the network, for a published batch on a device that
        holds a part of it; batch norm has the statistics of a part.
      sgd, adam: of weights and architecture parameters (MSR-DARTS has none of these).
      dtype: of the large multiplications.
    """

    epochs: int = 50
    batch_size: int = 64
    accumulate: int = 1
    sgd: Sgd = Sgd()
    adam: Adam = Adam()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate is a number of equal parts of batch_size={self.batch_size}, got {self.accumulate}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; choose {', '.join(DTYPES)}")


@dataclass(frozen=True)
class SearchConfig(TrainingConfig):
    """The same with a search network of stacked cells.

    Attributes:
      channels, layers: C and L of the search network.
      stem: what its images enter by: one convolution, or three that halve the sides, of C or of 3 C channels.
    """

    channels: int = 16
    layers: int = 8
    stem: Stem = "cifar"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"channels must be even (FactorizedReduce halves them), got {self.channels}")
        if self.layers < 3:
            raise ValueError(f"layers must be at least 3, got {self.layers}: with fewer no cell is a normal one")
        if self.stem not in get_args(Stem):
            raise ValueError(f"unknown stem {self.stem!r}; choose {', '.join(get_args(Stem))}")


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Config):
    """Everything that decides a search by gradients.

    Attributes:
      augment: of the search.
      train_part: share of the training part on which the search trains weights; what it finds is retrained on all.
    """

    augment: Augment
    train_part: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.train_part <= 1:
            raise ValueError(f"train_part must be a part of all, above 0 and up to 1, got {self.train_part}")


class Learning(NamedTuple):
    """The parts of a search by gradients, ready for `drive.learn`."""

    problem: Problem
    stages: Stages
    batches: Batches
    networks: Callable[[int, Any], Network]  # (stage, facts) -> the search network
    weights: Callable[[PyTree], dict[str, np.ndarray]]  # state -> what the histories show, e.g. softmax(alpha)
    choice: Callable[[PyTree], PyTree]  # state -> the network's mixing weights
    derive: Callable[[int, Any, PyTree], dict[str, Any]]  # (stage, facts, state) -> architecture as JSON
    inherit: Callable[[PyTree], PyTree]  # state -> the weights that the derived cell inherits
    facts: dict[str, Any]  # for config.json
    # how a cell is read, see `Mixture`
    discrete: Callable[[Mapping[str, Any], Mapping[str, Any], PyTree], PyTree]
    written: Callable[[Mapping[str, Any]], str]
    skips: Callable[[Mapping[str, Any]], int]
    stopping: Stopping = Stopping()
    curvature: Callable[[PyTree], float] | None = None  # state -> the dominant eigenvalue, where it is measured
    lengths: tuple[int, ...] = ()  # epochs of each stage that does not end early, for the time left; () = not known


def one_stage(learner: Callable[[], Learner], names: Mapping[str, Names]) -> Stages:
    """Stages of a method that has one; `names` are the operators of the network's edges."""
    facts = {cell: [list(of) for of in names[cell]] for cell in names}
    return Stages(lambda i, previous, state: facts if i == 0 else None, lambda i, facts: learner())


class SearchData(NamedTuple):
    """What a search by gradients reads."""

    batches: Batches
    problem: Problem
    facts: dict[str, Any]  # for config.json


def data_of(problem: Problem, *, each_cell: bool = False) -> SearchData:
    """The data of a search, and what config.json says of them; `each_cell` as of `mixture`.

    Raises:
      ValueError: the data do not fit the search, or the network in which the found cell will be evaluated.
    """
    config: LearnConfig = problem.config
    _require_shared(problem, each_cell)
    task, data = problem.task, problem.data
    if config.train_part < 1:  # the first ones: their order is drawn by data.split_seed
        some = max(1, round(config.train_part * len(data.train.y)))
        data = data._replace(train=data.train._replace(x=data.train.x[:some], y=data.train.y[:some]))
    require_suited(config.augment, data.train.x.shape[1:], "augment")
    require_batch(config.search.batch_size, min(len(data.train.y), len(data.valid.y)), "search.batch_size")
    problem.built(problem.example())  # rather than after the search
    with_truth(config, config.space.encode)
    devices, parts, size = device_count(), config.search.accumulate, config.search.batch_size
    if parts > 1 and size % (parts * devices):
        raise ValueError(
            f"search.accumulate={parts} does not divide the {size / devices:g} samples that a device has of "
            f"search.batch_size={size}"
        )
    batches = paired(resident(data), task, batch_size=size, cfg=config.augment, devices=devices)
    if parts > 1:  # a validation's batch needs no more memory than a part of training's
        whole = batches.valid
        batches = batches._replace(valid=lambda most=None: whole(most or size // parts))
    facts = {**dataset_facts(data, task), "strategy": f"one supernet on {devices} device(s)"}
    return SearchData(batches, problem, facts)


def _require_shared(problem: Problem, each_cell: bool) -> None:
    if getattr(problem.space, "cells", 0) and not each_cell:
        raise ValueError(f"{problem.config.method} repeats the cells that it finds: leave out space.cells")


def mixture(problem: Problem, layers: int | None = None, *, each_cell: bool = False, **options: Any) -> Mixture:
    """The search network of a problem; with another number of layers, and with `options` of its space's `mixed`.

    Raises ValueError where its space has none, or wants a cell for each of a network and the method is not one that
    finds them cell by cell, `each_cell`.
    """
    _require_shared(problem, each_cell)
    if problem.builder.mixed is None:
        raise ValueError(f"--space={problem.space.name} has no search network; choose another method or space")
    search = problem.config.search if layers is None else dataclasses.replace(problem.config.search, layers=layers)
    found: Mixture = problem.builder.mixed(problem.space, problem.form, search, problem.signature, **options)
    return found


def counts(network: Mixture) -> dict[str, Any]:
    """What --mode=inspect says of a search network."""
    return {"describes": "search network", "params": network.params, "macs": network.macs}


def mixed(
    data: SearchData,
    found: Mixture,
    learner: Callable[[Network], Learner],
    relaxation: Relaxation,
    weights: Callable[[PyTree], dict[str, np.ndarray]],
    scores: Callable[[PyTree], dict[str, np.ndarray]],
    stopping: Stopping | None = None,
) -> Learning:
    """The parts of a method of one stage whose cells are derived from scores of operators.

    Args:
      data: of the search.
      found: the search network.
      learner: of a network.
      relaxation: of the learner.
      weights: state -> what the histories show.
      scores: state -> what the cells are derived from.
      stopping: when it ends early; None = never.
    """
    stopping = stopping or Stopping()
    network = found.network(data.problem.config.search.dtype)
    product = hessian_product(network, relaxation, objective(data.problem.task))

    def curvature(state: PyTree) -> float:
        """On the first validation batch, with the same vector to begin with in every epoch."""
        x, y, _ = next(data.batches.valid())
        times = product(state.params, state.batch_stats, state.alpha, (x, y))
        size = sum(leaf.size for leaf in jax.tree.leaves(state.alpha))
        return largest_eigenvalue(times, size, stopping.lanczos_steps, jax.random.key(0))

    return Learning(
        problem=data.problem,
        stages=one_stage(lambda: learner(network), found.names),
        batches=data.batches,
        networks=lambda stage, facts: network,
        weights=weights,
        choice=lambda state: relaxation.choice(state.alpha, None, state.epoch),
        derive=lambda stage, facts, state: found.derive(scores(state)),
        inherit=lambda state: state.params,
        facts=data.facts,
        discrete=found.discrete,
        written=found.written,
        skips=found.skips,
        stopping=stopping,
        curvature=curvature if stopping.measured else None,
        lengths=(data.problem.config.search.epochs,),
    )


class Preset(NamedTuple):
    """What a preset of a method decides over one space, as plain values; the rest follows from the data set.

    Attributes:
      search: the method's own settings.
      form: of the network that the found cell is retrained in.
      recipe: of the retraining; its crops and mirror images are the data set's. None = the space's own.
      valid_part: share of the training images that serves as the validation side.
      train_part: share of the training images on which the search trains weights; None = all others.
      part: the samples of the retraining, "train" or "all".
      own_augment: the recipe's augmentation counts as it is.
      augment: of the search; None = what suits the data set, cut by padding.
      space: a variant of the space; None = its default.
    """

    search: Any
    form: Any
    recipe: Recipe | None
    valid_part: float = 0.5
    train_part: float | None = None
    part: Literal["train", "all"] = "train"
    own_augment: bool = False
    augment: Augment | None = None
    space: Any = None


Presets = Mapping[tuple[str, ...], Preset]  # (preset, space), or (preset, space, LARGE) for large images


# How a demo trains the cell that it found; ours, but for DARTS's optimiser.
DEMO_RECIPE = Recipe(
    epochs=15,
    batch_size=96,
    learning_rate=0.025,
    nesterov=False,
    weight_decay=3e-4,
    schedule="cosine",
    clip=5.0,
)


def preset(method: str, given: Given, presets: Presets) -> LearnConfig:
    """The settings of a method of the DARTS family.

    Args:
      method: its name.
      given: what is asked for.
      presets: of the method.

    Raises:
      ValueError: unknown preset or space.
    """
    spaces = list(dict.fromkeys(space for _, space, *_ in presets))
    if given.space not in spaces:
        raise ValueError(f"unknown space {given.space!r} for {method}; choose {' or '.join(spaces)}")
    given.known(*dict.fromkeys(name for name, *_ in presets))
    data, key = given.data(), (given.preset, given.space)
    chosen = (presets.get((*key, LARGE)) if data.large else None) or presets[key]
    augment = dataclasses.replace(data.augment, crop="pad")
    recipe = given.last_recipe(chosen.recipe, data.augment)
    if not chosen.own_augment:
        recipe = dataclasses.replace(recipe, augment=dataclasses.replace(augment, cutout=recipe.augment.cutout))
    valid_size = math.floor(data.source.size * chosen.valid_part) if data.source.size else None
    if valid_size and not given.published:  # its whole batches: the demo's split since the first version
        valid_size -= valid_size % chosen.search.batch_size
    return LearnConfig(
        method=method,
        preset=given.preset,
        search=chosen.search,
        space=given.builder.default if chosen.space is None else chosen.space,
        data=DataConfig(name=data.name, valid_size=valid_size, fit=given.fit(data)),
        augment=chosen.augment or augment,
        train_part=1.0 if chosen.train_part is None else chosen.train_part / (1 - chosen.valid_part),
        form=chosen.form,
        retrain_recipe=recipe,
        retrain=RetrainConfig(part=chosen.part),
    )
