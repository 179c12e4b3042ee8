"""Settings of the methods that try candidates one by one; `candidates_run` is what they do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from nasjax.data.dataset import DataConfig
from nasjax.drive.retrain import RetrainConfig
from nasjax.evaluators.child import STRATEGIES
from nasjax.evaluators.scores.named import require_known
from nasjax.experiments.families.settings import Config, require_latency, require_memory
from nasjax.experiments.families.traded import TradeoffConfig
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.runtime.ray import RayConfig
from nasjax.searchers.policy import DepthSchedule, depth_column, depth_schedule
from nasjax.settings import RESUMABLE
from nasjax.train.recipe import Recipe

RUNTIMES = ("auto", "inline", "process", "ray")


@dataclass(frozen=True)
class TableConfig:
    """Where results are looked up; None lets `load_table` choose by the file's layout and names.

    What a file says of itself (`metric`, `fidelities` and so on) is set by `--table`.

    Attributes:
      path: of an .npz with the results of all architectures; "" = candidates are trained.
      fitness, cost, result: names of columns: what the search sees, its seconds, and the reported result of the best.
      cost_scale: the factor that turns the column of costs into seconds.
      percent: whether fitness and result are percents; None = the columns' names say so.
      metric: what the fitness is. Any but accuracy is shown as it is, or with `percent` said in percent.
      smaller: a smaller metric is better.
      fidelities: EPOCHS:FITNESS:COST of trainings of several lengths, columns of the table, FACTOR in COST*FACTOR makes
        seconds; for methods that train in rungs.
    """

    path: str = ""
    fitness: str | None = None
    cost: str | None = None
    cost_scale: float | None = None
    result: str | None = None
    percent: bool | None = None
    metric: str = "accuracy"
    smaller: bool = False
    fidelities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CandidateConfig(Config):
    """Everything that decides a search by candidates.

    Attributes:
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
      save_every: seconds of training after which a candidate's state is saved, so that a killed run loses no more.
      last_epochs: fitness = the best validation metric of the last epochs.
      trials, wall_s, cost_s: the budget; the first limit reached counts.
      latency: a file of --mode=latency, by which milliseconds of candidates are predicted; "" = none.
      max_params, max_macs, max_latency_ms, max_memory_mb: candidates beyond are refused before training. Memory is in
        MB of 10^6 bytes, of weights and activations at inference.
      memory_batch: samples of a call, for the memory of activations.
      tradeoff: what candidates cost, as a part of their fitness.
      candidate_scores: training-free scores that are computed of every candidate before its training and recorded:
        naswot, synflow, logsynflow, jacob_cov, grad_norm, snip, zico.
      refuse_worst: candidates whose scores beat less than this part of random architectures of like size are refused
        before training, whatever proposed them; 0 = none.
    """

    recipe: Recipe = Recipe()
    table: TableConfig = TableConfig()  # type: ignore[misc]  # other families have none
    strategy: str = "auto"
    width: int = 8
    inherit: bool = False
    runtime: str = field(default="auto", metadata=RESUMABLE)
    workers: int = field(default=0, metadata=RESUMABLE)
    ray: RayConfig = field(default=RayConfig(), metadata=RESUMABLE)
    trial_timeout: float | None = field(default=None, metadata=RESUMABLE)
    save_every: float = field(default=60.0, metadata=RESUMABLE)
    last_epochs: int = 5
    trials: int | None = field(default=32, metadata=RESUMABLE)
    wall_s: float | None = field(default=None, metadata=RESUMABLE)
    cost_s: float | None = field(default=None, metadata=RESUMABLE)
    max_params: int | None = None
    max_macs: int | None = None
    latency: str = ""
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    memory_batch: int = 1
    tradeoff: TradeoffConfig = TradeoffConfig()
    candidate_scores: tuple[str, ...] = ()
    refuse_worst: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials is None and self.wall_s is None and self.cost_s is None:
            raise ValueError("a search needs a budget: trials, wall_s or cost_s")
        for name in ("trials", "wall_s", "cost_s", "max_params", "max_macs", "trial_timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.save_every < 0:
            raise ValueError(f"save_every is a number of seconds, 0 or more, got {self.save_every}")
        require_latency(self)
        require_memory(self)
        if self.table.path and self.latency:
            raise ValueError("with a table no network is built, so --latency has no effect; leave it out")
        if self.table.path and self.max_memory_mb is not None:
            raise ValueError("with a table no network is built, so --max_memory_mb has no effect; leave it out")
        if self.table.path and self.tradeoff.costs:
            raise ValueError("with a table no network is built, so tradeoff.costs has no effect; leave it out")
        if "latency" in self.tradeoff.costs and not self.latency:
            raise ValueError("tradeoff.costs has latency: add --latency=FILE.json, which --mode=latency writes")
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
        require_known(self.candidate_scores)
        if not 0 <= self.refuse_worst < 1:
            raise ValueError(
                f"refuse_worst must be a part of all, from 0 to below 1 (0.2, say); got {self.refuse_worst}"
            )
        if self.refuse_worst and not self.candidate_scores:
            raise ValueError(
                "refuse_worst needs scores to go by; add --set candidate_scores=naswot, or several with commas"
            )
        if self.candidate_scores and self.table.path:
            raise ValueError(
                "candidate_scores are of networks that are trained; with a table write none (bo: search.scores)"
            )
        if self.trial_timeout is not None and not self.workers:
            raise ValueError("trial_timeout needs worker processes, which can be stopped; add --workers=1")

    @property
    def weighs_memory(self) -> bool:
        """Whether the search goes by the memory of networks."""
        return self.max_memory_mb is not None or "memory" in self.tradeoff.costs


def scheduled(space: Any, search: Any) -> DepthSchedule:
    """The depth schedule of a method's settings (depth_first, depth_step, depth_every), within the space's depths."""
    column = depth_column(space)
    largest = max(space.sites[column].choices) if column is not None else 1
    first = min(search.depth_first or largest, largest)
    return depth_schedule(first=first, step=search.depth_step, every=search.depth_every, maximum=largest)


def described(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect shows without --arch of a method that trains candidates and nothing beside them."""
    more = "" if problem.looked_up else "; a network of it is counted with --arch=NAME, JSON or FILE"
    return {"describes": f"the space{more}", "params": None, "macs": None}


def preset(
    method: str, given: Given, *, demo: Any, paper: Any, trials: int = 32, published_trials: int = 12_800
) -> CandidateConfig:
    """The settings of a method over any space: the space says how its networks are trained, and on which data.

    A demo trains candidates for 4 epochs, and what it found for 20.

    Args:
      method: its name.
      given: what is asked for: "demo", "paper", or another published variant of the space.
      demo, paper: the method's own settings.
      trials, published_trials: its budget in a demo, and in a published setting.

    Raises:
      ValueError: unknown preset.
    """
    builder, published, data = given.builder, given.published, given.data()
    given.known("demo", *(builder.presets or ("paper",)))
    recipes = given.recipes(data.augment)
    space, form = (builder.default, builder.form) if published or not builder.small else builder.small
    form = builder.large if published and data.large and builder.large is not None else form
    return CandidateConfig(
        method=method,
        preset=given.preset,
        search=paper if published else demo,
        space=builder.presets.get(given.preset, space),
        form=form,
        data=DataConfig(name=data.name),
        recipe=recipes.search if published else dataclasses.replace(recipes.demo, epochs=4),
        retrain=RetrainConfig(part=recipes.part if published else "train"),
        retrain_recipe=recipes.last if published else dataclasses.replace(recipes.demo, epochs=20),
        trials=published_trials if published else trials,
    )
