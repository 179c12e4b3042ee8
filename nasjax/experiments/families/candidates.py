"""What every experiment is made of: the Config that decides its result, and the problem it searches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nasjax.data.dataset import DataConfig, Dataset, load
from nasjax.evaluators.child import STRATEGIES, child
from nasjax.evaluators.cost_model import choose_strategy, chunk_size, usable_bytes
from nasjax.evaluators.table import load_table, table
from nasjax.searchers.policy import DepthSchedule, depth_schedule
from nasjax.spaces.conv_chain import ConvChain, variant
from nasjax.spaces.conv_plan import plan
from nasjax.spaces.tabular_cell import TabularCell
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.types import Evaluator, PyTree, Searcher


@dataclass(frozen=True)
class TableConfig:
    """Where `--space=tabular_cell` reads its results; None lets `load_table` choose by the file's layout."""

    path: str = ""
    fitness: str | None = None
    cost: str | None = None
    cost_scale: float | None = None
    result: str | None = None


@dataclass(frozen=True)
class RetrainConfig:
    """`--mode=retrain`: training from scratch, spec section 6. `grid` tries the small grid on validation data first.

    Attributes:
      top_k: how many of the search's best are trained; the best of them by validation accuracy is tested.
      sample: how many paths of a supernet are trained alone, to see how well the search's scores rank them
        (standalone.jsonl). They are the first trials, which were drawn at random.
    """

    top_k: int = 1
    sample: int = 0
    grid: bool = False
    grid_epochs: int = 10
    grid_learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    grid_weight_decays: tuple[float, ...] = (5e-5, 1e-4, 2e-4)
    grid_bn_eps: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    grid_decays: tuple[float, ...] = (0.4, 0.5, 0.6)
    use_token: bool = True  # take the learning rate that the architecture predicts, where its space has one

    def __post_init__(self) -> None:
        for name in ("grid_learning_rates", "grid_weight_decays", "grid_bn_eps", "grid_decays"):
            if not getattr(self, name):
                raise ValueError(f"{name} needs at least one value")
        if self.grid_epochs < 1 or self.top_k < 1 or self.sample < 0:
            raise ValueError("grid_epochs and top_k must be at least 1, sample not negative")


@dataclass(frozen=True)
class Config:
    """Everything that decides a run; written to config.json."""

    method: str
    preset: str
    search: Any  # the method's own settings
    space: ConvChain | TabularCell
    data: DataConfig
    recipe: Recipe
    table: TableConfig = TableConfig()
    retrain_recipe: Recipe = Recipe()
    retrain: RetrainConfig = RetrainConfig()
    strategy: str = "auto"  # auto | vmap | exact
    width: int = 8  # candidates in flight
    last_epochs: int = 5  # fitness = best validation accuracy of the last epochs
    seed: int = 0
    trials: int | None = 32
    wall_s: float | None = None
    cost_s: float | None = None
    max_params: int | None = None
    max_macs: int | None = None

    def __post_init__(self) -> None:
        if self.trials is None and self.wall_s is None and self.cost_s is None:
            raise ValueError("a search needs a budget: trials, wall_s or cost_s")
        for name in ("trials", "wall_s", "cost_s", "max_params", "max_macs"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {self.strategy!r}; choose {', '.join(STRATEGIES)}")
        if self.last_epochs < 1:
            raise ValueError(f"last_epochs must be at least 1, got {self.last_epochs}")
        if self.width < 1:
            raise ValueError(f"width (candidates in flight) must be at least 1, got {self.width}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0..4294967295, got {self.seed}")


class Problem(NamedTuple):
    """A space and how its candidates are judged."""

    evaluator: Evaluator
    describe: Callable[[np.ndarray], dict[str, Any]]  # Arch -> arch (JSON), params, macs
    facts: dict[str, Any]  # for config.json: data, chosen strategy, estimates


class Experiment(NamedTuple):
    """A method on a problem, ready for `drive.search`."""

    config: Config
    searcher: Searcher
    problem: Problem
    metrics: Callable[[PyTree], dict[str, Any]] | None


def problem(config: Config) -> Problem:
    """Loads the data or the table that `config` names. Raises ValueError or FileNotFoundError with what to write."""
    if isinstance(config.space, TabularCell):
        return _tabular(config, config.space)
    data = load(config.data)
    space, (image, classes) = config.space, shape_of(data)
    backend = __import__("jax").default_backend()
    chosen, estimates = choose_strategy(space, image, classes, config.recipe, len(data.train.y), backend)
    if config.strategy != "auto":
        chosen = config.strategy
    if (need := estimates["bytes"].get(chosen, 0)) > usable_bytes():
        raise ValueError(
            f"one child needs about {need / 2**30:.1f} GiB with strategy {chosen}, "
            f"{usable_bytes() / 2**30:.1f} GiB are usable; try --set strategy=exact, "
            "a smaller --set recipe.batch_size or a smaller space"
        )
    chunk = min(config.width, chunk_size(estimates["bytes"]["vmap"])) if chosen == "vmap" else None
    evaluator = child(space, data, recipe=config.recipe, strategy=chosen, last_epochs=config.last_epochs, chunk=chunk)
    facts = {
        "dataset": dataset_facts(data),
        "strategy": chosen,
        "chunk": chunk,
        "estimates": estimates,
    }
    return Problem(evaluator, describer(space, image, classes), facts)


def describer(space: ConvChain, image: tuple[int, int, int], classes: int) -> Callable[[np.ndarray], dict[str, Any]]:
    """Arch -> its JSON form, parameters and multiply-adds."""

    def describe(arch: np.ndarray) -> dict[str, Any]:
        network = plan(space, arch, image, classes)
        return {
            "arch": space.encode(arch),
            "hash": space.identity(arch),
            "params": network.params,
            "macs": network.macs,
        }

    return describe


def dataset_facts(data: Dataset) -> dict[str, Any]:
    """What config.json says of the data."""
    image, classes = shape_of(data)
    parts = {"train": len(data.train.y), "valid": len(data.valid.y)}
    return {"name": data.name, "image": list(image), "classes": classes, **parts, "sha256": data.sha256}


def arch_digest(space: Any, tree: dict[str, Any]) -> str:
    """Canonical hash of an architecture given as JSON."""
    return space.identity(space.decode(tree))


def shape_of(data: Dataset) -> tuple[tuple[int, int, int], int]:
    """(height, width, channels) and classes of a dataset."""
    height, width, channels = data.train.x.shape[1:]
    return (height, width, channels), data.classes


def _tabular(config: Config, space: TabularCell) -> Problem:
    names = config.table
    if not names.path:
        raise ValueError("--space=tabular_cell needs --table=FILE.npz with the results of all architectures")
    rows = load_table(
        names.path, space, fitness=names.fitness, cost=names.cost, result=names.result, cost_scale=names.cost_scale
    )

    def describe(arch: np.ndarray) -> dict[str, Any]:
        return {"arch": space.encode(arch), "hash": space.identity(arch), "params": None, "macs": None}

    digest = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in rows)).hexdigest()
    facts = {"dataset": {"name": "table", "path": names.path, "sha256": digest}, "strategy": "table"}
    return Problem(table(space, rows), describe, facts)


def scheduled(space: ConvChain | TabularCell, search: Any) -> DepthSchedule:
    """The depth schedule of a method's settings (depth_first, depth_step, depth_every), within the space's depths."""
    largest = space.max_layers if isinstance(space, ConvChain) else 1
    first = min(search.depth_first or largest, largest)
    return depth_schedule(first=first, step=search.depth_step, every=search.depth_every, maximum=largest)


def refusal(config: Any) -> Callable[[dict[str, Any]], str | None]:
    """The hard limits --max_params and --max_macs as a function of a trial's row."""

    def refuse(row: dict[str, Any]) -> str | None:
        for name, limit in (("params", config.max_params), ("macs", config.max_macs)):
            if limit is not None and row[name] is not None and row[name] > limit:
                return f"{name} {row[name]} over the limit {limit}"
        return None

    return refuse


# What differs between data sets: mirrored digits are other digits, and small images want small shifts.
AUGMENT = {
    "digits": Augment(crop="pad", crop_size=1, flip=False),
    "cifar10": Augment(),
}


PAPER = {"paper": "v1", "paper_v2": "v2", "paper_v3": "v3"}  # preset -> published variant of the space


def preset(method: str, name: str, dataset: str | None, space: str | None, search: dict[str, Any]) -> Config:
    """The named settings of a method.

    Args:
      method: its name.
      name: "demo" (at most three minutes on two CPU cores), or a published setting: "paper" (variant v1, no strides),
        "paper_v2" (strides), "paper_v3" (max-pooling, 13 blocks of 3 layers).
      dataset: "digits", "cifar10" or the path of an .npz; None = digits for the demo, cifar10 for the paper's.
      space: "conv_chain" (None) or "tabular_cell".
      search: preset -> the method's own settings.

    Raises:
      ValueError: unknown preset or space.
    """
    if name not in ("demo", *PAPER):
        raise ValueError(f"unknown preset {name!r}; choose demo, {', '.join(PAPER)}")
    dataset = dataset or ("cifar10" if name in PAPER else "digits")
    augment = AUGMENT.get(dataset, Augment(crop="pad", crop_size=1, flip=False))
    config = Config(
        method=method,
        preset=name,
        search=search["paper" if name in PAPER else name],
        space=ConvChain(4, 4, filter_counts=(6, 12, 24, 36)),
        data=DataConfig(name=dataset),
        recipe=Recipe(epochs=4, learning_rate=0.1, augment=augment),
        retrain_recipe=Recipe(epochs=20, learning_rate=0.1, augment=augment),
    )
    if name in PAPER:
        paper = Recipe(augment=augment)
        config = dataclasses.replace(
            config,
            space=variant(PAPER[name]),
            recipe=paper,
            retrain_recipe=dataclasses.replace(paper, epochs=300),
            trials=12_800,
        )
    if space == "tabular_cell":
        return dataclasses.replace(config, space=TabularCell(), trials=110 if name == "demo" else None, cost_s=12_000.0)
    if space not in (None, "conv_chain"):
        raise ValueError(f"unknown space {space!r} for {method}; choose conv_chain or tabular_cell")
    return config
