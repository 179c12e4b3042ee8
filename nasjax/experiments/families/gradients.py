"""What the experiments of the DARTS family are made of: their settings, and the parts of a search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax import catalog
from nasjax.building.darts_cell import SMALL, EvalConfig, evaluation_recipe, skips
from nasjax.building.problem import Problem
from nasjax.building.tabular_cell import BENCHMARK
from nasjax.data.dataset import DataConfig
from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments.families.config import Config, dataset_facts, default_augment, presets
from nasjax.experiments.families.true_results import with_truth
from nasjax.learners.bilevel import Relaxation
from nasjax.learners.curvature import hessian_product, largest_eigenvalue
from nasjax.learners.derivation import Names, discrete_choice
from nasjax.learners.descent import Adam, Sgd
from nasjax.learners.mixture import Mixture
from nasjax.learners.stopping import Stopping
from nasjax.spaces.darts_cell import DartsCell
from nasjax.spaces.darts_notation import written
from nasjax.spaces.darts_plan import SearchPlan
from nasjax.spaces.tabular_cell import TabularCell
from nasjax.spaces.tabular_plan import TabularForm
from nasjax.train.augment import Augment, require_suited
from nasjax.train.batches import Batches, paired
from nasjax.train.fit import resident
from nasjax.train.objective import objective
from nasjax.train.parallel import device_count
from nasjax.train.recipe import DTYPES, Recipe
from nasjax.types import Learner, Network, PyTree, Signature, Stages


@dataclass(frozen=True)
class TrainingConfig:
    """How a search network is trained; what a method adds stands in its own file.

    Attributes:
      epochs, batch_size: of the search (P-DARTS: of each stage); the batch of each of the two sides.
      sgd, adam: of weights and architecture parameters (MSR-DARTS has none of these).
      dtype: of the large multiplications.
    """

    epochs: int = 50
    batch_size: int = 64
    sgd: Sgd = Sgd()
    adam: Adam = Adam()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; choose {', '.join(DTYPES)}")


@dataclass(frozen=True)
class SearchConfig(TrainingConfig):
    """The same with the search network of `darts_cell`.

    Attributes:
      channels, layers: C and L of the search network.
    """

    channels: int = 16
    layers: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        SearchPlan(self.channels, self.layers)  # refuses sizes that cannot be built
        if self.layers < 3:
            raise ValueError(f"layers must be at least 3, got {self.layers}: with fewer no cell is a normal one")


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Config):
    """Everything that decides a search by gradients.

    Attributes:
      augment: of the search.
      eval: the network in which the found cell is evaluated; None where `form` is.
      form: of search network and evaluation network, where they are one as in `tabular_cell`.
    """

    augment: Augment
    eval: EvalConfig | None = EvalConfig()
    form: TabularForm | None = None

    @property
    def network_form(self) -> Any:
        """See `Config`."""
        return self.eval if self.form is None else self.form


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
    discrete: Callable[[Mapping[str, Any], Mapping[str, Any], PyTree], PyTree] = discrete_choice
    written: Callable[[Mapping[str, Any]], str] = written
    skips: Callable[[Mapping[str, Any]], int] = skips
    stopping: Stopping = Stopping()
    curvature: Callable[[PyTree], float] | None = None  # state -> the dominant eigenvalue, where it is measured


def one_stage(learner: Callable[[], Learner], names: Mapping[str, Names]) -> Stages:
    """Stages of a method that has one; `names` are the operators of the network's edges."""
    facts = {cell: [list(of) for of in names[cell]] for cell in names}
    return Stages(lambda i, previous, state: facts if i == 0 else None, lambda i, facts: learner())


class SearchData(NamedTuple):
    """What a search by gradients reads."""

    batches: Batches
    problem: Problem
    facts: dict[str, Any]  # for config.json


def data_of(problem: Problem) -> SearchData:
    """The data of a search, and what config.json says of them.

    Raises:
      ValueError: the data do not fit the search, or the network in which the found cell will be evaluated.
    """
    config: LearnConfig = problem.config
    task, data = problem.task, problem.data
    require_suited(config.augment, data.train.x.shape[1:], "augment")
    problem.built(problem.example())  # rather than after the search
    with_truth(config, config.space.encode)
    devices = device_count()
    batches = paired(resident(data), task, batch_size=config.search.batch_size, cfg=config.augment, devices=devices)
    facts = {**dataset_facts(data, task), "strategy": f"one supernet on {devices} device(s)"}
    return SearchData(batches, problem, facts)


def mixture(problem: Problem, partial: int = 1) -> Mixture:
    """The search network of a problem. Raises ValueError where its space has none."""
    if problem.builder.mixed is None:
        raise ValueError(f"--space={problem.space.name} has no search network; choose another method or space")
    found: Mixture = problem.builder.mixed(
        problem.space, problem.form, problem.config.search, problem.signature, partial
    )
    return found


def search_plan(config: LearnConfig, signature: Signature, **changes: Any) -> SearchPlan:
    """The tables of the method's search network, for counts."""
    search = config.search
    shape, operators = signature.inputs.shape, config.space.searched
    plan = SearchPlan(search.channels, search.layers, signature.outputs, operators, image=shape)
    return dataclasses.replace(plan, **changes)


def counts(network: SearchPlan | Mixture) -> dict[str, Any]:
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
    )


def preset(
    method: str,
    name: str,
    dataset: str | None,
    space: str | None,
    search: dict[str, Any],
    *,
    valid_part: float = 0.5,
    layers: int = 20,
    recipe: Recipe | None = None,
    imagenet: Recipe | None = None,
    tabular: dict[str, Any] | None = None,
) -> LearnConfig:
    """The named settings of a method of the DARTS family.

    Args:
      method: its name.
      name: "demo" (at most three minutes on two CPU cores) or "paper".
      dataset: "digits", "cifar10", "imagenet" (for --mode=inspect) or the path of an .npz.
      space: "darts_cell", or None for it; "tabular_cell" where `tabular` is given.
      search: preset -> the method's own settings.
      valid_part: share of the training images that serves as the validation side, 1/2 in DARTS, 1/5 in MSR-DARTS.
      layers, recipe, imagenet: the paper's evaluation: cells on CIFAR-10, and the training there and on ImageNet;
        None = as in DARTS.
      tabular: preset -> the method's own settings over the cells of NAS-Bench-201.

    Raises:
      ValueError: unknown preset or space.
    """
    presets(name, ("demo", "paper"))
    known = ("darts_cell", "tabular_cell") if tabular else ("darts_cell",)
    if space not in (None, *known):
        raise ValueError(f"unknown space {space!r} for {method}; choose {' or '.join(known)}")
    if space == "tabular_cell":
        assert tabular
        search = tabular
    dataset = dataset or ("cifar10" if name == "paper" else "digits")
    pool = catalog.source(dataset).size
    valid_size = math.floor(pool * valid_part) if pool else None
    if valid_size and name == "demo":
        valid_size -= (
            valid_size % search[name].batch_size
        )  # its whole batches: the demo's split since the first version
    augment = dataclasses.replace(default_augment(dataset), crop="pad")
    config = LearnConfig(
        method=method,
        preset=name,
        search=search[name],
        space=DartsCell(),
        data=DataConfig(name=dataset, valid_size=valid_size),
        augment=augment,
        eval=SMALL,
        retrain_recipe=dataclasses.replace(
            evaluation_recipe(epochs=15, cutout=0, drop_path=0.0, auxiliary=False), augment=augment
        ),
    )
    if name == "paper":
        config = dataclasses.replace(config, retrain=RetrainConfig(part="all"))
    if space == "tabular_cell":
        builder = catalog.builder(space)
        form = builder.form if name == "paper" or not builder.small else builder.small[1]
        config = dataclasses.replace(config, space=TabularCell(), eval=None, form=form)
        recipe = dataclasses.replace(BENCHMARK, augment=augment)
        return dataclasses.replace(config, retrain_recipe=recipe) if name == "paper" else config
    if name == "paper" and dataset == "imagenet":
        stem = EvalConfig(48, 14, True, "imagenet")
        config = dataclasses.replace(config, eval=stem, retrain_recipe=imagenet or imagenet_recipe())
    elif name == "paper":
        chosen = recipe or evaluation_recipe()
        own = dataclasses.replace(augment, cutout=chosen.augment.cutout)
        chosen = dataclasses.replace(chosen, augment=own)
        config = dataclasses.replace(config, eval=EvalConfig(layers=layers), retrain_recipe=chosen)
    return config


def imagenet_recipe() -> Recipe:
    """The mobile setting of DARTS (Liu et al. 2019, appendix A.3).

    Random resized crops and colour jitter are not built: there is no ImageNet here.
    """
    return Recipe(
        epochs=250,
        batch_size=128,
        learning_rate=0.1,
        nesterov=False,
        weight_decay=3e-5,
        schedule="exponential",
        rate_decay=0.97,
        clip=5.0,
        auxiliary_weight=0.4,
        label_smoothing=0.1,
    )


def fast_imagenet_recipe() -> Recipe:
    """The mobile setting of PC-DARTS (Xu et al. 2020, section 4.3) and P-DARTS (from its paper, unverified).

    The rate's line, its flatter end and its warm-up are PC-DARTS's; P-DARTS's release differs (docs/deviations.md).
    """
    recipe = imagenet_recipe()
    return dataclasses.replace(recipe, batch_size=1024, learning_rate=0.5, warmup_epochs=5, schedule="linear_tail")
