"""What the experiments of the DARTS family are made of: their settings, and the parts of a search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from nasjax.building.built import build
from nasjax.data.dataset import DataConfig, load
from nasjax.experiments.families.candidates import AUGMENT, RetrainConfig, dataset_facts
from nasjax.learners.derivation import CELLS
from nasjax.learners.descent import Adam, Sgd
from nasjax.spaces.darts_cell import EDGES, OPERATORS, DartsCell
from nasjax.spaces.darts_plan import SearchPlan
from nasjax.train.augment import Augment
from nasjax.train.batches import Batches, paired
from nasjax.train.fit import resident
from nasjax.train.parallel import device_count
from nasjax.train.recipe import DTYPES, Recipe
from nasjax.types import Learner, Network, PyTree, Stages

METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # what the learners' steps return


@dataclass(frozen=True)
class SearchConfig:
    """The search network and its training; what a method adds stands in its own file.

    Attributes:
      channels, layers: C and L of the search network.
      epochs, batch_size: of the search (P-DARTS: of each stage); the batch of each of the two sides.
      sgd, adam: of weights and architecture parameters (MSR-DARTS has none of these).
      dtype: of the large multiplications.
    """

    channels: int = 16
    layers: int = 8
    epochs: int = 50
    batch_size: int = 64
    sgd: Sgd = Sgd()
    adam: Adam = Adam()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        SearchPlan(self.channels, self.layers)  # refuses sizes that cannot be built
        if self.layers < 3:
            raise ValueError(f"layers must be at least 3, got {self.layers}: with fewer no cell is a normal one")
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; choose {', '.join(DTYPES)}")


@dataclass(frozen=True)
class EvalConfig:
    """The evaluation network, spec section 3; `--mode=inspect` counts it and `--mode=retrain` trains it."""

    channels: int = 36
    layers: int = 20
    auxiliary: bool = True
    stem: Literal["cifar", "imagenet"] = "cifar"


@dataclass(frozen=True)
class LearnConfig:
    """Everything that decides a search by gradients; written to config.json."""

    method: str
    preset: str
    search: Any  # SearchConfig of the method
    space: DartsCell
    data: DataConfig
    augment: Augment  # of the search
    eval: EvalConfig = EvalConfig()
    retrain_recipe: Recipe = Recipe()
    retrain: RetrainConfig = RetrainConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0..4294967295, got {self.seed}")


class Learning(NamedTuple):
    """A method on its data, ready for `learning.learn`."""

    config: LearnConfig
    stages: Stages
    batches: Batches
    networks: Callable[[int, Any], Network]  # (stage, facts) -> the search network
    weights: Callable[[PyTree], dict[str, np.ndarray]]  # state -> what the histories show, e.g. softmax(alpha)
    choice: Callable[[PyTree], PyTree]  # state -> the network's mixing weights
    derive: Callable[[int, Any, PyTree], dict[str, Any]]  # (stage, facts, state) -> architecture as JSON
    inherit: Callable[[PyTree], PyTree]  # state -> the weights that the derived cell inherits
    facts: dict[str, Any]  # for config.json


def every_edge(operators: tuple[str, ...]) -> dict[str, list[list[str]]]:
    """The facts of a stage in which all edges choose from the same operators."""
    return {cell: [list(operators)] * len(EDGES) for cell in CELLS}


def one_stage(learner: Callable[[], Learner], operators: tuple[str, ...] = OPERATORS) -> Stages:
    """Stages of a method that has one."""
    return Stages(lambda i, facts, state: every_edge(operators) if i == 0 else None, lambda i, facts: learner())


def data_of(config: LearnConfig) -> tuple[Batches, dict[str, Any], int]:
    """Batches, what config.json says of the data, and the number of classes.

    Raises:
      ValueError: the data do not fit the search, or the network in which the found cell will be evaluated.
    """
    data = load(config.data)
    some = config.space.encode(np.asarray(config.space.sample(jax.random.key(0))))
    build(config, some, data.train.x.shape[1:], data.classes)  # now rather than after the search
    devices = device_count()
    batches = paired(resident(data), batch_size=config.search.batch_size, cfg=config.augment, devices=devices)
    return batches, {"dataset": dataset_facts(data), "strategy": f"one supernet on {devices} device(s)"}, data.classes


def discrete_choice(tree: Mapping[str, Any], facts: Mapping[str, Any], like: PyTree) -> PyTree:
    """The search network's `choice` that computes the derived cell alone: 1 for what was kept, 0 elsewhere.

    Args:
      tree: the derived architecture as JSON.
      facts: the operators of each edge.
      like: a choice of the network; the weights of edges, where it has them, become 1 and 0 as well (ours).
    """
    out = dict(like)
    for cell in CELLS:
        kept = np.zeros(np.shape(like[cell]), np.float32)
        for position, (operator, source) in enumerate(tree[cell]):
            edge = EDGES.index((source, 2 + position // 2))
            kept[edge, list(facts[cell][edge]).index(operator)] = 1.0
        out[cell] = kept
        if f"{cell}_edges" in out:  # partial channels pass by the operators, so 0 for these is not enough
            out[f"{cell}_edges"] = kept.any(1).astype(np.float32)
    return out


def search_plan(config: LearnConfig, image: tuple[int, int, int], classes: int, **changes: Any) -> SearchPlan:
    """The tables of the method's search network, for counts."""
    plan = SearchPlan(config.search.channels, config.search.layers, classes, image=image)
    return dataclasses.replace(plan, **changes)


def preset(
    method: str, name: str, dataset: str | None, space: str | None, search: dict[str, Any], valid_part: float = 0.5
) -> LearnConfig:
    """The named settings of a method of the DARTS family.

    Args:
      method: its name.
      name: "demo" (at most three minutes on two CPU cores) or "paper".
      dataset: "digits", "cifar10", "imagenet" (for --mode=inspect) or the path of an .npz.
      space: "darts_cell", or None for it.
      search: preset -> the method's own settings.
      valid_part: share of the training images that serves as the validation side, 1/2 in DARTS, 1/5 in MSR-DARTS.

    Raises:
      ValueError: unknown preset or space.
    """
    if name not in ("demo", "paper"):
        raise ValueError(f"unknown preset {name!r}; choose demo or paper")
    if space not in (None, "darts_cell"):
        raise ValueError(f"unknown space {space!r} for {method}; choose darts_cell")
    dataset = dataset or ("cifar10" if name == "paper" else "digits")
    pool = {"digits": 1500, "cifar10": 50_000}.get(dataset)
    valid_size = math.floor(pool * valid_part) if pool else None
    if valid_size and name == "demo":
        valid_size -= valid_size % search[name].batch_size  # a smaller last batch would compile the network again
    augment = dataclasses.replace(AUGMENT.get(dataset, Augment(crop="pad", crop_size=1, flip=False)), crop="pad")
    # Drop path of 0.3 in PC-DARTS and P-DARTS, 0.2 in DARTS (spec sections 3, 5 and 6).
    evaluation = evaluation_recipe(
        augment,
        batch_size=128 if method == "p_darts" else 96,
        drop_path=0.3 if method in ("pc_darts", "p_darts") else 0.2,
    )
    layers = 8 if method == "msr_darts" else 20
    config = LearnConfig(
        method=method,
        preset=name,
        search=search[name],
        space=DartsCell(),
        data=DataConfig(name=dataset, valid_size=valid_size),
        augment=augment,
        eval=EvalConfig(channels=8, layers=5, auxiliary=False),
        retrain_recipe=evaluation_recipe(augment, epochs=15, cutout=0, drop_path=0.0, auxiliary=False),
    )
    if name == "paper":
        imagenet = dataset == "imagenet"
        config = dataclasses.replace(
            config,
            eval=EvalConfig(48, 14, True, "imagenet") if imagenet else EvalConfig(layers=layers),
            retrain_recipe=imagenet_recipe(method) if imagenet else evaluation,
        )
    return config


def evaluation_recipe(
    augment: Augment,
    *,
    epochs: int = 600,
    batch_size: int = 96,
    cutout: int = 16,
    drop_path: float = 0.2,
    auxiliary: bool = True,
) -> Recipe:
    """Training a CIFAR network of cells from scratch (spec section 3; Liu et al. 2019, appendix A.2)."""
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=0.025,
        nesterov=False,
        weight_decay=3e-4,
        schedule="cosine",
        clip=5.0,
        drop_path=drop_path,
        auxiliary_weight=0.4 if auxiliary else 0.0,
        augment=dataclasses.replace(augment, cutout=cutout),
    )


def imagenet_recipe(method: str) -> Recipe:
    """The mobile setting of spec section 3; that of PC-DARTS (section 5) and P-DARTS (its paper, unverified) differs.

    Random resized crops and colour jitter are not built: no ImageNet here.
    """
    recipe = Recipe(
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
    if method in ("pc_darts", "p_darts"):
        return dataclasses.replace(recipe, batch_size=1024, learning_rate=0.5, warmup_epochs=5, schedule="linear")
    return recipe
