"""Settings of the methods that try candidates one by one; `candidates_run` is what they do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from nasjax import catalog
from nasjax.building.cell_tree import MEDIUM
from nasjax.building.darts_cell import evaluation_recipe
from nasjax.building.tabular_cell import BENCHMARK
from nasjax.data.dataset import DataConfig
from nasjax.drive.retrain import RetrainConfig
from nasjax.evaluators.child import STRATEGIES
from nasjax.experiments.families.config import Config, default_augment
from nasjax.runtime.ray import RayConfig
from nasjax.searchers.policy import DepthSchedule, depth_column, depth_schedule
from nasjax.spaces.cell_tree import CellTree
from nasjax.spaces.conv_chain import ConvChain, variant
from nasjax.spaces.darts_cell import DartsCell
from nasjax.spaces.resolution_graph import ResolutionGraph
from nasjax.spaces.tabular_cell import TabularCell
from nasjax.train.recipe import Recipe
from nasjax.types import (
    Builder,
)

RUNTIMES = ("auto", "inline", "process", "ray")


@dataclass(frozen=True)
class TableConfig:
    """Where `--space=tabular_cell` reads its results; None lets `load_table` choose by the file's layout and names."""

    path: str = ""
    fitness: str | None = None
    cost: str | None = None
    cost_scale: float | None = None
    result: str | None = None
    percent: bool | None = None


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
    if not paper and isinstance(chosen, ResolutionGraph):  # 200 steps of SGD at the paper preset's rate learn nothing
        recipe = dataclasses.replace(recipe, optimizer="adam")
    if paper and isinstance(chosen, CellTree):
        recipe = MEDIUM
    last = recipe  # of the paper's last training, but for its epochs
    # cells from elsewhere are trained as there, in the end on all images: Dong & Yang 2020, Table 2; Liu et al. 2019,
    # whose random search trains for 100 epochs (Table 1)
    elsewhere = paper and isinstance(chosen, TabularCell | DartsCell)
    if elsewhere:
        of = BENCHMARK if isinstance(chosen, TabularCell) else evaluation_recipe()
        shifted = dataclasses.replace(default_augment(dataset), crop="pad", cutout=of.augment.cutout)
        last, long = dataclasses.replace(of, augment=shifted), of.epochs
        recipe = last if isinstance(chosen, TabularCell) else dataclasses.replace(last, epochs=100)
    return CandidateConfig(
        method=method,
        preset=name,
        search=search["paper" if paper else name],
        space=chosen,
        form=form,
        data=DataConfig(name=dataset),
        recipe=recipe if paper else dataclasses.replace(recipe, epochs=4),
        retrain=RetrainConfig(part="all" if elsewhere else "train"),
        retrain_recipe=dataclasses.replace(last, epochs=long if paper else 20),
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
    return {"dataset": "cifar10", "train": 45_000, **_CHAINS[name], "source": "Zoph & Le 2017, Table 1"}
