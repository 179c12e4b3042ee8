"""What the experiments of the DARTS family are made of: their settings, and the parts of a search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nasjax import catalog
from nasjax.building.built import task_of
from nasjax.building.darts_cell import SMALL, EvalConfig
from nasjax.data.dataset import DataConfig, load
from nasjax.drive.retrain import RetrainConfig
from nasjax.experiments.families.config import Config, dataset_facts, default_augment, presets
from nasjax.learners.derivation import CELLS, Names
from nasjax.learners.descent import Adam, Sgd
from nasjax.spaces.darts_cell import EDGES, NODES, DartsCell
from nasjax.spaces.darts_plan import SearchPlan
from nasjax.train.augment import Augment
from nasjax.train.batches import Batches, paired
from nasjax.train.fit import resident
from nasjax.train.parallel import device_count
from nasjax.train.recipe import DTYPES, Recipe
from nasjax.types import Learner, Network, PyTree, Signature, Stages, Task

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


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Config):
    """Everything that decides a search by gradients.

    Attributes:
      augment: of the search.
      eval: the network in which the found cell is evaluated.
    """

    augment: Augment
    eval: EvalConfig = EvalConfig()

    @property
    def network_form(self) -> EvalConfig:
        """See `Config`."""
        return self.eval


class Learning(NamedTuple):
    """The parts of a search by gradients, ready for `drive.learn`."""

    config: LearnConfig
    task: Task
    signature: Signature
    stages: Stages
    batches: Batches
    networks: Callable[[int, Any], Network]  # (stage, facts) -> the search network
    weights: Callable[[PyTree], dict[str, np.ndarray]]  # state -> what the histories show, e.g. softmax(alpha)
    choice: Callable[[PyTree], PyTree]  # state -> the network's mixing weights
    derive: Callable[[int, Any, PyTree], dict[str, Any]]  # (stage, facts, state) -> architecture as JSON
    inherit: Callable[[PyTree], PyTree]  # state -> the weights that the derived cell inherits
    facts: dict[str, Any]  # for config.json


def one_stage(learner: Callable[[], Learner], names: Mapping[str, Names]) -> Stages:
    """Stages of a method that has one; `names` are the operators of the network's edges."""
    facts = {cell: [list(of) for of in names[cell]] for cell in CELLS}
    return Stages(lambda i, previous, state: facts if i == 0 else None, lambda i, facts: learner())


class SearchData(NamedTuple):
    """What a search by gradients reads."""

    batches: Batches
    task: Task
    signature: Signature
    facts: dict[str, Any]  # for config.json


def data_of(config: LearnConfig) -> SearchData:
    """The data of a search, and what config.json says of them.

    Raises:
      ValueError: the data do not fit the search, or the network in which the found cell will be evaluated.
    """
    builder = catalog.builder(config.space.name)
    task, data = task_of(config, builder), load(config.data)
    signature = task.signature(data)
    pairs = [[config.space.choices[0], i % 2] for i in range(2 * len(NODES))]
    some = {"space": config.space.name, **dict.fromkeys(CELLS, pairs)}
    builder.build(config.space, config.eval, some, signature)  # now rather than after the search
    devices = device_count()
    batches = paired(resident(data), task, batch_size=config.search.batch_size, cfg=config.augment, devices=devices)
    facts = {**dataset_facts(data, task), "strategy": f"one supernet on {devices} device(s)"}
    return SearchData(batches, task, signature, facts)


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


def search_plan(config: LearnConfig, signature: Signature, **changes: Any) -> SearchPlan:
    """The tables of the method's search network, for counts."""
    search = config.search
    shape, operators = signature.inputs.shape, config.space.searched
    plan = SearchPlan(search.channels, search.layers, signature.outputs, operators, image=shape)
    return dataclasses.replace(plan, **changes)


def counts(plan: SearchPlan) -> dict[str, Any]:
    """What --mode=inspect says of a search network."""
    return {"describes": "search network", "params": plan.params, "macs": plan.macs}


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
) -> LearnConfig:
    """The named settings of a method of the DARTS family.

    Args:
      method: its name.
      name: "demo" (at most three minutes on two CPU cores) or "paper".
      dataset: "digits", "cifar10", "imagenet" (for --mode=inspect) or the path of an .npz.
      space: "darts_cell", or None for it.
      search: preset -> the method's own settings.
      valid_part: share of the training images that serves as the validation side, 1/2 in DARTS, 1/5 in MSR-DARTS.
      layers, recipe, imagenet: the paper's evaluation: cells on CIFAR-10, and the training there and on ImageNet;
        None = as in DARTS.

    Raises:
      ValueError: unknown preset or space.
    """
    presets(name, ("demo", "paper"))
    if space not in (None, "darts_cell"):
        raise ValueError(f"unknown space {space!r} for {method}; choose darts_cell")
    dataset = dataset or ("cifar10" if name == "paper" else "digits")
    pool = catalog.source(dataset).size
    valid_size = math.floor(pool * valid_part) if pool else None
    if valid_size and name == "demo":
        valid_size -= valid_size % search[name].batch_size  # a smaller last batch would compile the network again
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
    if name == "paper" and dataset == "imagenet":
        stem = EvalConfig(48, 14, True, "imagenet")
        config = dataclasses.replace(config, eval=stem, retrain_recipe=imagenet or imagenet_recipe())
    elif name == "paper":
        chosen = recipe or evaluation_recipe()
        own = dataclasses.replace(augment, cutout=chosen.augment.cutout)
        chosen = dataclasses.replace(chosen, augment=own)
        config = dataclasses.replace(config, eval=EvalConfig(layers=layers), retrain_recipe=chosen)
    return config


def evaluation_recipe(
    *, epochs: int = 600, batch_size: int = 96, cutout: int = 16, drop_path: float = 0.2, auxiliary: bool = True
) -> Recipe:
    """Training a CIFAR network of cells from scratch (Liu et al. 2019, appendix A.2); crops are the data set's."""
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
        augment=Augment(cutout=cutout),
    )


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

    The rate's line, its flatter end and its warm-up are those of both releases.
    """
    recipe = imagenet_recipe()
    return dataclasses.replace(recipe, batch_size=1024, learning_rate=0.5, warmup_epochs=5, schedule="linear_tail")
